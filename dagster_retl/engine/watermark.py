"""The watermark of a sync: how far its changes were read, and how far they are when a run has ended (PROTOCOL 12)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from dagster_retl.changes.passing import Cursors, cursors, numbers_as_text
from dagster_retl.errors import ConfigurationError, ErrorCode, SourceError
from dagster_retl.mapping.columns import Columns
from dagster_retl.model.sync import Sync
from dagster_retl.model.sync_settings import Watermark
from dagster_retl.sources.base import Source
from dagster_retl.sources.cursors import CursorKind, CursorValue, check_step, kind_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # microseconds: the years 1 and 9999
_MICROSECOND = "CASE WHEN epoch_us({0}) BETWEEN {1} AND {2} THEN epoch_us({0}) END"

_POSITIONS = {
    CursorKind.MOMENT: _MICROSECOND.format("cursor", _FIRST, _LAST),
    CursorKind.LOCAL: _MICROSECOND.format("cursor", _FIRST, _LAST),
    CursorKind.DATE: _MICROSECOND.format("try_cast(cursor AS TIMESTAMP)", _FIRST, _LAST),
    CursorKind.NUMBER: "cursor",
    CursorKind.TEXT: "cursor",
}
"""SQL for the place of a cursor in the order of its kind, NULL where it is infinite or beyond all calendars."""


@dataclass(frozen=True, slots=True)
class CursorColumn:
    """The column that a sync's watermark is about.

    name: as the query spells it; number: its place there. keys: the columns that are the sync's key fields, in
    order; None where one of these is an expression.
    """

    name: str
    number: int
    kind: CursorKind
    keys: tuple[str, ...] | None


def cursor_column(sync: Sync, schema: pa.Schema) -> CursorColumn | None:
    """Find the column in the query's result; None where the sync has no watermark.

    Raises `SourceError` (`SOURCE_COLUMN_MISSING`) where it is not there, `ConfigurationError` where it cannot
    be one, or where `lookback` does not fit it.
    """
    if not isinstance(sync.change_detection, Watermark):
        return None
    columns = Columns(schema)
    number = columns.find(sync.change_detection.watermark)
    if number is None:
        raise SourceError(
            f"the query has no column {sync.change_detection.watermark!r}, which is to be the watermark",
            code=ErrorCode.SOURCE_COLUMN_MISSING,
            hint=columns.listing(),
        )
    kind = kind_of(schema.field(number))
    check_step(kind, sync.change_detection.lookback)
    keys = [columns.find(mapping.source or "") for mapping in sync.field_mappings if mapping.key]
    named = tuple(columns.names[key] for key in keys if key is not None)
    return CursorColumn(columns.names[number], number, kind, named if len(named) == len(keys) else None)


@dataclass(frozen=True, slots=True)
class Mark:
    """A watermark as the store keeps it: rows below `value` need not be read.

    name: the column as the sync names it; column, kind, keys: see `CursorColumn`. definition: of what was read
    (see `definition_of`): of another definition's rows it says nothing.
    """

    name: str
    column: str
    kind: CursorKind
    value: str
    keys: tuple[str, ...] | None
    definition: str

    @classmethod
    def of(cls, text: str | None) -> Mark | None:
        """What `to_text` wrote; None: no watermark."""
        if text is None:
            return None
        stored: dict[str, Any] = json.loads(text)
        keys = None if stored["keys"] is None else tuple(stored["keys"])
        return cls(**stored | {"kind": CursorKind(stored["kind"]), "keys": keys})

    def to_text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @property
    def cursor(self) -> CursorValue:
        return CursorValue(self.kind, self.value)


def definition_of(sync: Sync, source: Source, sql: str) -> str:
    """Stands for all that decides what the rows of a sync are, and what is done about them.

    Where it changes, rows change whose cursor does not.
    """
    mappings = [mapping.model_dump(mode="json") for mapping in sync.field_mappings]
    settings = source.settings
    parts = [settings.name, settings.timezone, sql, sync.sync_mode.value, mappings]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def check_cursors(connection: duckdb.DuckDBPyConnection, column: CursorColumn) -> None:
    """Refuse numbers that are text. Run after staging."""
    if column.kind is CursorKind.TEXT and numbers_as_text(connection):
        raise ConfigurationError(
            f"the watermark column {column.name!r} is text that holds numbers of different lengths: "
            "as text, 9 is more than 10",
            hint="Cast it to a number in the query, of at most 38 digits.",
        )


def next_mark(
    connection: duckdb.DuckDBPyConnection, name: str, column: CursorColumn, definition: str, current: Mark | None
) -> Mark | None:
    """How far a run that read everything it had to, and ended well, has come; None: the next run reads all.

    name: the column as the sync names it. current: the watermark that this run read from; None: it read the
    whole result.
    """
    found = cursors(connection, _POSITIONS[column.kind])
    if found.nowhere or (found.seen and current is not None and current.kind is not column.kind):
        return None
    value = _furthest(found, column.kind, current)
    if value is None:
        return None
    return Mark(name, column.name, value.kind, value.text, column.keys, definition)


def _furthest(found: Cursors, kind: CursorKind, current: Mark | None) -> CursorValue | None:
    if found.held is not None:
        return _value(kind, found.held)
    seen = [] if found.highest is None else [_value(kind, found.highest)]
    known = [] if current is None else [current.cursor]
    return max([*known, *seen], key=lambda each: each.order, default=None)


def _value(kind: CursorKind, position: Any) -> CursorValue:
    if kind is CursorKind.NUMBER:
        return CursorValue(kind, format(Decimal(position), "f"))
    if kind is CursorKind.TEXT:
        return CursorValue(kind, position)
    moment = (_EPOCH + timedelta(microseconds=position)).replace(tzinfo=None)
    return CursorValue(kind, (moment.date() if kind is CursorKind.DATE else moment).isoformat())
