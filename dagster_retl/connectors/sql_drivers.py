"""What each database's driver is given for a value that fits its column, so that it arrives exactly."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from dagster_retl.connectors.sql_types import Coercion, CoercionError, ColumnType, json_text


def _sqlite(value: Any) -> Any:
    """SQLite stores text, 64-bit integers, doubles and blobs: https://www.sqlite.org/datatype3.html."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise CoercionError("the number needs more than the 64 bits of an SQLite integer")
    if isinstance(value, float) and math.isnan(value):
        raise CoercionError("SQLite would store NaN as NULL")
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    return json_text(value) if isinstance(value, (list, dict)) else value


def _mysql(value: Any) -> Any:
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        raise CoercionError("MySQL has no NaN and no infinity")
    return str(value) if isinstance(value, UUID) else value


def _duckdb(value: Any) -> Any:
    """Text is cast to the column's type exactly, where a Python list of mixed numbers would become DOUBLE."""
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    return [_duckdb(item) for item in value] if isinstance(value, list) else value


def _duckdb_wide(value: Any) -> Any:
    return None if value is None else str(value)


_WIDE = ("HUGEINT", "UHUGEINT", "UBIGINT")


def _unchanged(value: Any) -> Any:
    return value


def adaptation(dialect: str, column_type: ColumnType) -> Coercion:
    """What turns a fitting value into one that the dialect's driver passes on exactly."""
    if dialect == "duckdb" and column_type.name in _WIDE:
        return _duckdb_wide
    return {"sqlite": _sqlite, "mysql": _mysql, "mariadb": _mysql, "duckdb": _duckdb}.get(dialect, _unchanged)
