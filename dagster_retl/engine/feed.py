"""Rows on their way to a worker: columnar until here, one object a row from here on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dagster_retl.model.rows import Batch, FieldType, Operation

BLOCK_ROWS = 20_000


class _Block:
    """Rows that were read together. A column becomes Python objects when somebody asks for one of them.

    intent: what idempotency keys derive from; by_key: they name the row's key (inserts), else its place.
    """

    def __init__(self, table: pa.Table, fields: Sequence[FieldType], intent: str, *, by_key: bool) -> None:
        self._table = table
        self._fields = fields
        self._intent = intent
        self._by_key = by_key

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Rows of one batch: (number of the batch, first row, row after the last)."""
        numbers = pc.run_end_encode(self._table.column("retl:batch").combine_chunks())
        start = 0
        for number, end in zip(numbers.values.to_pylist(), numbers.run_ends.to_pylist(), strict=True):
            yield number, start, end
            start = end

    def rows(self, start: int, end: int) -> list[MappedRow]:
        keys = self.keys
        return [MappedRow(self, index, keys[index]) for index in range(start, end)]

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
        values: list[str] = self._column("content")
        return values

    @cached_property
    def record_ids(self) -> list[str | None]:
        values: list[str | None] = self._column("record_id")
        return values

    @cached_property
    def letters(self) -> list[bool]:
        values: list[bool] = self._column("has_letter")
        return values

    @cached_property
    def documents(self) -> list[bytes]:
        """JSON, as bytes: they take two thirds of the time that text takes."""
        documents: list[bytes] = self._table.column("retl:document").cast(pa.binary()).to_pylist()
        return documents

    def operation(self, index: int) -> tuple[Operation, bool]:
        """What is done with a row, and whether it is a removal."""
        return Operation(self._value("operation", index)), self._value("removal", index)

    def intent(self, index: int) -> str:
        if self._by_key:
            return f"{self._intent}-{self.keys[index]}"
        return f"{self._intent}-{self._value('batch', index)}-{self._value('position', index)}"

    def values(self, index: int) -> Mapping[str, Any]:
        if not self._fields or self._value("removal", index):
            decoded: dict[str, Any] = json.loads(self.documents[index], parse_float=Decimal)
            return decoded
        row = self._table.slice(index, 1).to_pylist()[0]
        return {
            field.name: row[field.name] for field in self._fields if not (field.omit_null and row[field.name] is None)
        }

    def _value(self, name: str, index: int) -> Any:
        return self._table.column(f"retl:{name}")[index].as_py()

    def _column(self, name: str) -> Any:
        return self._table.column(f"retl:{name}").to_pylist()


class MappedRow:
    """A row of a batch; satisfies `model.rows.Row`. There are many, so all that it has is a place in its block."""

    __slots__ = ("_block", "_index", "key")

    def __init__(self, block: _Block, index: int, key: str) -> None:
        self._block = block
        self._index = index
        self.key = key

    @property
    def record_keys(self) -> str:
        return self._block.record_keys[self._index]

    @property
    def content(self) -> str:
        return self._block.contents[self._index]

    @property
    def record_id(self) -> str | None:
        return self._block.record_ids[self._index]

    @property
    def has_letter(self) -> bool:
        return self._block.letters[self._index]

    @property
    def idempotency_key(self) -> str:
        return _digest(self._block.intent(self._index))

    @property
    def json(self) -> orjson.Fragment:
        return orjson.Fragment(self._block.documents[self._index])

    @property
    def key_values(self) -> Mapping[str, Any]:
        parsed: dict[str, Any] = json.loads(self.record_keys, parse_float=Decimal)
        return parsed

    @property
    def values(self) -> Mapping[str, Any]:
        return self._block.values(self._index)

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
        heading: tuple[int, Operation, bool] | None = None
        for block in self._blocks():
            for number, start, end in block.runs():
                if heading is not None and heading[0] != number:
                    yield NumberedBatch(*heading, waiting)
                    waiting = []
                heading = (number, *block.operation(start))
                waiting += block.rows(start, end)
        if heading is not None:
            yield NumberedBatch(*heading, waiting)

    def _blocks(self) -> Iterator[_Block]:
        """Range after range of `pos`, each sorted by itself: sorting all rows at once takes memory for all of them."""
        cursor = self._connection.cursor()
        ((rows,),) = cursor.execute("SELECT count(*) FROM sends").fetchall()
        for start in range(0, rows, BLOCK_ROWS):
            table = cursor.sql(self._query(cursor, start, start + BLOCK_ROWS)).to_arrow_table()
            yield _Block(table, self._fields, self._intent, by_key=self._by_key)

    def _query(self, cursor: duckdb.DuckDBPyConnection, start: int, end: int) -> str:
        """Each table is told where its rows lie, so that none is read as a whole."""
        within = f"pos BETWEEN {start} AND {end - 1}"
        ((first, last),) = cursor.execute(f"SELECT min(n), max(n) FROM sends WHERE {within}").fetchall()
        first, last = (0, -1) if first is None else (first, last)  # removals are in no row of the query
        names = "".join(f", s.{_quoted(name)}" for name in self._names)
        rows = f'(FROM mapped_rows WHERE "retl:n" BETWEEN {first} AND {last})'
        return f"""
            SELECT b.batch AS "retl:batch", (p.pos - b.start)::INTEGER AS "retl:position",
                p.operation AS "retl:operation", p.removal AS "retl:removal", p.key AS "retl:key",
                p.record_keys AS "retl:record_keys", p.content::VARCHAR AS "retl:content",
                p.record_id AS "retl:record_id", p.has_letter AS "retl:has_letter",
                CASE WHEN p.removal THEN p.record_keys ELSE d."retl:document" END AS "retl:document"{names}
            FROM (FROM sends WHERE {within}) p
            ASOF JOIN (
                FROM starts WHERE start < {end} AND start >= (SELECT max(start) FROM starts WHERE start <= {start})
            ) b ON p.pos >= b.start
            LEFT JOIN documents({start}, {end - 1}, {first}, {last}) d ON d."retl:pos" = p.pos
            {f'LEFT JOIN {rows} s ON s."retl:n" = p.n' if names else ""}
            ORDER BY p.pos
        """


def _digest(intent: str) -> str:
    return hashlib.blake2b(intent.encode(), digest_size=16).hexdigest()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
