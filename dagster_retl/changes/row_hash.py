"""Row hashes: 64 bits by which rows that did not change are found, before anything dearer is computed of them.

A hash is DuckDB's `hash()` of a mapped row: a quarter of the price of a fingerprint, and good for comparing a row
with itself only. It may change with DuckDB's version and with the type of a column, so that each generation
says under which terms its hashes were made (`terms_of`); under other terms none of them counts. Equal hashes mean
that a row did not change (two versions of one row share a hash once in 2^64); different ones mean nothing, and
the fingerprint decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import types as kinds

from dagster_retl.model.rows import FieldType
from dagster_retl.model.sql_text import identifier, is_text


def terms_of(fields: Sequence[FieldType]) -> str | None:
    """What hashes of rows with these fields depend on, as a short text; None: such rows have none.

    Nested values have none, nor have lengths of time, of which different ones may be equal to DuckDB.
    """
    if not all(_has_hash(field.arrow_type) for field in fields):
        return None
    parts = [f"{field.name!r} {field.arrow_type} {field.omit_null}" for field in _ordered(fields)]
    text = "\n".join([duckdb.__version__, *parts])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def row_hash_sql(fields: Sequence[FieldType]) -> str:
    """A DuckDB expression of type UBIGINT over columns named as `fields`, all of types that have a hash."""
    return f"hash({', '.join(identifier(field.name) for field in _ordered(fields))})"


def _ordered(fields: Sequence[FieldType]) -> list[FieldType]:
    return sorted(fields, key=lambda field: field.name)


def _has_hash(kind: Any) -> bool:
    return not isinstance(kind, pa.BaseExtensionType) and any(matches(kind) for matches in _KINDS)


_KINDS = (
    is_text,
    kinds.is_integer,
    kinds.is_decimal,
    kinds.is_floating,
    kinds.is_boolean,
    kinds.is_date,
    kinds.is_time,
    kinds.is_timestamp,
    kinds.is_null,
)
