"""Postgres: ADBC where it is installed, otherwise psycopg with a server-side cursor; equal extracts.

One read-only transaction on one snapshot (REPEATABLE READ). The session's time zone is UTC, or the
warehouse's `timezone`. `statement_timeout` is Postgres' own: it covers a statement, and through ADBC that
includes the time in which its rows are consumed.

A `numeric` without precision (which is what sum() and avg() return) has no Arrow type: its digits are
measured first, by the same query in the same transaction. Up to 38 digits it is read as a decimal of the
longest scale, beyond that as text. NaN and infinity in a numeric fail the read and name the column;
those of a date or timestamp arrive as the infinity that DuckDB knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.conninfo import make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus
from sqlalchemy.engine import URL

from dagster_retl.errors import SourceError
from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.base import (
    BLOCK_ROWS,
    Extract,
    Source,
    SourceSettings,
    in_local_time,
    rechunk,
    require_columns,
)
from dagster_retl.sources.postgres_columns import (
    KNOWN_TYPES,
    PostgresColumn,
    column_of,
    decimal_for,
    measure,
    select,
)
from dagster_retl.sources.postgres_sessions import (
    OpenSession,
    Session,
    adbc_installed,
    driver_errors,
    open_adbc,
    open_psycopg,
)

_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_UNAVAILABLE_STATES = ("08", "28", "3D", "40", "53", "57P", "58")
"""Classes of SQLSTATE that are about the server or the connection, not about the query
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
_CANCELED, _TIMED_OUT = "57014", "statement timeout"
_SERVER_REFUSED = "ERROR:  "
"""What marks the server's refusal of a statement, unlike a lost connection, where there is no SQLSTATE."""


