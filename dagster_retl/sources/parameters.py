"""Query parameters of partitions: `:partition`, `:partition_start` and `:partition_end`.

Each is bound where it stands as one literal of the warehouse's dialect, escaped by sqlglot: a value is never read
as SQL. The key is text. Start and end are times with zone, in UTC; SQLite, which has no such type, gets text as
its own `datetime()` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.partitions import Partition
from dagster_retl.sources.cursors import CursorKind, CursorValue

KEY, START, END = "partition", "partition_start", "partition_end"
NAMES = frozenset({KEY, START, END})

_ENDS_A_VALUE = (TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING, TokenType.R_PAREN, TokenType.R_BRACKET)


def bind(sql: str, partition: Partition | None, dialect: str) -> str:
    """The query with its parameters in place; the rest of its text stays as it is.

    partition: that is read; None for a sync without partitions. Raises `ConfigurationError` where the query has
    parameters and no partition is read, or the other way round, and where there is no window to bind.
    """
    places = list(_places(sql, dialect))
    if partition is None:
        if places:
            raise ConfigurationError(
                f"the query has the parameter `:{places[0][2]}`, and the sync has no partitions",
                hint="Say which with `partitions:`, such as `{type: daily, start: 2026-01-01}`.",
            )
        return sql
    if not places:
        raise ConfigurationError(
            "the query says nothing of the partition: each one would read everything",
            hint=f"Write a condition with `:{KEY}`"
            + ("." if partition.end is None else f", or `:{START}` and `:{END}`."),
        )
    for start, end, name in reversed(places):
        sql = sql[:start] + _literal(name, partition, dialect) + sql[end:]
    return sql


def _places(sql: str, dialect: str) -> Iterator[tuple[int, int, str]]:
    """Where parameters stand in a query: start, end and name.

    `v:partition`, without a blank between, is a path into a document (Snowflake), and no parameter.
    """
    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
    except SqlglotError:
        return  # said better by whoever parses it
    before: Token | None = None
    for colon, word in pairwise(tokens):
        is_path = before is not None and before.end + 1 == colon.start and before.token_type in _ENDS_A_VALUE
        before = colon
        if colon.token_type == TokenType.COLON and word.start == colon.end + 1 and not is_path:
            name = word.text.lower()
            if name in NAMES:
                yield colon.start, word.end + 1, name


def _literal(name: str, partition: Partition, dialect: str) -> str:
    if name == KEY:
        return exp.Literal.string(partition.key).sql(dialect)
    moment = partition.start if name == START else partition.end
    if moment is None:
        raise ConfigurationError(
            f"`:{name}` is the edge of a window of time, and the sync's partitions are fixed keys",
            hint=f"Use `:{KEY}`.",
        )
    return _time(moment, dialect)


def _time(moment: datetime, dialect: str) -> str:
    text = moment.replace(tzinfo=None).isoformat()
    if dialect == "sqlite":
        return exp.Literal.string(text.replace("T", " ")).sql(dialect)
    return CursorValue(CursorKind.MOMENT, text).literal(dialect, None)
