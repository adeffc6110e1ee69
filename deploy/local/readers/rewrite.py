"""Commits of somebody else: rewrite.py CATALOG NAMESPACE.TABLE FILTER takes the rows
away that the filter names ("" none), then writes all others anew into one file."""

import sys
import time

from catalog import opened

catalog, name, rows_away = sys.argv[1:]
# The worker may commit in between: then it is done again on what the table is by then.
deadline = time.monotonic() + 120
while True:
    try:
        table = opened(catalog).load_table(name)
        if rows_away:
            table.delete(rows_away)
        table.overwrite(table.scan().to_arrow())
        break
    except Exception as error:
        if time.monotonic() > deadline:
            raise
        print(error, file=sys.stderr)