class PostgresSource(Source):
    """A Postgres database. `open_session`: through which driver its rows are read."""

    dialect = "postgres"

    def __init__(
        self, url: URL, settings: SourceSettings, redact: Redactor, *, open_session: OpenSession | None = None
    ) -> None:
        super().__init__(settings)
        self._url = url
        self._redact = redact
        self._open_session = open_session or (open_adbc if adbc_installed() else open_psycopg)

    @contextmanager
    def read(self, sql: str, *, block_rows: int = BLOCK_ROWS) -> Iterator[Extract]:
        described = self._describe(sql)
        with self._session() as session:
            with self._errors():
                columns, notes = _measured(described, sql, session)
            blocks = rechunk(self._blocks(session, sql, columns, block_rows), block_rows)
            yield in_local_time(Extract(_schema(columns), blocks, notes), self.settings.timezone)

    def columns(self, sql: str) -> pa.Schema:
        """See `Source.columns`. A numeric without precision is 38 digits here, 10 of them decimals."""
        assumed = decimal_for(0, 10) or pa.string()
        columns = [replace(c, arrow_type=assumed) if c.measured else c for c in self._describe(sql)]
        return in_local_time(Extract(_schema(columns), iter(())), self.settings.timezone).schema

    def check(self) -> None:
        with self._errors(), open_psycopg(self._conninfo(), [_BEGIN]) as session:
            session.row("SELECT 1")

    def _describe(self, sql: str) -> list[PostgresColumn]:
        """The columns of the query, which the server parses and does not run."""
        with self._errors(), psycopg.connect(self._conninfo(), prepare_threshold=None) as connection:
            result = self._prepared(connection, sql)
            names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
            require_columns(names)
            types = [(result.ftype(i), result.fmod(i)) for i in range(result.nfields)]
            arrays = _array_types(connection, {oid for oid, _ in types} - KNOWN_TYPES)
        return [
            column_of(name, oid, modifier, is_array=oid in arrays)
            for name, (oid, modifier) in zip(names, types, strict=True)
        ]

    def _prepared(self, connection: Any, sql: str) -> Any:
        connection.execute(_BEGIN)
        result = connection.pgconn.prepare(b"", sql.encode())
        if result.status == ExecStatus.COMMAND_OK:
            return connection.pgconn.describe_prepared(b"")
        message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode()
        position = result.error_field(DiagnosticField.STATEMENT_POSITION)
        hint = result.error_field(DiagnosticField.MESSAGE_HINT)
        where = _place(sql, int(position)) if position else ""
        raise self.refused(self._redact(message) + where, hint.decode() if hint else None)

    def _blocks(
        self, session: Session, sql: str, columns: Sequence[PostgresColumn], block_rows: int
    ) -> Iterator[pa.RecordBatch]:
        schema = _schema(columns)
        with self._errors():
            for block in session.blocks(select(columns, sql), columns, block_rows):
                arrays = [self._exact(array, column) for array, column in zip(block.columns, columns, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _exact(self, array: pa.Array, column: PostgresColumn) -> pa.Array:
        if not column.text:
            return array
        try:
            return array.cast(column.arrow_type)
        except pa.ArrowInvalid as error:
            raise self.refused(
                f"column {column.name!r}: {error}",
                "NaN and infinity have no decimal: write nullif(column, 'NaN'), or cast it to double or text.",
            ) from error

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A session whose opening is checked; what its user raises passes unchanged."""
        opened = self._open_session(self._conninfo(), self._transaction())
        with self._errors():
            session = opened.__enter__()
        try:
            yield session
        finally:
            opened.__exit__(None, None, None)

    def _transaction(self) -> list[str]:
        settings = [_BEGIN, f"SET LOCAL TimeZone = '{self.settings.timezone or 'UTC'}'"]
        settings += ["SET LOCAL IntervalStyle = 'iso_8601'", "SET LOCAL DateStyle = 'ISO'"]
        if self.settings.statement_timeout is not None:
            settings.append(f"SET LOCAL statement_timeout = {round(self.settings.statement_timeout * 1000)}")
        return settings

    def _conninfo(self) -> str:
        _, options = self._url.get_dialect()().create_connect_args(self._url)
        defaults: dict[str, Any] = {
            "application_name": self.settings.query_tag or "dagster-retl",
            "connect_timeout": 30,
        }
        return make_conninfo("", **{**defaults, **options, **self.settings.connect_args})

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except driver_errors() as error:
            raise self._translated(error, getattr(error, "sqlstate", None)) from error

    def _translated(self, error: Exception, state: str | None) -> SourceError:
        message = _own_words(self._redact(error))
        refused = state or ("" if _SERVER_REFUSED in str(error) else None)
        if refused is None or refused.startswith(_UNAVAILABLE_STATES):
            return self.unavailable(
                message, "Check host, port, database, user and password in its `url`, and that the server is up."
            )
        timed_out = state == _CANCELED or _TIMED_OUT in message
        return self.refused(message, "Raise `statement_timeout`." if timed_out else None)


def _schema(columns: Sequence[PostgresColumn]) -> pa.Schema:
    return pa.schema([(column.name, column.arrow_type) for column in columns])


def _measured(
    columns: Sequence[PostgresColumn], sql: str, session: Session
) -> tuple[list[PostgresColumn], tuple[str, ...]]:
    """The columns with the types of unconstrained numerics settled, and what to say about them."""
    unsettled = [column for column in columns if column.measured]
    if not unsettled:
        return list(columns), ()
    digits = iter(session.row(measure(columns, sql)))
    settled, notes = [], []
    for column in columns:
        if column.measured:
            scale, whole = next(digits), next(digits)
            kind = decimal_for(whole, scale)
            if kind is None:
                notes.append(f"column {column.name!r} needs {whole + scale} digits and is read as text")
            column = replace(column, arrow_type=kind or pa.string())  # noqa: PLW2901 the same column, settled
        settled.append(column)
    return settled, tuple(notes)


def _array_types(connection: Any, oids: set[int]) -> set[int]:
    """Which of the types are arrays. int2vector and oidvector are not: they are spelled like text."""
    if not oids:
        return set()
    rows = connection.execute(
        "SELECT oid FROM pg_catalog.pg_type WHERE oid = ANY(%s) AND typcategory = 'A' AND oid NOT IN (22, 30)",
        [list(oids)],
    )
    return {oid for (oid,) in rows}


def _own_words(message: str) -> str:
    """The server's message out of ADBC's, which frames it and repeats the query."""
    message = message.split("\n\nQuery was:", 1)[0]
    return message.split(_SERVER_REFUSED, 1)[-1].strip()


def _place(sql: str, position: int) -> str:
    """Line and column of a character position, counted from 1."""
    before = sql[: position - 1]
    return f" (line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))})"
