"""The payload of a plan: what is sent, as JSON, in order, cut into batches by rows and bytes.

It is written twice while it is made: with its documents into a spool, from which delivery reads, and without
them into the manifest, which outlives the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagster_retl.engine.documents import chosen_rows, write_documents
from dagster_retl.engine.parallel import map_in_order
from dagster_retl.engine.plan import Plan
from dagster_retl.engine.spool import Spool
from dagster_retl.engine.workspace import Workspace
from dagster_retl.model.rows import WireForm

_REMOVALS = 50_000

MANIFEST = pa.schema(
    [
        ("batch", pa.int32()),
        ("position", pa.int32()),
        ("operation", pa.string()),
        ("removal", pa.bool_()),
        ("key", pa.string()),
        ("record_keys", pa.string()),
        ("content", pa.uuid()),
        ("record_id", pa.string()),
        ("has_letter", pa.bool_()),
        ("row_hash", pa.uint64()),
    ]
)
"""See `changes.fold`."""
DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch may be. overhead: bytes that a request adds to each row."""

    rows: int
    bytes: int
    overhead: int = 2


class Payload:
    """The payload of one plan. `spool`: its rows by place; after `write`, `batches`: how many there are.

    with_fields: the mapped fields go along, for connectors that read exact values.
    """

    def __init__(
        self, space: Workspace, plan: Plan, form: WireForm, limits: Limits, removals: Limits, *, with_fields: bool
    ) -> None:
        """limits, removals: of batches of rows, and of batches of removals."""
        self._space = space
        self._plan = plan
        self._form = form
        self._fields = plan.fields if with_fields else ()
        self._cutters = {False: _Numbering(limits), True: _Numbering(removals)}
        self.spool = Spool(space.folder / "payload")
        self.batches = 0

    def write(self, forgotten: str, manifest: Path) -> None:
        """Fill the spool, and write the manifest with the keys of the query `forgotten` to a file."""
        place = 0
        with pq.ParquetWriter(manifest, MANIFEST, compression="lz4", use_dictionary=["operation"]) as writer:
            for rows in self._rows():
                numbered = self._number(rows)
                self.spool.append(place, place + rows.num_rows - 1, numbered)
                writer.write_table(numbered.select(MANIFEST.names))
                place += rows.num_rows
            for block in self._space.connection.cursor().sql(forgotten_rows(forgotten)).to_arrow_reader(_REMOVALS):
                writer.write_batch(block.cast(MANIFEST))

    def _number(self, rows: pa.Table) -> pa.Table:
        """A table of writes or of removals, told which batches its rows are in."""
        sizes = pc.binary_length(rows[DOCUMENT]).to_numpy().astype(np.int64)
        batch, position, self.batches = self._cutters[rows["removal"][0].as_py()].number(sizes, self.batches)
        return rows.add_column(0, "batch", pa.array(batch)).add_column(1, "position", pa.array(position))

    def _rows(self) -> Iterator[pa.Table]:
        """Rows of the query in its order, then removals; each table is of one kind and has rows."""
        if self._plan.rows is not None and self._plan.totals.send:
            work = partial(self._documents, self._plan.rows)
            for table in map_in_order(work, self._plan.rows.ranges(), self._space.threads):
                if table is not None:
                    yield table
        removals = f'SELECT {_COLUMNS}, encode(record_keys) AS "{DOCUMENT}" FROM sends WHERE removal ORDER BY key'
        for block in self._space.connection.cursor().sql(removals).to_arrow_reader(_REMOVALS):
            yield self._without_fields(pa.Table.from_batches([block]).cast(_SENDS))

    def _documents(self, mapped: Spool, block: tuple[int, int]) -> pa.Table | None:
        """What is sent of a block of mapped rows; None: nothing."""
        first, last = block
        cursor = self._space.connection.cursor()
        query = f"SELECT n, {_COLUMNS} FROM sends WHERE n BETWEEN {first} AND {last} ORDER BY n"
        sends = cursor.sql(query).to_arrow_table()
        cursor.close()
        if not sends.num_rows:
            return None
        rows = chosen_rows(mapped.read(first), sends["n"].to_numpy())
        document = write_documents(self._space.connection, rows, self._plan.fields, self._form)
        table = sends.drop_columns(["n"]).append_column(DOCUMENT, document).cast(_SENDS)
        for field in self._fields:
            table = table.append_column(column_of(field.name), rows[field.name])
        return table

    def _without_fields(self, removals: pa.Table) -> pa.Table:
        for field in self._fields:
            removals = removals.append_column(column_of(field.name), pa.nulls(removals.num_rows, field.arrow_type))
        return removals


def column_of(field: str) -> str:
    """The spool's column for a mapped field, whatever that is called."""
    return f"field:{field}"


_COLUMNS = ", ".join(MANIFEST.names[2:])
_SENDS = pa.schema([*list(MANIFEST)[2:], (DOCUMENT, pa.binary())])


def forgotten_rows(query: str) -> str:
    """A query for the manifest's rows that say which keys to forget."""
    return f"""
        SELECT NULL::INTEGER AS batch, NULL::INTEGER AS position, 'forget' AS operation, FALSE AS removal,
            key, record_keys, fingerprint AS content, record_id, FALSE AS has_letter, NULL::UBIGINT AS row_hash
        FROM ({query})
    """


class _Numbering:
    """Numbers the rows of one kind: a batch has one kind of operation, and at least one row."""

    def __init__(self, limits: Limits) -> None:
        self._cutter = Cutter(limits.rows, limits.bytes)
        self._overhead = limits.overhead
        self._batch_begin = 0
        self._rows = 0

    def number(
        self, sizes: npt.NDArray[np.int64], batches: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
        """For rows of these sizes: their batch, their place in it; and how many batches there are now.

        batches: how many there were; the last of them goes on if it is of this kind and has room.
        """
        places = np.arange(self._rows, self._rows + len(sizes))
        begins = np.zeros(len(sizes), dtype=np.int64)
        begins[self._cutter.cut(sizes + self._overhead)] = 1
        numbers = batches - 1 + np.cumsum(begins)
        starts = np.maximum.accumulate(np.where(begins, places, self._batch_begin))
        self._batch_begin, self._rows = int(starts[-1]), self._rows + len(sizes)
        return numbers.astype(np.int32), (places - starts).astype(np.int32), batches + int(begins.sum())


class Cutter:
    """Cuts a sequence of rows, which comes in parts, into batches of at most so many rows and bytes."""

    def __init__(self, rows: int, bytes_: int) -> None:
        self._most_rows = rows
        self._most_bytes = bytes_
        self._rows = 0
        self._bytes = 0

    def cut(self, sizes: npt.NDArray[np.int64]) -> list[int]:
        """Where in this part batches begin. A row that is too large for any batch is one by itself."""
        ends = np.concatenate([[0], np.cumsum(sizes)])
        begins: list[int] = []
        at = self._until(ends, 0) if self._rows else 0
        while at < len(sizes):
            begins.append(at)
            self._rows = self._bytes = 0
            at = self._until(ends, at)
        return begins

    def _until(self, ends: npt.NDArray[np.int64], at: int) -> int:
        """Put rows from `at` on into the batch until it is full; returns the first that is not in it.

        ends: the bytes before each row, and at last the bytes of all.
        """
        fitting = int(np.searchsorted(ends, ends[at] + self._most_bytes - self._bytes, side="right")) - 1
        least = at + 1 if self._rows == 0 else at
        until = min(max(fitting, least), at + self._most_rows - self._rows, len(ends) - 1)
        self._rows += until - at
        self._bytes += int(ends[until] - ends[at])
        return until
