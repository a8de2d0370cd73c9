"""Rows on their way to a worker: columnar until here, one object a row from here on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from dagster_retl.model.rows import Batch, FieldType, Operation

BLOCK_ROWS = 10_000


class MappedRow:
    """A row of a batch; satisfies `model.rows.Row`. Its values are decoded only when somebody asks."""

    __slots__ = (
        "_fields",
        "_intent",
        "_json",
        "_position",
        "_table",
        "content",
        "has_letter",
        "key",
        "record_id",
        "record_keys",
    )

    def __init__(
        self,
        key: str,
        record_keys: str,
        content: str,
        record_id: str | None,
        has_letter: bool,
        document: str,
        intent: str,
        table: pa.Table | None,
        position: int,
        fields: Sequence[FieldType],
    ) -> None:
        self.key = key
        self.record_keys = record_keys
        self.content = content
        self.record_id = record_id
        self.has_letter = has_letter
        self._intent = intent
        self._json = document
        self._table = table
        self._position = position
        self._fields = fields

    @property
    def idempotency_key(self) -> str:
        return _digest(self._intent)

    @property
    def json(self) -> orjson.Fragment:
        return orjson.Fragment(self._json)

    @property
    def key_values(self) -> Mapping[str, Any]:
        parsed: dict[str, Any] = json.loads(self.record_keys, parse_float=Decimal)
        return parsed

    @property
    def values(self) -> Mapping[str, Any]:
        if self._table is None:
            decoded: dict[str, Any] = json.loads(self._json, parse_float=Decimal)
            return decoded
        row = self._table.slice(self._position, 1).to_pylist()[0]
        return {
            field.name: row[field.name] for field in self._fields if not (field.omit_null and row[field.name] is None)
        }

    def __repr__(self) -> str:
        return f"MappedRow(key={self.key!r})"


@dataclass(frozen=True, slots=True)
class NumberedBatch:
    """A batch of the manifest, with its number there."""

    number: int
    operation: Operation
    removal: bool
    rows: Sequence[MappedRow]

    def to_send(self, object_name: str, key_fields: tuple[str, ...], manifest: str) -> Batch:
        """The batch as connectors take it; `manifest`: the name of what it is a part of (PROTOCOL 18)."""
        key = _digest(f"{manifest}-{self.number}")
        return Batch(object_name, self.operation, self.rows, key_fields, idempotency_key=key)


class Feed:
    """Reads the payload of a plan in order and cuts it into the batches of its manifest."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        fields: Sequence[FieldType],
        *,
        intent: str,
        by_key: bool,
    ) -> None:
        """fields: those whose exact values the connector reads; none where JSON is enough.

        intent: what idempotency keys derive from; by_key: they name the row's key (inserts), else its place.
        """
        self._connection = connection
        self._fields = fields
        self._names = [field.name for field in fields]
        self._intent = intent
        self._by_key = by_key

    def batches(self) -> Iterator[NumberedBatch]:
        """All batches, in order. Holds one block of rows in memory, and the batch it ends in."""
        waiting: list[MappedRow] = []
        heading: tuple[int, str, bool] | None = None
        for block in self._blocks():
            for this, row in self._rows(block):
                if heading is not None and this != heading:
                    yield _numbered(heading, waiting)
                    waiting = []
                heading = this
                waiting.append(row)
        if heading is not None:
            yield _numbered(heading, waiting)

    def _blocks(self) -> Iterator[pa.RecordBatch]:
        fields = "".join(f", s.{_quoted(name)}" for name in self._names)
        values = 'LEFT JOIN mapped_rows s ON s."retl:n" = p.n' if self._names else ""
        query = f"""
            SELECT p.batch AS "retl:batch", p.position AS "retl:position", p.operation AS "retl:operation",
                p.removal AS "retl:removal", p.key AS "retl:key", p.record_keys AS "retl:record_keys",
                p.content::VARCHAR AS "retl:content", p.record_id AS "retl:record_id",
                p.has_letter AS "retl:has_letter", p.document AS "retl:document"{fields}
            FROM payload p {values} ORDER BY p.pos
        """
        yield from self._connection.cursor().sql(query).to_arrow_reader(BLOCK_ROWS)

    def _rows(self, block: pa.RecordBatch) -> Iterator[tuple[tuple[int, str, bool], MappedRow]]:
        values = pa.Table.from_batches([block]).select(self._names) if self._names else None
        columns = [block.column(f"retl:{name}").to_pylist() for name in _COLUMNS]
        for index, entry in enumerate(zip(*columns, strict=True)):
            batch, place, operation, removal, key, record_keys, content, record_id, letter, document = entry
            intent = f"{self._intent}-{key}" if self._by_key else f"{self._intent}-{batch}-{place}"
            table = None if removal else values
            yield (
                (batch, operation, removal),
                MappedRow(key, record_keys, content, record_id, letter, document, intent, table, index, self._fields),
            )


_COLUMNS = (
    "batch", "position", "operation", "removal", "key", "record_keys", "content", "record_id", "has_letter", "document",
)  # fmt: skip


def _digest(intent: str) -> str:
    return hashlib.blake2b(intent.encode(), digest_size=16).hexdigest()


def _numbered(heading: tuple[int, str, bool], rows: list[MappedRow]) -> NumberedBatch:
    number, operation, removal = heading
    return NumberedBatch(number, Operation(operation), removal, rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
