"""The catalog that a script of this folder is given: PyIceberg's properties as one JSON object."""

import json

from pyiceberg.catalog import load_catalog


def opened(text):
    return load_catalog("default", **json.loads(text))
