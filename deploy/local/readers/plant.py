"""Faults of somebody else: plant.py CATALOG NAMESPACE.TABLE plant takes row 1001 away, changes the
name in row 1002, and adds row 1003 once more and a row 9001 that nobody has; clear takes what was
added away again."""

import sys

import pyarrow
from catalog import opened

catalog, name, what = sys.argv[1:]


def plant(table, change):
    found = table.scan(row_filter="id in (1002, 1003)").to_arrow().to_pylist()
    changed, again = sorted(found, key=lambda row: row["id"])
    changed["name"] = "planted"
    # A row of the sink's partition would go with its next commit.
    again["_cdc_partition"] = None
    ghost = {**again, "id": 9001}
    change.delete("id in (1001, 1002)")
    schema = table.schema().as_arrow()
    change.append(pyarrow.Table.from_pylist([changed, again, ghost], schema=schema))


# The worker may commit in between: then it is done again on what the table is by then.
for turn in range(20):
    try:
        table = opened(catalog).load_table(name)
        with table.transaction() as change:
            if what == "clear":
                change.delete("_cdc_partition is null")
            else:
                plant(table, change)
        break
    except Exception as error:
        if turn == 19:
            raise
        print(error, file=sys.stderr)
