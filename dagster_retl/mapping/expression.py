"""Expressions: what people may write as the `source` of a field, besides the name of a column.

One scalar expression in DuckDB's dialect. sqlglot finds the columns in it; DuckDB's own parse, of
the very text that will run, says what it calls, so that nothing depends on two parsers agreeing.
A function whose value is not decided by its arguments (`now()`, `random()`) is refused: it would
make every run a change of every row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from dagster_retl.errors import ConfigurationError, SourceError
from dagster_retl.mapping.columns import Columns
from dagster_retl.mapping.sandbox import Sandbox
from dagster_retl.model.sql_text import identifier


@dataclass(frozen=True, slots=True)
class Expression:
    """sql: to run over columns with the names of `Columns.aliases`. columns: numbers of those it reads.

    literals: the texts that its author put into it.
    """

    sql: str
    columns: tuple[int, ...]
    literals: frozenset[str] = frozenset()

    @property
    def column(self) -> int | None:
        """The column, where the expression is nothing else."""
        return self.columns[0] if len(self.columns) == 1 and self.sql.startswith("\0") else None


def parse_expression(text: str, destination: str, columns: Columns, sandbox: Sandbox) -> Expression:
    """Find the columns of an expression, and see that it may run.

    Raises `SourceError` (`SOURCE_COLUMN_MISSING`) for an unknown column, `ConfigurationError` for what
    is not one scalar expression, or calls what it may not.
    """
    tree = _tree(text, destination, columns)
    return Expression("", ())
