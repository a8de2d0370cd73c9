"""A baseline: the rows that a run would send become what was delivered, and nothing is sent.

It goes the way of every run, with one batch that never leaves: until the last transaction it is a run that
has sent nothing, so that one that is killed has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
from sqlalchemy import Connection

from dagster_retl.changes.snapshot import literal
from dagster_retl.engine.commit import Books, Closer, Folded
from dagster_retl.engine.payload import MANIFEST, forgotten_rows
from dagster_retl.store.dead_letters import DeadLetters
from dagster_retl.store.snapshots import Pointer

RESOLUTION = "baseline"
"""Why a dead letter closed: a baseline took its row as delivered."""


def write_manifest(connection: duckdb.DuckDBPyConnection, forgotten: str, path: Path) -> None:
    """Write all of `sends` as one batch, and the keys of the query `forgotten`, to a Parquet file."""
    columns = ", ".join(MANIFEST.names[2:])
    connection.execute(f"""
        COPY (
            SELECT 0::INTEGER AS batch, (row_number() OVER (ORDER BY n) - 1)::INTEGER AS position, {columns} FROM sends
            UNION ALL {forgotten_rows(forgotten)}
        ) TO {literal(str(path))} (FORMAT parquet, COMPRESSION lz4_raw)
    """)


def take(closer: Closer, run_id: str, books: Books, pointer: Pointer, *, moved: bool) -> Folded:
    """Fold the manifest as if the destination had accepted all of it before this run. moved: see `Closer.fold`."""
    folded = closer.fold(run_id, books, pointer, accept_all=True, moved=moved)
    counters = replace(
        folded.counters,
        written=0,
        unchanged=folded.counters.unchanged + folded.counters.written,
        dead_letters_opened=books.counters.dead_letters_opened,
        dead_letters_resolved=books.counters.dead_letters_resolved,
    )
    return replace(folded, counters=counters)


def close_letters(
    conn: Connection, connection: duckdb.DuckDBPyConnection, letters: DeadLetters, run_id: str, folded: Folded
) -> Folded:
    """Close those of the rows that are taken as delivered, in the transaction that does so."""
    pointer, counters = folded.pointer, folded.counters
    closed = sum(
        letters.resolve_keys(conn, pointer.sync_id, pointer.epoch, keys, RESOLUTION, run_id)
        for keys in _keys(connection)
    )
    return replace(folded, counters=replace(counters, dead_letters_resolved=counters.dead_letters_resolved + closed))


def _keys(connection: duckdb.DuckDBPyConnection, *, block: int = 500) -> Iterator[list[str]]:
    cursor = connection.cursor()
    cursor.execute("SELECT key FROM sends WHERE has_letter")
    while rows := cursor.fetchmany(block):
        yield [key for (key,) in rows]
