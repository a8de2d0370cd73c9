"""Columns as SQLAlchemy's reflection tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import sqltypes

from dagster_retl.connectors.sql_tables import Column
from dagster_retl.connectors.sql_types import ColumnType, Kind

_KINDS: tuple[tuple[type[Any], Kind], ...] = (
    (sqltypes.Boolean, Kind.BOOLEAN),
    (sqltypes.Integer, Kind.INTEGER),
    (sqltypes.Float, Kind.FLOAT),
    (sqltypes.Numeric, Kind.DECIMAL),
    (sqltypes.JSON, Kind.JSON),
    (sqltypes.Uuid, Kind.UUID),
    (sqltypes.ARRAY, Kind.ARRAY),
    (sqltypes.DateTime, Kind.TIMESTAMP),
    (sqltypes.Date, Kind.DATE),
    (sqltypes.Time, Kind.TIME),
    (sqltypes.String, Kind.TEXT),
    (sqltypes._Binary, Kind.BYTES),  # noqa: SLF001 - the one base of BLOB, BYTEA and VARBINARY
)


def column_type(reflected: Any, dialect: sa.Dialect) -> ColumnType:
    """A reflected type as ours; a domain is the type below it."""
    below = getattr(reflected, "data_type", None)
    if isinstance(below, sa.types.TypeEngine):
        return column_type(below, dialect)
    kind = next((kind for family, kind in _KINDS if isinstance(reflected, family)), Kind.OTHER)
    if kind is Kind.TIMESTAMP and reflected.timezone:
        kind = Kind.TIMESTAMP_TZ
    name = "unknown" if isinstance(reflected, sqltypes.NullType) else reflected.compile(dialect=dialect)
    item = column_type(reflected.item_type, dialect) if kind is Kind.ARRAY else None
    return ColumnType(kind, name, item)


def table_column(reflected: Mapping[str, Any], dialect: sa.Dialect, row_id: str | None) -> Column:
    """A reflected column as ours; `row_id` names the one that SQLite fills by itself."""
    identity = reflected.get("identity") or {}
    filled = reflected.get("default") is not None or reflected.get("autoincrement") is True or bool(identity)
    return Column(
        name=str(reflected["name"]),
        type=column_type(reflected["type"], dialect),
        nullable=bool(reflected["nullable"]),
        filled=filled or reflected["name"] == row_id,
        computed="computed" in reflected or bool(identity.get("always")),
    )


def row_id_column(columns: Sequence[Mapping[str, Any]]) -> str | None:
    """SQLite fills a primary key of one INTEGER column by itself: https://www.sqlite.org/lang_createtable.html#rowid."""
    keys = [column for column in columns if column.get("primary_key")]
    return str(keys[0]["name"]) if len(keys) == 1 and isinstance(keys[0]["type"], sa.INTEGER) else None
