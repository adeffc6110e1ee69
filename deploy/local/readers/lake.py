"""Reads an Iceberg table with PyIceberg and with DuckDB, and prints its rows if both agree.

lake.py CATALOG NAMESPACE.TABLE [COLUMN...]: one JSON object per row and line, its
values as PostgreSQL's to_jsonb writes them, numbers of decimals as text.
"""

import datetime
import decimal
import glob
import importlib.util
import json
import math
import sys
import uuid

import duckdb
from catalog import opened


def plain(value):
    """A value as both engines can agree on it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime):
        zoned = value.tzinfo is not None
        text = value.astimezone(datetime.timezone.utc).replace(tzinfo=None).isoformat() if zoned else value.isoformat()
        return trimmed(text) + ("+00:00" if zoned else "")
    if isinstance(value, datetime.time):
        return trimmed(value.isoformat())
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {key: plain(item) for key, item in value}
        return [plain(item) for item in value]
    raise TypeError(f"{type(value)} is not foreseen")


def trimmed(text):
    """Without zeros at the end of a fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def rows_of(table):
    """Rows of an Arrow table, as JSON texts in order."""
    rows = ({name: plain(value) for name, value in row.items()} for row in table.to_pylist())
    return sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)


def extension(name):
    folder = importlib.util.find_spec(f"duckdb_extension_{name}").submodule_search_locations[0]
    return glob.glob(f"{folder}/extensions/*/{name}.duckdb_extension")[0]


def main():
    catalog, name, *columns = sys.argv[1:]
    table = opened(catalog).load_table(name)
    scan = table.scan(selected_fields=tuple(columns)) if columns else table.scan()
    by_pyiceberg = rows_of(scan.to_arrow())

    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute("SET TimeZone = 'UTC'")
    for needed in ("avro", "httpfs", "iceberg"):
        connection.execute(f"LOAD '{extension(needed)}'")
    properties = json.loads(catalog)
    if "s3.endpoint" in properties:
        key, secret, region = (properties[f"s3.{name}"] for name in ("access-key-id", "secret-access-key", "region"))
        endpoint = properties["s3.endpoint"].removeprefix("http://")
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{key}', SECRET '{secret}', REGION '{region}', "
            f"ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
        )
    wanted = ", ".join(f'"{column}"' for column in columns) or "*"
    query = f"SELECT {wanted} FROM iceberg_scan('{table.metadata_location}')"
    found = connection.execute(query)
    found = found.to_arrow_table() if hasattr(found, "to_arrow_table") else found.fetch_arrow_table()
    by_duckdb = rows_of(found)

    if by_pyiceberg != by_duckdb:
        only = set(by_pyiceberg) ^ set(by_duckdb)
        sys.exit(f"PyIceberg reads {len(by_pyiceberg)} rows, DuckDB {len(by_duckdb)}; differ: {list(only)[:4]}")
    sys.stdout.write("".join(row + "\n" for row in by_pyiceberg))


main()
