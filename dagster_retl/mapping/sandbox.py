"""The sandbox: a DuckDB of its own in which expressions run, and from which nothing can be reached.

No files, network, extensions, settings or Python variables; time zone UTC; one thread, since a
block of rows is small. What an expression may call is decided before it runs (`mapping.expression`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import duckdb
import pyarrow as pa

MEMORY_LIMIT = "512MB"

_CONFIGURATION: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_unsigned_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "1",
    "memory_limit": MEMORY_LIMIT,
    "temp_directory": "",
}

_ROWS = "retl_rows"


class Sandbox:
    """One connection, for one thread, opened when it is first needed: most mappings only copy columns.

    Close it, or use it in a `with`.
    """

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:", config=_CONFIGURATION)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; a second time does nothing."""
        if "_connection" in self.__dict__:
            self._connection.close()

    def parsed(self, expression: str) -> dict[str, Any]:
        """DuckDB's own parse of `SELECT (expression)`; `error` in it says whether there is none."""
        # The line break ends a comment that the expression may end with.
        rows = self._connection.execute("SELECT json_serialize_sql(?)", [f"SELECT ({expression}\n)"]).fetchall()
        tree: dict[str, Any] = json.loads(rows[0][0])
        return tree

    def functions(self, name: str) -> list[tuple[str, str | None, str | None]]:
        """What DuckDB knows of a function: (kind, stability, definition where it is a macro) of each overload."""
        return self._connection.execute(
            "SELECT function_type, stability, macro_definition FROM duckdb_functions() WHERE function_name = ?",
            [name.lower()],
        ).fetchall()

    def types(self, expressions: Sequence[str], rows: pa.Table) -> list[Any]:
        """The DuckDB type of each expression over the columns of `rows`. Raises `duckdb.Error`."""
        self._connection.register(_ROWS, rows.slice(0, 0))
        return list(self._connection.sql(_query(expressions)).types)

    def evaluate(self, expressions: Sequence[str], rows: pa.Table) -> pa.Table:
        """A column for each expression, a row for each of `rows`. Raises `duckdb.Error`."""
        self._connection.register(_ROWS, rows)
        return self._connection.sql(_query(expressions)).to_arrow_table()


def _query(expressions: Sequence[str]) -> str:
    columns = ", ".join(f"({expression}\n) AS f{number}" for number, expression in enumerate(expressions))
    return f"SELECT {columns} FROM {_ROWS}"
