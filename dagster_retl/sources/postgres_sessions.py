"""The two ways to read from Postgres: ADBC, and psycopg with a server-side cursor.

ADBC is imported when it is used: its module imports pandas. The drivers raise their own errors
(`driver_errors`); whoever uses a session translates them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.adapt import Loader
from psycopg.pq import Format

from dagster_retl.sources.postgres_columns import PostgresColumn

_EPOCH_DAYS = 10_957
"""Days from 1970-01-01 to 2000-01-01, where Postgres counts from."""
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000
_INT32, _INT64 = 2**31, 2**63

_WRAPPED_INFINITY = {
    pa.int32(): (_EPOCH_DAYS - 1 - _INT32, _EPOCH_DAYS - _INT32, _INT32 - 1),
    pa.int64(): (_EPOCH_MICROSECONDS - 1 - _INT64, _EPOCH_MICROSECONDS - _INT64, _INT64 - 1),
}
"""What ADBC makes of `infinity` and `-infinity` (largest and smallest integer, shifted by the epoch, wrapped
around), and the integer that Arrow's readers, DuckDB among them, take for infinity."""


class StreamError(Exception):
    """The server's or the connection's error while rows arrive; Arrow passes on its text only."""


class Session(Protocol):
    """A read-only transaction."""

    def row(self, sql: str) -> tuple[Any, ...]:
        """The only row of a query."""

    def blocks(self, sql: str, columns: Sequence[PostgresColumn], block_rows: int) -> Iterator[pa.RecordBatch]:
        """The result, with the types in which the columns arrive (`arriving`)."""


OpenSession = Callable[[str, Sequence[str]], AbstractContextManager[Session]]
"""Takes a libpq connection string and the statements that set the transaction up."""


def driver_errors() -> tuple[type[Exception], ...]:
    """The errors of the drivers that are installed; all but `StreamError` have `sqlstate`."""
    if not adbc_installed():
        return (psycopg.Error, StreamError)
    import adbc_driver_manager  # noqa: PLC0415 an optional driver

    return (psycopg.Error, StreamError, adbc_driver_manager.Error)


def adbc_installed() -> bool:
    """Whether ADBC's driver for Postgres can be imported."""
    return find_spec("adbc_driver_manager") is not None and find_spec("adbc_driver_postgresql") is not None


def arriving(column: PostgresColumn) -> pa.DataType:
    """The type that the drivers deliver for a column: decimals come as text."""
    if not column.text:
        return column.arrow_type
    return pa.list_(pa.string()) if pa.types.is_list(column.arrow_type) else pa.string()


@contextmanager
def open_adbc(conninfo: str, settings: Sequence[str]) -> Iterator[Session]:
    """A session through ADBC, which streams the result of a COPY."""
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415 it imports pandas

    with dbapi.connect(conninfo) as connection, connection.cursor() as cursor:
        for setting in settings:
            cursor.execute(setting)
        yield _AdbcSession(cursor)


class _AdbcSession:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def row(self, sql: str) -> tuple[Any, ...]:
        self._cursor.execute(sql)
        return tuple(self._cursor.fetchone())

    def blocks(self, sql: str, columns: Sequence[PostgresColumn], block_rows: int) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([(column.name, arriving(column)) for column in columns])
        self._cursor.execute(sql)
        reader = self._cursor.fetch_record_batch()
        while block := _next_of(reader):
            yield pa.RecordBatch.from_arrays([_infinities(array) for array in block.columns], schema=schema)


def _next_of(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except (pa.ArrowException, OSError) as error:  # how Arrow hands on what the server said amid the rows
        raise StreamError(str(error)) from error


def _infinities(array: pa.Array) -> pa.Array:
    """Dates and timestamps with ADBC's wrapped infinities replaced by those that readers know."""
    kind = array.type
    if pa.types.is_list(kind) and _has_infinity(kind.value_type):
        values = _infinities(array.values)
        return pa.ListArray.from_arrays(array.offsets, values, mask=array.is_null() if array.null_count else None)
    if not _has_infinity(kind):
        return array
    integer = _integer_of(kind)
    positive, negative, infinity = _WRAPPED_INFINITY[integer]
    numbers = array.view(integer)
    least = pc.min(numbers).as_py()
    if least is None or least > max(positive, negative):
        return array
    numbers = pc.if_else(pc.equal(numbers, positive), pa.scalar(infinity, integer), numbers)
    return pc.if_else(pc.equal(numbers, negative), pa.scalar(-infinity, integer), numbers).view(kind)


def _has_infinity(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date32(kind) or pa.types.is_timestamp(kind))


@contextmanager
def open_psycopg(conninfo: str, settings: Sequence[str]) -> Iterator[Session]:
    """A session through psycopg, which fetches from a server-side cursor."""
    connection = psycopg.connect(conninfo, prepare_threshold=None)
    try:
        for setting in settings:
            connection.execute(setting.encode())
        yield _PsycopgSession(connection)
    finally:
        connection.close()


class _PsycopgSession:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def row(self, sql: str) -> tuple[Any, ...]:
        return tuple(self._connection.execute(sql.encode()).fetchone())

    def blocks(self, sql: str, columns: Sequence[PostgresColumn], block_rows: int) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([(column.name, arriving(column)) for column in columns])
        with self._connection.cursor(name="retl") as cursor:
            _load_moments_as_integers(cursor)
            cursor.execute(sql.encode(), binary=True)
            while rows := cursor.fetchmany(block_rows):
                columnar = zip(*rows, strict=True)
                arrays = [_array(values, field.type) for values, field in zip(columnar, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values as psycopg loads them here: dates, times and timestamps are integers."""
    if pa.types.is_list(kind):
        integers = pa.array(values, pa.list_(_integer_of(kind.value_type)))
        return integers if integers.type == kind else integers.cast(kind)
    return pa.array(values, _integer_of(kind)).view(kind)


def _integer_of(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_date32(kind):
        return pa.int32()
    return pa.int64() if pa.types.is_timestamp(kind) or pa.types.is_time64(kind) else kind


def _load_moments_as_integers(cursor: Any) -> None:
    """Python's own types end at the year 9999 and know no infinity."""

    def loader(form: str, shift: int, largest: int | None) -> type[Loader]:
        unpack = struct.Struct(form).unpack

        class IntegerLoader(Loader):
            format = Format.BINARY

            def load(self, data: Any) -> int:
                number: int = unpack(data)[0]
                if largest is not None and not -largest <= number < largest:
                    return largest if number > 0 else -largest
                return number + shift

        return IntegerLoader

    cursor.adapters.register_loader("date", loader("!i", _EPOCH_DAYS, _INT32 - 1))
    cursor.adapters.register_loader("time", loader("!q", 0, None))
    for name in ("timestamp", "timestamptz"):
        cursor.adapters.register_loader(name, loader("!q", _EPOCH_MICROSECONDS, _INT64 - 1))
