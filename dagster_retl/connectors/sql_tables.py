"""What a database says about a table: its columns, what identifies a record, what a new record needs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from dagster_retl.connectors.sql_types import ColumnType
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import FieldInfo, KeyForm, ObjectInfo


@dataclass(frozen=True, slots=True)
class TableName:
    """A table. `schema` is None for the one that unqualified names mean."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `computed`: the database alone writes it. `filled`: it has a value when none is given."""

    name: str
    type: ColumnType
    nullable: bool = True
    filled: bool = False
    computed: bool = False

    @property
    def required(self) -> bool:
        return not (self.nullable or self.filled or self.computed)


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A primary key, unique constraint or unique index.

    whole: it compares whole values of plain columns in every row and at once (it is not partial,
    on an expression or a prefix, nor deferrable), so that an upsert can rest on it.
    """

    columns: frozenset[str]
    whole: bool = True
    form: KeyForm = field(default_factory=KeyForm)


def candidates(object_name: str, default_schema: str | None) -> list[TableName]:
    """What `schema.table` or `table` can mean; a table's own name may hold a dot."""
    plain = TableName(default_schema, object_name)
    schema, dot, name = object_name.partition(".")
    return [TableName(schema, name), plain] if dot and schema and name else [plain]


def require_name(names: Iterable[str], wanted: str) -> str | None:
    """`wanted` as the database spells it: exactly, or ignoring case when that is unambiguous."""
    known = list(names)
    if wanted in known:
        return wanted
    alike = [name for name in known if name.casefold() == wanted.casefold()]
    return alike[0] if len(alike) == 1 else None


def no_table(object_name: str, known: Iterable[str], where: str) -> DestinationError:
    """The error for an object that does not exist."""
    close = difflib.get_close_matches(object_name, list(known), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "Objects are tables: `table` or `schema.table`."
    message = f"there is no table {object_name!r} in {where}"
    return DestinationError(message, code=ErrorCode.SCHEMA_DRIFT, hint=hint)


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was when it was last read."""

    name: TableName
    columns: Mapping[str, Column]
    unique_keys: tuple[UniqueKey, ...] = ()

    def column(self, field: str) -> Column:
        """The column of a field. Raises `DestinationError` (`SCHEMA_DRIFT`) when there is none."""
        name = require_name(self.columns, field)
        if name is None:
            self._no_column(field)
        return self.columns[name]

    def _no_column(self, field: str) -> NoReturn:
        close = difflib.get_close_matches(field, list(self.columns), n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Its columns: {', '.join(self.columns)}."
        raise DestinationError(
            f"table {str(self.name)!r} has no column {field!r}", code=ErrorCode.SCHEMA_DRIFT, hint=hint
        )

    def identified_by(self, columns: Iterable[str]) -> bool:
        """Whether these columns are exactly a unique key that an upsert can rest on."""
        wanted = frozenset(columns)
        return any(key.whole and key.columns == wanted for key in self.unique_keys)

    def unique_within(self, columns: Iterable[str]) -> bool:
        """Whether at most one record can have the same values in these columns."""
        given = frozenset(columns)
        return any(key.whole and key.columns <= given for key in self.unique_keys)

    @property
    def required(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns.values() if column.required)

    @property
    def key_form(self) -> KeyForm:
        """How its unique keys compare text; the laxest of them, so that no two rows are wrongly held apart."""
        forms = [key.form for key in self.unique_keys]
        return KeyForm(ignore_case=any(f.ignore_case for f in forms), trim=any(f.trim for f in forms))

    def object_info(self, object_name: str) -> ObjectInfo:
        """The table for discovery, under the name that a sync gives it."""
        return ObjectInfo(object_name, object_name, supports_upsert=any(key.whole for key in self.unique_keys))

    def field_infos(self) -> list[FieldInfo]:
        """Its columns for discovery."""
        identifying = {name for key in self.unique_keys if key.whole for name in key.columns}
        return [_field_info(column, column.name in identifying) for column in self.columns.values()]


def _field_info(column: Column, external_id: bool) -> FieldInfo:
    return FieldInfo(
        name=column.name,
        label=column.name,
        data_type=column.type.name,
        required=column.required,
        createable=not column.computed,
        updateable=not column.computed,
        external_id=external_id,
    )
