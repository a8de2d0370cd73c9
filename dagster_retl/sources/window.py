"""A part of a query's result: rows whose cursor is high enough or null, and rows of certain keys.

The query becomes a subquery, as it was written; the condition is in the warehouse's own dialect. A window
may hold more rows than were asked for, never fewer: keys of several fields are looked for field by field,
and text that a destination compares without case or blanks is looked for in both forms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
from pyarrow import types as kinds
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect, NormalizationStrategy

from dagster_retl.sources.base import Source
from dagster_retl.sources.cursors import CursorKind, CursorValue

MAX_LOOKUPS = 10_000
"""Keys that one query can name."""
_LIST = 1_000  # values of one IN: more is more than Oracle takes
_WITHOUT_LIMIT = ("tsql", "oracle")


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of the query that is a key field as it stands.

    field: the key field. nullable: a null stands for some key too (the mapping has a default). exact:
    the destination compares this key's text as it is.
    """

    name: str
    field: str
    nullable: bool = False
    exact: bool = True


def probe(sql: str, columns: Sequence[str], source: Source) -> dict[str, pa.Field]:
    """Some columns of a query with their types, cheaply: those of one row with a value in the first of them.

    Raises `SourceError`, where one of them does not exist any more, among others.
    """
    distinct = list(dict.fromkeys(columns))
    names = [_identifier(name, source.dialect) for name in distinct]
    one = "" if source.dialect in _WITHOUT_LIMIT else " LIMIT 1"
    found = source.columns(f"SELECT {', '.join(names)} FROM {_subquery(sql)} WHERE {names[0]} IS NOT NULL{one}")
    return dict(zip(distinct, found, strict=True))


def windowed(sql: str, column: str, since: CursorValue, lookups: str | None, source: Source) -> str:
    """The query's rows with a cursor of at least `since` or none, and those that `lookups` is true of."""
    conditions = [_at_least(_identifier(column, source.dialect), since, source)]
    if lookups is not None:
        conditions.append(lookups)
    return f"SELECT * FROM {_subquery(sql)} WHERE {' OR '.join(conditions)}"


def lookups_sql(
    columns: Sequence[KeyColumn], types: Mapping[str, pa.Field], keys: Sequence[str], source: Source
) -> str | None:
    """A condition that is true of all rows of these keys, and perhaps of others.

    keys: JSON of the key fields, as dead letters have it. None: no condition can tell, and all rows must be read.
    """
    records = [json.loads(key, parse_float=Decimal) for key in keys]
    parts = [_one_of(column, types[column.name].type, records, source) for column in columns]
    known = [part for part in parts if part is not None]
    return f"({' AND '.join(known)})" if len(known) == len(parts) and known else None


def _one_of(column: KeyColumn, kind: pa.DataType, records: Sequence[Mapping[str, Any]], source: Source) -> str | None:
    values = {record.get(column.field) for record in records}
    literals = [_literals(value, kind, source.dialect) for value in values]
    if not all(literals):
        return None
    name = _identifier(column.name, source.dialect)
    tests = list(_in(name, sorted({each for several in literals for each in several})))
    if not column.exact and any(isinstance(value, str) for value in values):
        texts = [exp.Literal.string(value.strip().lower()) for value in values if isinstance(value, str)]
        folded = f"lower(trim({_as_text(column.name, source.dialect)}))"
        tests += _in(folded, sorted({text.sql(source.dialect) for text in texts}))
    if column.nullable:
        tests.append(f"{name} IS NULL")
    return f"({' OR '.join(tests)})"


def _in(name: str, literals: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(literals), _LIST):
        yield f"{name} IN ({', '.join(literals[start : start + _LIST])})"


def _literals(value: Any, kind: pa.DataType, dialect: str) -> list[str]:
    """SQL for a value of a key; none where the column's type cannot be compared with it exactly.

    A column of SQLite holds numbers and text side by side.
    """
    number, text = _number(value), _text(value)
    if dialect == "sqlite":
        quoted = [] if text is None else [exp.Literal.string(text).sql(dialect)]
        return [*quoted, *([] if number is None else [number])]
    if kinds.is_integer(kind) or kinds.is_decimal(kind):
        return [] if number is None else [number]
    is_text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    return [exp.Literal.string(text).sql(dialect)] if is_text and text is not None else []


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return format(number, "f") if number.is_finite() else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else _number(value)


def _at_least(name: str, since: CursorValue, source: Source) -> str:
    """SQLite orders numbers before text and has both in one column: what is of the other sort is read always."""
    bound = since.literal(source.dialect, source.settings.timezone)
    if source.dialect == "sqlite":
        sort = "'text'" if since.kind is CursorKind.TEXT else "'integer', 'real'"
        return f"{name} >= {bound} COLLATE BINARY OR typeof({name}) NOT IN ({sort})"
    if since.kind is CursorKind.TEXT:
        return f"{_bytes(name, source.dialect)} >= {_bytes(bound, source.dialect)} OR {name} IS NULL"
    return f"{name} >= {bound} OR {name} IS NULL"


def _bytes(text: str, dialect: str) -> str:
    """SQL for a text in the order of its bytes, whatever the collation."""
    if dialect == "postgres":
        return f'CAST({text} AS TEXT) COLLATE "C"'
    if dialect == "mysql":
        return f"CAST(CONVERT({text} USING utf8mb4) AS BINARY)"
    return f"CAST({text} AS VARCHAR)" if dialect == "duckdb" else text


def _subquery(sql: str) -> str:
    return f"(\n{sql}\n) retl_rows"


def _identifier(name: str, dialect: str) -> str:
    return _quoted(name, dialect).sql(dialect)


def _as_text(name: str, dialect: str) -> str:
    return exp.cast(exp.Column(this=_quoted(name, dialect)), "TEXT").sql(dialect)


def _quoted(name: str, dialect: str) -> exp.Identifier:
    """Drivers spell in lower case what such a database keeps in upper case."""
    folds_up = Dialect.get_or_raise(dialect).normalization_strategy is NormalizationStrategy.UPPERCASE
    return exp.Identifier(this=name.upper() if folds_up and name == name.lower() else name, quoted=True)
