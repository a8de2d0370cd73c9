"""What a warehouse is to a sync: SQL in, Arrow blocks out, streamed, read-only.

Every source gives the same promises. A row's value survives exactly or the read fails with an
error that names the column: nothing is rounded, nothing becomes null. Memory is bounded by a few
blocks. The schema of an extract is fixed before its first block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from dagster_retl.errors import ConfigurationError, ErrorCode, SourceError

BLOCK_ROWS = 50_000
"""Rows of a block, unless the reader asks for another number."""
_LOCAL_TIME = b"retl:local_time"


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """How to talk to a warehouse; `name` is what errors call it.

    connect_args: handed to the driver. timezone: the warehouse's local time, an IANA name; timestamps
    without zone are read as that local time and become UTC. Without it they stay without zone.
    statement_timeout: seconds. query_tag: shown where the warehouse lists its sessions or queries.
    """

    name: str
    connect_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timezone: str | None = None
    statement_timeout: float | None = None
    query_tag: str | None = None


@dataclass(frozen=True, slots=True)
class Extract:
    """The result of a query: `blocks` all have `schema`. `notes`: what a person should know about its types."""

    schema: pa.Schema
    blocks: Iterator[pa.RecordBatch]
    notes: tuple[str, ...] = ()


class Source(ABC):
    """A warehouse. One reader at a time; `dialect` is sqlglot's name of its SQL."""

    dialect: str

    def __init__(self, settings: SourceSettings) -> None:
        self.settings = settings

    @abstractmethod
    def read(self, sql: str, *, block_rows: int = BLOCK_ROWS) -> AbstractContextManager[Extract]:
        """Run one query (see `resolve_query`) and stream its result, at most `block_rows` rows a block.

        Leaving the context early stops the query. Raises `SourceError`: `SOURCE_UNAVAILABLE` when the
        warehouse cannot be reached, `SOURCE_QUERY` when it refuses the query or a value cannot be read
        exactly; while the blocks are consumed, too.
        """

    def columns(self, sql: str) -> pa.Schema:
        """The columns of a query. Types that depend on the data are settled by `read` only."""
        with self.read(sql, block_rows=1) as extract:
            return extract.schema

    @abstractmethod
    def check(self) -> None:
        """Reach the warehouse. Raises `SourceError` with `SOURCE_UNAVAILABLE` and how to fix it."""

    def close(self) -> None:  # noqa: B027 most sources keep nothing open
        """Let go of connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def unavailable(self, message: object, hint: str) -> SourceError:
        """The error for a warehouse that cannot be reached; `message` is the driver's."""
        return SourceError(
            f"warehouse {self.settings.name!r} cannot be reached: {str(message).strip()}",
            hint=hint,
            code=ErrorCode.SOURCE_UNAVAILABLE,
        )

    def refused(self, message: object, hint: str | None = None) -> SourceError:
        """The error for a query that the warehouse refused; `message` is the database's."""
        return SourceError(f"warehouse {self.settings.name!r} refused the query: {str(message).strip()}", hint=hint)


def require_columns(names: list[str]) -> None:
    """Refuse a result without columns, or with two columns of one name: a mapping could mean either."""
    if not names:
        raise SourceError("the query returns no columns", hint="Select the columns that the sync maps.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(
            f"the query returns {names.count(twice[0])} columns named {twice[0]!r}",
            hint="Give each column a name of its own (`AS`), or list the columns instead of `*`.",
        )


def in_local_time(extract: Extract, timezone: str | None) -> Extract:
    """The extract with its timestamps without zone read as `timezone`'s local time, in UTC.

    A time that a clock change repeats is its first occurrence; one that it leaves out is the moment
    of the change. Their columns say so (`is_local_time`).
    """
    naive = [i for i, column in enumerate(extract.schema) if _is_naive(column.type)]
    if timezone is None or not naive:
        return extract
    schema = extract.schema
    for i in naive:
        utc = schema.field(i).with_type(pa.timestamp(schema.field(i).type.unit, "UTC"))
        schema = schema.set(i, utc.with_metadata({_LOCAL_TIME: b"yes"}))
    return Extract(schema, _localised(extract.blocks, schema, naive, timezone), extract.notes)


def is_local_time(column: pa.Field) -> bool:
    """Whether a column's timestamps have no zone in the warehouse."""
    return _LOCAL_TIME in (column.metadata or {})


def _is_naive(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is None


def _localised(
    blocks: Iterator[pa.RecordBatch], schema: pa.Schema, naive: list[int], timezone: str
) -> Iterator[pa.RecordBatch]:
    for block in blocks:
        columns = list(block.columns)
        for i in naive:
            local = pc.assume_timezone(columns[i], timezone, ambiguous="earliest", nonexistent="latest")
            columns[i] = local.cast(schema.field(i).type)
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def rechunk(blocks: Iterator[pa.RecordBatch], block_rows: int) -> Iterator[pa.RecordBatch]:
    """Blocks of at most `block_rows` rows, none of them empty; slices share memory."""
    for block in blocks:
        for start in range(0, block.num_rows, block_rows):
            yield block.slice(start, block_rows)


def missing_driver(name: str, driver: str, extra: str | None) -> ConfigurationError:
    """The error for a warehouse whose driver is not installed."""
    install = f"pip install 'dagster-retl[{extra}]'" if extra else f"pip install the package that brings {driver!r}"
    return ConfigurationError(
        f"warehouse {name!r} needs the driver {driver!r}, which is not installed", hint=f"Install it: {install}"
    )
