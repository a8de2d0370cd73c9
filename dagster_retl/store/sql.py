"""Statements that several tables need: upserts in both dialects, sets of values, results as Arrow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import orjson
import pyarrow as pa
from sqlalchemy import Connection, Select, Table, func, select
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


def of_syncs(conn: Connection, page: Select[Any], table: Table, sync_ids: Collection[str]) -> Select[Any]:
    """The page of a list, with what belongs to these syncs only.

    SQLite would sort all that they have: it is told to take a page of each. Postgres finds that by itself.
    """
    if conn.dialect.name != "sqlite":
        return page.where(table.c.sync_id.in_(sorted(sync_ids)))
    each = func.json_each(orjson.dumps(sorted(sync_ids)).decode()).table_valued("value")
    of_one = page.with_only_columns(table.c.id).where(table.c.sync_id == each.c.value).correlate(each)
    found = table.alias()
    return page.where(table.c.id.in_(select(found.c.id).join_from(each, found, found.c.id.in_(of_one)).correlate(None)))


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
