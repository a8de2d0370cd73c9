"""What a run reads: the whole result of the query, or the part that may have changed (PROTOCOL 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from dagster_retl.engine.watermark import CursorColumn, Mark, definition_of, next_mark
from dagster_retl.errors import ErrorCode, SourceError
from dagster_retl.model.rows import KeyForm
from dagster_retl.model.runs import RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.model.sync_settings import Watermark
from dagster_retl.sources.base import Source
from dagster_retl.sources.cursors import CursorValue, check_step, kind_of
from dagster_retl.sources.window import MAX_LOOKUPS, KeyColumn, lookups_sql, probe, windowed

_STRICT = ("postgres", "duckdb")
"""Dialects that refuse to compare what does not fit, and say so without running the query."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run reads.

    since: the watermark that it reads from; None: it reads the whole result. looked_up: the keys that it asks for
    beside that, whatever their cursor. about: the same for people. cursor: the watermark's column, once the query
    was read. definition: see `definition_of`.
    """

    sql: str
    definition: str = ""
    since: Mark | None = None
    looked_up: tuple[str, ...] = ()
    about: str = ""
    warnings: tuple[str, ...] = ()
    cursor: CursorColumn | None = None

    def next_watermark(self, connection: duckdb.DuckDBPyConnection, sync: Sync) -> str | None:
        """The sync's watermark after a run that did all this and ended well, as the store keeps it."""
        if self.cursor is None or not isinstance(sync.change_detection, Watermark):
            return None
        name = sync.change_detection.watermark
        mark = next_mark(connection, name, self.cursor, self.definition, self.since)
        return None if mark is None else mark.to_text()


def choose_reading(
    sync: Sync, source: Source, sql: str, form: KeyForm, watermark: str | None, lookups: pa.Table, options: RunOptions
) -> Reading:
    """Choose what this run reads.

    watermark: as the store has it. lookups: `key` and `record_keys` of what has to be read whatever its cursor.
    A baseline, and a run of certain keys, read everything.
    """
    detection = sync.change_detection
    if not isinstance(detection, Watermark):
        return Reading(sql)
    whole = Reading(sql, definition_of(sync, source, sql))
    mark = Mark.of(watermark)
    if mark is None or options.baseline or options.keys:
        return whole
    if reason := _outdated(mark, detection, whole.definition):
        return replace(whole, warnings=(f"everything is read once: {reason}",))
    return _Windowing(sync, source, mark, form, lookups).reading(whole, detection)


def _outdated(mark: Mark, detection: Watermark, definition: str) -> str | None:
    if mark.name != detection.watermark:
        return f"the watermark's column was {mark.name!r} and is {detection.watermark!r} now"
    if mark.definition != definition:
        return "the query, its warehouse, the mapping or the mode changed"
    return None


@dataclass(frozen=True, slots=True)
class _Windowing:
    sync: Sync
    source: Source
    mark: Mark
    form: KeyForm
    lookups: pa.Table

    def reading(self, whole: Reading, detection: Watermark) -> Reading:
        try:
            return self._window(whole, detection)
        except SourceError as error:
            if error.code is not ErrorCode.SOURCE_QUERY:
                raise
            # The query alone tells whether it is in order; it must not fail for a condition that is ours.
            return replace(whole, warnings=(f"everything is read: {error.message}",))

    def _window(self, whole: Reading, detection: Watermark) -> Reading:
        types = probe(whole.sql, (self.mark.column, *(self.mark.keys or ())), self.source)
        found = types[self.mark.column]
        if kind_of(found) is not self.mark.kind:
            reason = f"the values of column {found.name!r} were a {self.mark.kind}, and are {found.type} now, or gone"
            return replace(whole, warnings=(f"everything is read once: {reason}",))
        check_step(self.mark.kind, detection.lookback)
        since = self.mark.cursor.less(detection.lookback)
        return whole if since is None else self._since(whole, since, types)

    def _since(self, whole: Reading, since: CursorValue, types: Mapping[str, pa.Field]) -> Reading:
        keys = sorted(set(self.lookups.column("key").to_pylist()))
        condition = self._condition(types, len(keys))
        if keys and condition is None:
            return replace(whole, about=f"everything, as {len(keys):,} keys cannot be asked for by themselves")
        sql = windowed(whole.sql, self.mark.column, since, condition, self.source)
        if self.source.dialect in _STRICT:
            self.source.columns(sql)
        about = f"rows whose {self.mark.column} is at least {since.text}, or null"
        more = f", and {len(keys):,} by key" if keys else ""
        return replace(whole, sql=sql, since=self.mark, looked_up=tuple(keys), about=about + more)

    def _condition(self, types: Mapping[str, pa.Field], keys: int) -> str | None:
        if self.mark.keys is None or not 0 < keys <= MAX_LOOKUPS:
            return None
        records = self.lookups.column("record_keys").to_pylist()
        return lookups_sql(self._key_columns(self.mark.keys), types, records, self.source)

    def _key_columns(self, names: Sequence[str]) -> list[KeyColumn]:
        mappings = [mapping for mapping in self.sync.field_mappings if mapping.key]
        exact = not (self.form.ignore_case or self.form.trim)
        return [
            KeyColumn(name, mapping.destination, mapping.default is not None, exact)
            for name, mapping in zip(names, mappings, strict=True)
        ]
