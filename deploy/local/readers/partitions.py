"""Whether each row of a table is in a file of its partition: partitions.py CATALOG NAMESPACE.TABLE prints
the partitioning and how many partitions there are."""

import datetime
import sys

import pyarrow.parquet as parquet
from catalog import opened
from pyiceberg.utils.datetime import date_to_days, datetime_to_micros


def internal(value):
    """A value as Iceberg's transforms take it."""
    if isinstance(value, datetime.datetime):
        return datetime_to_micros(value.replace(tzinfo=None))
    return date_to_days(value) if isinstance(value, datetime.date) else value


catalog, name = sys.argv[1:]
table = opened(catalog).load_table(name)
schema, spec = table.schema(), table.spec()
partitions = set()
for task in table.scan().plan_files():
    file = task.file
    with table.io.new_input(file.file_path).open() as stream:
        rows = parquet.read_table(stream)
    found = [file.partition[at] for at in range(len(spec.fields))]
    for field, value in zip(spec.fields, found):
        column = schema.find_field(field.source_id)
        # PyIceberg's own transforms in Python, which share nothing with those of the writer.
        transform = field.transform.transform(column.field_type)
        expected = {transform(internal(row)) for row in rows[column.name].to_pylist()}
        if expected != {internal(value)}:
            sys.exit(f"{file.file_path}: {field.name} is {value}, its rows have {expected}")
    partitions.add(str(found))
print(", ".join(f"{field.name} {field.transform}" for field in spec.fields), len(partitions))
