"""How long lists and counts take with a million runs and a million dead letters in the store.

    python benchmarks/lists.py                     SQLite, in a temporary folder
    python benchmarks/lists.py postgresql://…      an empty Postgres database

Rows are written with plain SQL; each question is asked a few times, and the median and the worst count.
The goal is 50 ms for a page.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from dagster_retl.model.runs import RunStatus
from dagster_retl.store.store import Store

ROWS = 1_000_000
SYNCS = 200
GOAL = 50.0  # milliseconds
TIMES = 9

_BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
_DIGITS = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {rows})"
_MOMENT = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%S', '2025-01-01', '+' || (i * 20) || ' seconds') || '.000000Z'",
    "postgresql": """to_char(timestamp '2025-01-01' + i * 20 * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS')
        || '.000000Z'""",
}
_RUNS = """INSERT INTO runs (id, sync_id, sync_name, status, trigger, options, full_refresh, dry_run, counters,
    warnings, created_at, started_at, finished_at) {numbers}
    SELECT 'retl_run_' || {digits}, 'retl_sync_' || (i % {syncs}), 'sync ' || (i % {syncs}),
        CASE WHEN i % 1000 = 0 THEN 'failed' ELSE 'succeeded' END, 'schedule', '{{}}', {false}, {false},
        '{{"read": 100, "written": 100}}', '[]', {moment}, {moment}, {moment} FROM n"""
_LETTERS = """INSERT INTO dead_letters (id, sync_id, epoch, run_id, key, record_keys, error_code, message, operation,
    attempts, rejections, rows, held, first_seen_at, last_seen_at, resolved_at, resolution, silenced) {numbers}
    SELECT 'retl_dlq_' || {digits}, 'retl_sync_' || (i % {syncs}), 'e', 'retl_run_' || (i % 5000), 'k' || i,
        '{{"id": ' || i || '}}', CASE WHEN i % 7 = 0 THEN 'TIMEOUT' ELSE 'DESTINATION_VALIDATION' END,
        'bad format for field Email', 'upsert', 1, 1, 1, {false}, {moment}, {moment},
        CASE WHEN i % 10 < 7 THEN {moment} END, CASE WHEN i % 10 < 7 THEN 'delivered' END, {false} FROM n"""

Question = tuple[str, Callable[[Store], object]]


def fill(store: Store) -> None:
    """A million of each, over 230 days; of the dead letters, 300,000 are open."""
    dialect = store.engine.dialect.name
    digits = "substr('00000000' || i, -8)" if dialect == "sqlite" else "lpad(i::text, 8, '0')"
    values = {
        "numbers": _DIGITS.format(rows=ROWS),
        "digits": digits,
        "syncs": SYNCS,
        "false": "0" if dialect == "sqlite" else "false",
        "moment": _MOMENT[dialect],
    }
    with store.begin() as conn:
        for statement in (_RUNS, _LETTERS):
            conn.execute(text(statement.format(**values).replace(":", r"\:")))
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("ANALYZE")


def questions(store: Store) -> list[Question]:
    """What the API asks."""
    middle = (_BEGIN + timedelta(seconds=20 * (ROWS // 2)), "retl_run_x")
    sync_id, recently = "retl_sync_7", _BEGIN + timedelta(seconds=20 * (ROWS - 20_000))
    some = frozenset(f"retl_sync_{number}" for number in range(10))
    most = frozenset(f"retl_sync_{number}" for number in range(SYNCS - 1))
    runs, letters = store.runs, store.dead_letters
    return [
        ("runs", lambda _: runs.list()),
        ("runs, page in the middle", lambda _: runs.list(before=middle)),
        ("runs of a sync", lambda _: runs.list(sync_id)),
        ("runs of a sync that failed (none)", lambda _: runs.list(sync_id, RunStatus.FAILED)),
        ("runs that failed", lambda _: runs.list(None, RunStatus.FAILED)),
        ("runs that are queued (none)", lambda _: runs.list(None, RunStatus.QUEUED)),
        ("runs of ten syncs", lambda _: runs.list(among=some)),
        ("runs of all syncs but one", lambda _: runs.list(among=most)),
        ("dead letters", lambda _: letters.list()),
        ("dead letters, page in the middle", lambda _: letters.list(before=middle)),
        ("dead letters of a sync", lambda _: letters.list(sync_id)),
        ("dead letters of a run", lambda _: letters.list(run_id="retl_run_42")),
        ("dead letters of a code", lambda _: letters.list(error_code="TIMEOUT")),
        ("dead letters of a sync and a code (none)", lambda _: letters.list(sync_id, error_code="CONFLICT")),
        ("dead letters of a sync and a code", lambda _: letters.list("retl_sync_8", error_code="TIMEOUT")),
        ("dead letters of a sync and a run", lambda _: letters.list(sync_id, run_id="retl_run_42")),
        ("resolved dead letters", lambda _: letters.list(resolved=True)),
        ("resolved dead letters of a code", lambda _: letters.list(resolved=True, error_code="TIMEOUT")),
        ("resolved dead letters of a sync", lambda _: letters.list(sync_id, resolved=True)),
        ("dead letters of ten syncs", lambda _: letters.list(among=some)),
        ("dead letters of all syncs but one", lambda _: letters.list(among=most)),
        ("dead letters of ten syncs, page in the middle", lambda _: letters.list(among=some, before=middle)),
        ("resolved dead letters of ten syncs", lambda _: letters.list(among=some, resolved=True)),
        ("dead letters of ten syncs and a code", lambda _: letters.list(among=some, error_code="TIMEOUT")),
        ("statistics of a sync", lambda _: letters.stats(sync_id)),
        ("statistics since a while", lambda _: letters.stats(since=recently)),
        ("statistics since long ago", lambda _: letters.stats(since=_BEGIN + timedelta(days=40, seconds=5))),
        ("statistics of a sync since long ago", lambda _: letters.stats(sync_id, since=_BEGIN + timedelta(days=40))),
        ("statistics of ten syncs", lambda _: letters.stats(among=some)),
        ("statistics of all", lambda _: letters.stats()),
        ("open dead letters by sync and reason", lambda _: letters.open_by_reason()),
        ("runs by status", lambda _: runs.counts()),
    ]


def measure(store: Store, question: Callable[[Store], object]) -> tuple[float, float, float]:
    """Milliseconds: the median, the worst, and the median of this process's CPU time (SQLite works in it)."""
    took, cpu = [], []
    for _ in range(TIMES):
        began, worked = time.perf_counter(), time.process_time()
        question(store)
        took.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - worked))
    return statistics.median(took), max(took), statistics.median(cpu)


def main(url: str) -> None:
    """Fill, ask, tell."""
    with Store.open(url) as store:
        began = time.perf_counter()
        fill(store)
        print(f"{store.url_display}: {ROWS:,} runs and {ROWS:,} dead letters in {time.perf_counter() - began:.0f} s")
        for name, question in questions(store):
            median, worst, cpu = measure(store, question)
            mark = "" if median <= GOAL else f"   more than {GOAL:g} ms"
            print(f"{name:45} {median:8.1f} ms   worst {worst:8.1f}   cpu {cpu:8.1f}{mark}")


def _url(arguments: list[Any], folder: str) -> str:
    return str(arguments[0]) if arguments else f"sqlite:///{Path(folder) / 'retl.db'}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(_url(sys.argv[1:], folder))
