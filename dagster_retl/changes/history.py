"""Row history: what became of each row that a run sent, one file a run.

A file has the columns of `COLUMNS`. `content` and `status` are as in the manifest and in the ledger;
`error_code` says why a row failed; `started_at` is when its batch left. A file is written once, from
tables that the fold made, and read by key: Parquet keeps columns apart, so that a lookup reads the
keys and the few row groups that hold one of them. Sorting by key would cost more than it saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from dagster_retl.changes.outcomes import Status
from dagster_retl.changes.snapshot import literal

COLUMNS = "key, record_keys, operation, removal, content, status, error_code, record_id, started_at"

_LETTER_OF_A_FAILED_ROW = f"l.key = a.key AND a.status IN ('{Status.FAILED}', '{Status.GONE}')"


@dataclass(frozen=True, slots=True)
class RowEvent:
    """What became of a row in one run. content: of the version that was sent; started_at: as the store writes times."""

    key: str
    record_keys: str
    operation: str
    removal: bool
    content: str
    status: Status
    error_code: str | None
    record_id: str | None
    started_at: str


def anything_sent(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether any row of the run has a history."""
    return bool(connection.execute("SELECT 1 FROM answered LIMIT 1").fetchall())


def write_history(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Write the rows of `answered`, and of `refusals` (key, error_code) why they failed; returns how many there are."""
    return copy_history(connection, _RECORDED, path)


def answered_events(connection: duckdb.DuckDBPyConnection, key: str) -> list[RowEvent]:
    """What `write_history` would write down about a key."""
    return _events(connection.execute(f"SELECT * FROM ({_RECORDED}) WHERE key = ? ORDER BY started_at", [key]))


def read_history(connection: duckdb.DuckDBPyConnection, path: Path, key: str) -> list[RowEvent]:
    """What a history file says about a key."""
    query = f"SELECT {COLUMNS} FROM read_parquet({literal(str(path))}) WHERE key = ? ORDER BY started_at"
    return _events(connection.execute(query, [key]))


def copy_history(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """Write a history file; returns how many rows it has."""
    rows = connection.execute(
        f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 40960)"
    ).fetchone()
    return int(rows[0]) if rows else 0


def _events(result: duckdb.DuckDBPyConnection) -> list[RowEvent]:
    return [
        RowEvent(key, keys, operation, removal, str(content), Status(status), code, record_id, started_at)
        for key, keys, operation, removal, content, status, code, record_id, started_at in result.fetchall()
    ]


_RECORDED = f"""
    SELECT a.key, a.record_keys, a.operation, a.removal, a.content, a.status, l.error_code, a.record_id, a.started_at
    FROM answered a LEFT JOIN refusals l ON {_LETTER_OF_A_FAILED_ROW}
"""
