"""Commits of somebody else: foreign.py CATALOG NAMESPACE.TABLE adds a column and a row,
and expires every snapshot before its own."""

import datetime
import sys

import pyarrow
from catalog import opened
from pyiceberg.types import StringType

catalog, name = sys.argv[1:]
# The worker may commit in between: then it is done again on what the table is by then.
for turn in range(10):
    try:
        table = opened(catalog).load_table(name)
        if "by_hand" not in table.schema().column_names:
            with table.update_schema() as update:
                update.add_column("by_hand", StringType())
        if "added by PyIceberg" not in table.scan(selected_fields=("by_hand",)).to_arrow()["by_hand"].to_pylist():
            table.append(pyarrow.table({"by_hand": ["added by PyIceberg"]}))
        table.maintenance.expire_snapshots().older_than(datetime.datetime.now()).commit()
        break
    except Exception as error:
        if turn == 9:
            raise
        print(error, file=sys.stderr)
