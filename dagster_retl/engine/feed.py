"""Rows on their way to a worker: columnar until here, one object a row where somebody asks for one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, overload

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dagster_retl.engine.payload import DOCUMENT, column_of
from dagster_retl.engine.spool import Spool
from dagster_retl.model.rows import Batch, FieldType, Operation


class MappedRows(Sequence["MappedRow"]):
    """The rows of a batch. A column becomes Python objects when somebody asks for it."""

    def __init__(self, table: pa.Table, intents: Intents) -> None:
        self._table = table
        self._intents = intents

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> MappedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[MappedRow]: ...
    def __getitem__(self, index: int | slice) -> MappedRow | list[MappedRow]:
        if isinstance(index, slice):
            return [MappedRow(self, place) for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return MappedRow(self, index)

    @cached_property
    def keys(self) -> list[str]:
        values: list[str] = self._column("key")
        return values

    @cached_property
    def record_keys(self) -> list[str]:
        values: list[str] = self._column("record_keys")
        return values

    @cached_property
    def contents(self) -> list[str]:
        return list(map(str, self._column("content")))

    @cached_property
    def record_ids(self) -> list[str | None]:
        values: list[str | None] = self._column("record_id")
        return values

    @cached_property
    def documents(self) -> list[bytes]:
        """JSON, as bytes: they take two thirds of the time that text takes."""
        values: list[bytes] = self._column(DOCUMENT)
        return values

    @property
    def columns(self) -> pa.Table | None:
        """The mapped fields, for `Batch.columns`; None for removals, and where the connector reads no values."""
        fields = self._intents.fields
        if not fields or not len(self) or self._table["removal"][0].as_py():
            return None
        return pa.table({field.name: self._table[column_of(field.name)] for field in fields})

    @cached_property
    def with_letter(self) -> frozenset[int]:
        """The places of rows that have an open dead letter."""
        if not pc.any(self._table["has_letter"]).as_py():
            return frozenset()
        return frozenset(pc.indices_nonzero(self._table["has_letter"]).to_pylist())

    def idempotency_key(self, place: int) -> str:
        return self._intents.of_row(self._table["batch"][0].as_py(), place, self.keys[place])

    def values(self, place: int) -> Mapping[str, Any]:
        fields = self._intents.fields
        if not fields or self._table["removal"][place].as_py():
            decoded: dict[str, Any] = json.loads(self.documents[place], parse_float=Decimal)
            return decoded
        exact = {field: self._table[column_of(field.name)][place].as_py() for field in fields}
        return {field.name: value for field, value in exact.items() if not (field.omit_null and value is None)}

    def _column(self, name: str) -> Any:
        return self._table[name].to_pylist()


class MappedRow:
    """A row of a batch; satisfies `model.rows.Row`. All that it has is a place among its rows."""

    __slots__ = ("_place", "_rows")

    def __init__(self, rows: MappedRows, place: int) -> None:
        self._rows = rows
        self._place = place

    @property
    def key(self) -> str:
        return self._rows.keys[self._place]

    @property
    def record_keys(self) -> str:
        return self._rows.record_keys[self._place]

    @property
    def content(self) -> str:
        return self._rows.contents[self._place]

    @property
    def record_id(self) -> str | None:
        return self._rows.record_ids[self._place]

    @property
    def idempotency_key(self) -> str:
        return self._rows.idempotency_key(self._place)

    @property
    def json(self) -> orjson.Fragment:
        return orjson.Fragment(self._rows.documents[self._place])

    @property
    def key_values(self) -> Mapping[str, Any]:
        parsed: dict[str, Any] = json.loads(self.record_keys, parse_float=Decimal)
        return parsed

    @property
    def values(self) -> Mapping[str, Any]:
        return self._rows.values(self._place)

    def __repr__(self) -> str:
        return f"MappedRow(key={self.key!r})"


@dataclass(frozen=True, slots=True)
class Intents:
    """What rows are sent for: `intent` names the run's (for inserts the sync's), idempotency keys derive from it.

    by_key: they name the row's key (inserts), else its place. fields: those whose exact values the connector
    reads; none where JSON is enough.
    """

    intent: str
    by_key: bool
    fields: Sequence[FieldType] = ()

    def of_row(self, batch: int, place: int, key: str) -> str:
        return _digest(f"{self.intent}-{key}" if self.by_key else f"{self.intent}-{batch}-{place}")


@dataclass(frozen=True, slots=True)
class NumberedBatch:
    """A batch of the manifest, with its number there."""

    number: int
    operation: Operation
    removal: bool
    rows: MappedRows

    def to_send(self, object_name: str, key_fields: tuple[str, ...], manifest: str, run_id: str) -> Batch:
        """The batch as connectors take it; `manifest`: the name of what it is a part of (PROTOCOL 18)."""
        key = _digest(f"{manifest}-{self.number}")
        return Batch(object_name, self.operation, self.rows, key_fields, key, run_id, self.number)


def batches(payload: Spool, intents: Intents) -> Iterator[NumberedBatch]:
    """All batches of a payload, in order. Holds one block of rows in memory, and the batch it ends in."""
    return batches_of((payload.read(first) for first, _ in payload.ranges()), intents)


def batches_of(blocks: Iterable[pa.Table], intents: Intents) -> Iterator[NumberedBatch]:
    """The batches of blocks of rows, in which those of one batch stand together."""
    waiting: list[pa.Table] = []
    number = -1
    for block in blocks:
        for this, part in _runs(block):
            if waiting and this != number:
                yield _numbered(number, waiting, intents)
                waiting = []
            number = this
            waiting.append(part)
    if waiting:
        yield _numbered(number, waiting, intents)


def _runs(block: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Rows of one batch that stand together."""
    numbers = pc.run_end_encode(block["batch"].combine_chunks())
    start = 0
    for number, end in zip(numbers.values.to_pylist(), numbers.run_ends.to_pylist(), strict=True):
        yield number, block.slice(start, end - start)
        start = end


def _numbered(number: int, parts: list[pa.Table], intents: Intents) -> NumberedBatch:
    table = pa.concat_tables(parts)
    operation, removal = Operation(table["operation"][0].as_py()), table["removal"][0].as_py()
    return NumberedBatch(number, operation, removal, MappedRows(table, intents))


def _digest(intent: str) -> str:
    return hashlib.blake2b(intent.encode(), digest_size=16).hexdigest()
