"""The payload of a plan: what is sent, as JSON, in order, cut into batches by rows and bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from dagster_retl.changes.snapshot import literal
from dagster_retl.mapping.wire import json_sql
from dagster_retl.model.rows import FieldType, WireForm


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
    """Create `payload` from `sends` and `mapped_rows`; returns the number of batches."""
    document = json_sql(fields, form)
    connection.execute(f"""
        CREATE TABLE documents AS
        SELECT p.*, CASE WHEN p.removal THEN p.record_keys ELSE s."retl:document" END AS document
        FROM sends p
        LEFT JOIN (SELECT "retl:n", {document} AS "retl:document" FROM mapped_rows) s ON s."retl:n" = p.n
    """)
    starts = list(_starts(connection, limits))
    table = pa.table({"batch": pa.array(range(len(starts)), pa.int32()), "start": pa.array(starts, pa.int64())})
    connection.register("starts_table", table)
    connection.execute("CREATE TABLE starts AS SELECT * FROM starts_table")
    connection.unregister("starts_table")
    connection.execute("""
        CREATE VIEW payload AS
        SELECT d.*, b.batch, (d.pos - b.start)::INTEGER AS position
        FROM documents d ASOF JOIN starts b ON d.pos >= b.start
    """)
    return len(starts)


def write_manifest(connection: duckdb.DuckDBPyConnection, forgotten: str, path: Path) -> None:
    """Write what the payload will do, and the keys of the query `forgotten`, to a Parquet file."""
    connection.execute(f"""
        COPY (
            SELECT batch, position, operation, removal, key, record_keys, content, record_id, has_letter FROM payload
            UNION ALL
            SELECT NULL, NULL, 'forget', FALSE, key, record_keys, fingerprint, record_id, FALSE FROM ({forgotten})
        ) TO {literal(str(path))} (FORMAT parquet, COMPRESSION lz4_raw)
    """)


def _starts(connection: duckdb.DuckDBPyConnection, limits: Limits) -> Iterator[int]:
    """The first `pos` of each batch. A batch has one kind of operation, and at least one row."""
    query = "SELECT pos, removal, strlen(document) AS size FROM documents ORDER BY pos"
    rows = bytes_ = 0
    before: bool | None = None
    for block in connection.cursor().sql(query).to_arrow_reader(100_000):
        sizes = np.asarray(block.column("size")) + limits.overhead
        removals = block.column("removal").to_pylist()
        for pos, removal, size in zip(block.column("pos").to_pylist(), removals, sizes.tolist(), strict=True):
            if removal != before or rows >= limits.rows_of(removal) or bytes_ + size > limits.bytes:
                yield pos
                rows = bytes_ = 0
                before = removal
            rows += 1
            bytes_ += size
