"""Statements of SQLAlchemy Core for a change, per dialect. Values are bound by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import quoted_name
from sqlalchemy.dialects import mysql, postgresql, sqlite

from dagster_retl.connectors.sql_database import Change
from dagster_retl.model.rows import Operation


def _target(change: Change) -> sa.TableClause:
    """The table, with all names quoted: SQLAlchemy does not know every word that a database reserves."""
    name = change.table.name
    columns: list[sa.ColumnClause[Any]] = [sa.column(quoted_name(column, True)) for column in change.columns]
    schema = quoted_name(name.schema, True) if name.schema else None
    return sa.table(quoted_name(name.name, True), *columns, schema=schema)


def _key_columns(change: Change, target: sa.TableClause) -> list[Any]:
    return [target.c[key] for key in change.keys]


def _binds(change: Change) -> dict[str, sa.BindParameter[Any]]:
    # Named by position: a column's own name may hold characters that a driver's placeholder cannot.
    return {column: sa.bindparam(f"_retl_{index}") for index, column in enumerate(change.columns)}


def parameters(change: Change) -> list[dict[str, Any]]:
    """The rows as the statement's parameters."""
    names = [f"_retl_{index}" for index in range(len(change.columns))]
    return [dict(zip(names, row, strict=True)) for row in change.rows]


def _where(change: Change, target: sa.TableClause) -> sa.ColumnElement[bool]:
    binds = _binds(change)
    return sa.and_(*(target.c[key] == binds[key] for key in change.keys))


def _insert(change: Change) -> sa.Executable:
    return sa.insert(_target(change)).values(_binds(change))


def _update(change: Change) -> sa.Executable:
    target, binds = _target(change), _binds(change)
    # A row of nothing but its key changes nothing, and still has to find its record.
    values: dict[str, Any] = {name: binds[name] for name in change.payload}
    values = values or {change.keys[0]: target.c[change.keys[0]]}
    return sa.update(target).where(_where(change, target)).values(values)


def _delete(change: Change) -> sa.Executable:
    target = _target(change)
    return sa.delete(target).where(_where(change, target))


def _upsert_postgresql(change: Change) -> sa.Executable:
    target = _target(change)
    statement = postgresql.insert(target).values(_binds(change))
    if not change.payload:
        return statement.on_conflict_do_nothing(index_elements=_key_columns(change, target))
    values = {target.c[name]: statement.excluded[name] for name in change.payload}
    return statement.on_conflict_do_update(index_elements=_key_columns(change, target), set_=values)


def _upsert_sqlite(change: Change) -> sa.Executable:
    target = _target(change)
    statement = sqlite.insert(target).values(_binds(change))
    if not change.payload:
        return statement.on_conflict_do_nothing(index_elements=_key_columns(change, target))
    values = {target.c[name]: statement.excluded[name] for name in change.payload}
    return statement.on_conflict_do_update(index_elements=_key_columns(change, target), set_=values)


def _upsert_mysql(change: Change) -> sa.Executable:
    """`ON DUPLICATE KEY UPDATE` with `VALUES(c)`, which MariaDB and all versions of MySQL understand.

    It fires on any unique key, so that a row could overwrite another record that merely has the
    same e-mail. Where the table has other unique keys, the key is assigned NULL if it differs:
    it is NOT NULL (`EngineDatabase.upsert_obstacle`), so the database refuses the row (error 1048).
    """
    target = _target(change)
    given: dict[str, Any] = {name: sa.func.VALUES(target.c[name]) for name in change.columns}
    guarded = len(change.table.unique_keys) > 1
    keys = change.keys if guarded else () if change.payload else change.keys[:1]
    values: list[tuple[str, Any]] = [(key, _same_or_null(target.c[key], given[key], guarded)) for key in keys]
    values += [(name, given[name]) for name in change.payload]
    return mysql.insert(target).values(_binds(change)).on_duplicate_key_update(values)


def _same_or_null(column: Any, given: Any, guarded: bool) -> Any:
    return sa.func.IF(column.op("<=>")(given), column, sa.null()) if guarded else column


_UPSERTS: Mapping[str, Callable[[Change], sa.Executable]] = {
    "postgresql": _upsert_postgresql,
    "sqlite": _upsert_sqlite,
    "mysql": _upsert_mysql,
    "mariadb": _upsert_mysql,
}
_STATEMENTS: Mapping[Operation, Callable[[Change], sa.Executable]] = {
    Operation.INSERT: _insert,
    Operation.UPDATE: _update,
    Operation.DELETE: _delete,
}

DIALECTS: Sequence[str] = tuple(_UPSERTS)
"""The dialects that go through SQLAlchemy."""


def statement(change: Change, dialect: str) -> sa.Executable:
    """The statement that applies one row of the change; executed with many `parameters`."""
    build = _UPSERTS[dialect] if change.operation is Operation.UPSERT else _STATEMENTS[change.operation]
    return build(change)
