"""Statements that several tables need: upserts in both dialects, sets of values, results as Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
from sqlalchemy import Connection, Select, Table
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")

_CHUNK = 5_000  # values in one statement: SQLite takes 32,766 parameters, Postgres 65,535
_PAGE = 10_000  # rows fetched at a time


def upsert(conn: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return sqlite.insert(table) if conn.dialect.name == "sqlite" else postgresql.insert(table)


def chunks(values: Iterable[T], size: int = _CHUNK) -> Iterator[list[T]]:
    """The values in lists that one statement can take."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def arrow_table(conn: Connection, query: Select[Any], schema: pa.Schema) -> pa.Table:
    """The rows of `query`, whose columns are those of `schema` in order, without a Python row for each at once."""
    result = conn.execute(query.execution_options(yield_per=_PAGE))
    batches = [
        pa.record_batch(
            [pa.array(values, type=field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)],
            schema=schema,
        )
        for rows in result.partitions()
    ]
    return pa.Table.from_batches(batches, schema=schema)
