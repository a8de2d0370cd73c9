"""DuckDB files, MotherDuck, and DuckDB in memory (for queries over Parquet and CSV files): native Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import duckdb
import pyarrow as pa

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

MEMORY = "128MB"
"""What a query may take, unless `connect_args` say otherwise; beyond it DuckDB works on the disk."""

_AS_TEXT = frozenset({"enum", "bit", "bignum", "interval", "time with time zone", "union", "null"})
"""Read as text: Arrow, or what reads it next, has no exact type for them."""

_EXACT = {
    "hugeint": "DECIMAL(38,0)",  # beyond 38 digits DuckDB says so; Arrow would carry a broken decimal
    "uhugeint": "DECIMAL(38,0)",
    "timestamp_s": "TIMESTAMP",
    "timestamp_ms": "TIMESTAMP",
    "variant": "JSON",
}
_NESTED = frozenset({"list", "array", "struct", "map"})


class DuckDBSource(Source):
    """A DuckDB database, opened read-only and only while it is read, so that others can write between runs.

    `path` is a file, `:memory:` or `md:…`; `connect_args` are DuckDB's own settings (`memory_limit`, …).
    """

    dialect = "duckdb"

    def __init__(self, path: str, settings: SourceSettings, redact: Redactor) -> None:
        super().__init__(settings)
        self._path = path or ":memory:"
        self._redact = redact

    @contextmanager
    def read(self, sql: str, *, block_rows: int = BLOCK_ROWS) -> Iterator[Extract]:
        with self._connection() as connection:
            with self._errors():
                reader = self._relation(connection, sql).to_arrow_reader(block_rows)
            blocks = rechunk(self._blocks(reader), block_rows)
            yield in_local_time(Extract(reader.schema, blocks), self.settings.timezone)

    def columns(self, sql: str) -> pa.Schema:
        with self._connection() as connection, self._errors():
            empty = Extract(self._relation(connection, sql).limit(0).to_arrow_reader(1).schema, iter(()))
            return in_local_time(empty, self.settings.timezone).schema

    def check(self) -> None:
        with self._connection() as connection:
            connection.execute("SELECT 1")

    def _relation(self, connection: Any, sql: str) -> Any:
        """The query, not yet run. `sql()` runs anything but a SELECT at once: look first."""
        statements = connection.extract_statements(sql)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise self.refused("it is not one SELECT", "A sync reads with one SELECT (or WITH … SELECT).")
        return _readable(connection, connection.sql(sql), sql)

    def _blocks(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with self._errors():
            yield from reader

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # a stream's errors arrive as Arrow's
            if "INTERRUPT Error" in str(error):
                seconds = self.settings.statement_timeout
                raise self.refused(f"it took longer than {seconds} s", "Raise `statement_timeout`.") from error
            raise self.refused(self._redact(error)) from error

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with TemporaryDirectory(prefix="retl-source-") as spill, self._opened(spill) as connection:
            yield connection

    @contextmanager
    def _opened(self, spill: str) -> Iterator[Any]:
        connection = self._connect(spill)
        timer = Timer(self.settings.statement_timeout or 0, connection.interrupt)
        timer.daemon = True
        try:
            if self.settings.statement_timeout is not None:
                timer.start()
            yield connection
        finally:
            timer.cancel()
            connection.close()

    def _connect(self, spill: str) -> Any:
        """spill: a folder for what does not fit into memory; the database's own may be read-only."""
        local = not self._path.startswith((":memory:", "md:", "motherduck:"))
        config: dict[str, Any] = {
            "python_enable_replacements": False,
            "memory_limit": MEMORY,
            "temp_directory": spill,
        }
        config |= self.settings.connect_args
        try:
            connection = duckdb.connect(self._path, read_only=local, config=config)
            connection.execute("SET TimeZone = ?", [self.settings.timezone or "UTC"])
        except duckdb.Error as error:
            raise self._no_connection(self._redact(error)) from error
        return connection

    def _no_connection(self, message: str) -> SourceError:
        if "different configuration" in message:
            hint = (
                "This process has the file open for writing: close that connection, or run the sync in another process."
            )
        elif "lock" in message:
            hint = "Another process has the file open for writing: wait until it has closed it."
        elif "does not exist" in message:
            hint = "Check the path in the warehouse's `url`; a relative one starts at the folder of retl.yaml."
        else:
            hint = "Check the warehouse's `url` and `connect_args`; the file must be of this DuckDB version or older."
        return self.unavailable(message, hint)


def _readable(connection: Any, relation: Any, sql: str) -> Any:
    """The relation with types that Arrow carries exactly."""
    require_columns(list(relation.columns))
    targets = [_target(kind) for kind in relation.types]
    if all(str(kind) == target for kind, target in zip(relation.types, targets, strict=True)):
        return relation
    columns = [
        f"c{i}::{target} AS {_quoted(name)}" if str(relation.types[i]) != target else f"c{i} AS {_quoted(name)}"
        for i, (name, target) in enumerate(zip(relation.columns, targets, strict=True))
    ]
    names = ", ".join(f"c{i}" for i in range(len(columns)))
    return connection.sql(f"SELECT {', '.join(columns)} FROM (\n{sql}\n) AS retl_query({names})")


def _target(kind: Any) -> str:
    """The type that `kind` is read as, in DuckDB's spelling."""
    if kind.id in _AS_TEXT:
        return "VARCHAR"
    if kind.id in _NESTED:
        return _nested_target(kind)
    return _EXACT.get(kind.id, str(kind))


def _nested_target(kind: Any) -> str:
    children = [(name, child) for name, child in kind.children if not isinstance(child, int)]
    targets = [_target(child) for _, child in children]
    if kind.id == "struct":
        members = [f"{_quoted(name)} {target}" for (name, _), target in zip(children, targets, strict=True)]
        return str(kind) if targets == [str(child) for _, child in children] else f"STRUCT({', '.join(members)})"
    if kind.id == "map":
        return f"MAP({', '.join(targets)})"
    size = next((str(child) for _, child in kind.children if isinstance(child, int)), "")
    return f"{targets[0]}[{size}]"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
