"""Files of the state without some keys: generations, manifests and history all have a column `key`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import duckdb

from dagster_retl.changes.snapshot import literal


def holds(connection: duckdb.DuckDBPyConnection, file: Path, keys: Collection[str]) -> bool:
    """Whether the file says anything about one of these keys."""
    found = connection.execute(f"SELECT 1 FROM read_parquet({literal(str(file))}) WHERE {_among(keys)} LIMIT 1")
    return bool(found.fetchall())


def without(file: Path, keys: Collection[str]) -> str:
    """A query for all rows of the file but those of these keys."""
    return f"SELECT * FROM read_parquet({literal(str(file))}) WHERE NOT {_among(keys)}"


def _among(keys: Collection[str]) -> str:
    return f"key IN ({', '.join(map(literal, sorted(keys)))})"
