"""SQLite files, opened read-only.

A SQLite column may hold a different type in each row. The types are therefore counted first, by the same
query in the same transaction: integers only → int64 (bool where the column is declared BOOLEAN and holds
0 and 1 only), integers up to 2^53 and reals → double, blobs only → binary, text → text. A mixture is read as text,
and the extract's notes say so. Dates are text in SQLite, and stay text. Reals are binary doubles, declared
DECIMAL or not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from threading import Timer
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.base import BLOCK_ROWS, Extract, Source, SourceSettings, in_local_time, require_columns
from dagster_retl.sources.rows_to_arrow import to_block

_EXACT_IN_DOUBLE = 2**53
_VIEW = "retl_query"
_NAMES = {int: "numbers", float: "numbers", str: "text", bytes: "blobs", type(None): "nothing"}


class SQLiteSource(Source):
    """A SQLite database. `path`: a file, `:memory:`, or a `file:` URI."""

    dialect = "sqlite"

    def __init__(self, path: str, settings: SourceSettings, redact: Redactor) -> None:
        super().__init__(settings)
        self._path = path
        self._redact = redact

    @contextmanager
    def read(self, sql: str, *, block_rows: int = BLOCK_ROWS) -> Iterator[Extract]:
        with self._connection() as connection:
            with self._errors():
                cursor = connection.execute(sql)
                names = [description[0] for description in cursor.description]
                require_columns(names)
                schema, notes = _planned(connection, sql, names)
            blocks = self._blocks(cursor, schema, block_rows)
            yield in_local_time(Extract(schema, blocks, notes), self.settings.timezone)

    def check(self) -> None:
        with self._connection() as connection, self._errors():
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")

    def _blocks(self, cursor: sqlite3.Cursor, schema: pa.Schema, block_rows: int) -> Iterator[pa.RecordBatch]:
        with self._errors():
            while rows := cursor.fetchmany(block_rows):
                yield to_block(rows, schema)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as connection:
            timer = Timer(self.settings.statement_timeout or 0, connection.interrupt)
            timer.daemon = True
            if self.settings.statement_timeout is not None:
                timer.start()
            try:
                yield connection
            finally:
                timer.cancel()

    def _connect(self) -> sqlite3.Connection:
        uri = self._path if self._path.startswith("file:") else f"file:{quote(self._path)}?mode=ro"
        target = self._path if self._path == ":memory:" else uri
        arguments = {"uri": True, "isolation_level": None, "check_same_thread": False} | dict(
            self.settings.connect_args
        )
        try:
            connection = sqlite3.connect(target, **arguments)
            connection.execute("BEGIN")
        except sqlite3.Error as error:
            hint = "Check the path in the warehouse's `url`; a relative one starts at the folder of retl.yaml."
            raise self.unavailable(self._redact(error), hint) from error
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = getattr(error, "sqlite_errorname", "")
            if kind == "SQLITE_INTERRUPT":
                seconds = self.settings.statement_timeout
                raise self.refused(f"it took longer than {seconds} s", "Raise `statement_timeout`.") from error
            if kind in ("SQLITE_NOTADB", "SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_CORRUPT"):
                hint = "Check that the file is a SQLite database, and that no one holds it locked."
                raise self.unavailable(self._redact(error), hint) from error
            raise self.refused(self._redact(error)) from error


def _planned(connection: sqlite3.Connection, sql: str, names: list[str]) -> tuple[pa.Schema, tuple[str, ...]]:
    """The columns with the types that hold all their values, and what to say about mixtures."""
    connection.execute(f"CREATE TEMP VIEW {_VIEW} AS {sql}")
    declared = [row[2].upper() for row in connection.execute(f"PRAGMA temp.table_info({_VIEW})")]
    places = [f"c{i}" for i in range(len(names))]
    counts = ", ".join(_counts(place) for place in places)
    row = connection.execute(f"WITH q({', '.join(places)}) AS (\n{sql}\n) SELECT {counts} FROM q").fetchone()
    width = len(fields(_Census))
    found = [_Census(*row[i * width : (i + 1) * width]) for i in range(len(names))]
    notes = tuple(
        f"column {name!r} holds {mixture} and is read as text"
        for name, census in zip(names, found, strict=True)
        if (mixture := census.mixture())
    )
    kinds = [census.kind(kind) for census, kind in zip(found, declared, strict=True)]
    return pa.schema(list(zip(names, kinds, strict=True))), notes


def _counts(column: str) -> str:
    return f"min({column}), max({column}), count({column}), total(typeof({column}) = 'integer')"


@dataclass(frozen=True, slots=True)
class _Census:
    """What tells the types in a column: SQLite orders numbers before text before blobs
    (https://www.sqlite.org/datatype3.html#sort_order), so the ends show what lies between."""

    least: Any
    most: Any
    count: int
    integers: float

    def mixture(self) -> str | None:
        """The types, where text is the only one that holds them all exactly."""
        if self._numeric:
            return "integers beyond 2^53 and reals" if self.kind("") == pa.string() else None
        first, last = _NAMES[type(self.least)], _NAMES[type(self.most)]
        return f"{first} and {last}" if first != last else None

    @property
    def _numeric(self) -> bool:
        return isinstance(self.most, (int, float))

    def kind(self, declared: str) -> pa.DataType:
        """The Arrow type that holds all values exactly."""
        if self._numeric:
            return self._number(declared)
        return pa.binary() if isinstance(self.least, bytes) else pa.string()

    def _number(self, declared: str) -> pa.DataType:
        if self.integers == self.count:
            is_boolean = declared.startswith("BOOL") and self.least >= 0 and self.most <= 1
            return pa.bool_() if is_boolean else pa.int64()
        exact = not self.integers or max(abs(self.least), abs(self.most)) <= _EXACT_IN_DOUBLE
        return pa.float64() if exact else pa.string()
