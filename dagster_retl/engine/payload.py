"""The payload of a plan: what is sent, as JSON, in order, cut into batches by rows and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dagster_retl.changes.snapshot import literal
from dagster_retl.mapping.wire import json_sql
from dagster_retl.model.rows import FieldType, WireForm

_SIZES_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may be: rows of a write, rows of a removal, bytes of either.

    overhead: bytes that a request adds to each row.
    """

    rows: int
    removal_rows: int
    bytes: int
    overhead: int = 2

    def rows_of(self, removal: bool) -> int:
        return self.removal_rows if removal else self.rows


def write_payload(
    connection: duckdb.DuckDBPyConnection, fields: tuple[FieldType, ...], form: WireForm, limits: Limits
) -> int:
    """Create `payload` and `documents` from `sends` and `mapped_rows`; returns the number of batches.

    A document is not kept: it is written when it is sent, and once before, for its size. That is cheaper than
    writing it to the disk and reading it back. `documents` takes the range of `pos` and that of `n` which belongs
    to it, and writes documents after it found the rows: most rows of a query are not sent.
    """
    connection.execute(f"""
        CREATE MACRO documents(first_pos, last_pos, first_n, last_n) AS TABLE
        SELECT "retl:pos", {json_sql(fields, form)} AS "retl:document"
        FROM mapped_rows JOIN (
            SELECT pos AS "retl:pos", n AS "retl:sent" FROM sends
            WHERE pos BETWEEN first_pos AND last_pos AND NOT removal
        ) ON "retl:sent" = "retl:n"
        WHERE "retl:n" BETWEEN first_n AND last_n
    """)
    batches = 0
    connection.execute("CREATE TABLE starts (batch INTEGER, start BIGINT)")
    for starts in _starts(connection, limits):
        numbers = np.arange(batches, batches + len(starts), dtype=np.int32)
        connection.register("more_starts", pa.table({"batch": numbers, "start": starts}))
        connection.execute("INSERT INTO starts SELECT * FROM more_starts")
        connection.unregister("more_starts")
        batches += len(starts)
    connection.execute("""
        CREATE VIEW payload AS
        SELECT p.*, b.batch, (p.pos - b.start)::INTEGER AS position FROM sends p ASOF JOIN starts b ON p.pos >= b.start
    """)
    return batches


def write_manifest(connection: duckdb.DuckDBPyConnection, forgotten: str, path: Path) -> None:
    """Write what the payload will do, and the keys of the query `forgotten`, to a Parquet file."""
    connection.execute(f"""
        COPY (
            SELECT batch, position, operation, removal, key, record_keys, content, record_id, has_letter FROM payload
            UNION ALL
            SELECT NULL, NULL, 'forget', FALSE, key, record_keys, fingerprint, record_id, FALSE FROM ({forgotten})
        ) TO {literal(str(path))} (FORMAT parquet, COMPRESSION lz4_raw)
    """)


def _sizes(connection: duckdb.DuckDBPyConnection) -> str:
    """A query for pos, removal and the bytes of each document, in order."""
    ((first, last, end),) = connection.execute("SELECT min(n), max(n), max(pos) FROM sends").fetchall()
    removed = "SELECT pos, TRUE AS removal, strlen(record_keys) AS size FROM sends WHERE removal"
    if first is None:
        return f"{removed} ORDER BY pos"
    return f"""
        SELECT "retl:pos" AS pos, FALSE AS removal, strlen("retl:document") AS size
        FROM documents(0, {end}, {first}, {last})
        UNION ALL {removed} ORDER BY pos
    """


def _starts(connection: duckdb.DuckDBPyConnection, limits: Limits) -> Iterator[npt.NDArray[np.int64]]:
    """The first `pos` of each batch, in order. A batch has one kind of operation, and at least one row."""
    cutters = {removal: Cutter(limits.rows_of(removal), limits.bytes) for removal in (False, True)}
    for block in connection.cursor().sql(_sizes(connection)).to_arrow_reader(_SIZES_ROWS):
        positions, removals = np.asarray(block.column("pos")), block.column("removal").to_numpy(zero_copy_only=False)
        sizes = np.asarray(block.column("size")) + limits.overhead
        for removal in (False, True):  # removals come last
            these = removals == removal
            yield positions[these][cutters[removal].cut(sizes[these])]


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
