"""Counts of dead letters agree with a plain `count(*)`, whoever writes, however, and at the same time as whom."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, text, update

from dagster_retl.errors import ErrorCode
from dagster_retl.store import migrations
from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.migrate import ensure_schema
from dagster_retl.store.schema import dead_letters, letter_counts
from dagster_retl.store.store import Store

CODES = (ErrorCode.CONFLICT, ErrorCode.DESTINATION_VALIDATION, ErrorCode.TIMEOUT)
# Neighbours on both sides of the ends of minutes, days and months.
MOMENTS = tuple(
    datetime.fromisoformat(moment).replace(tzinfo=UTC)
    for moment in (
        "2024-12-31T23:59:59.999999",
        "2025-01-01T00:00:00",
        "2025-01-01T00:00:30",
        "2025-01-01T00:01:00",
        "2025-01-31T23:59:59.999999",
        "2025-02-01T00:00:00",
        "2025-02-28T12:34:56.7",
    )
)
SYNC, KEY, MOMENT = st.integers(0, 1), st.integers(0, 5), st.sampled_from(MOMENTS)
OPERATIONS = st.one_of(
    st.tuples(st.just("fail"), SYNC, st.dictionaries(KEY, st.sampled_from(CODES), max_size=6)),
    st.tuples(st.just("age"), SYNC, st.tuples(KEY, MOMENT)),
    st.tuples(st.just("close"), SYNC, st.lists(KEY, max_size=4)),
    st.tuples(st.just("decide"), SYNC, st.lists(KEY, max_size=4)),
    st.tuples(st.just("keyless"), SYNC, st.integers(0, 2)),
    st.tuples(st.just("forget"), SYNC, KEY),
    st.tuples(st.just("change"), SYNC, st.none()),
    st.tuples(st.just("move"), SYNC, st.none()),
    st.tuples(st.just("expire"), SYNC, MOMENT),
    st.tuples(st.just("purge"), SYNC, st.none()),
    st.tuples(st.just("raise"), SYNC, st.lists(KEY, max_size=4)),
)


class UndoneError(Exception):
    """Rolls a transaction back."""


class Desk:
    """Everything that touches dead letters, on two syncs of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.syncs = [token_hex(8) for _ in range(2)]
        self.epoch = "e"

    def fail(self, sync: str, codes: dict[int, ErrorCode]) -> None:
        with self.store.begin() as conn:
            self.store.dead_letters.fail(conn, sync, self.epoch, "r", failures(codes))

    def age(self, sync: str, what: tuple[int, datetime]) -> None:
        key, moment = what
        mine = (dead_letters.c.sync_id == sync) & (dead_letters.c.key == f"k{key}")
        with self.store.begin() as conn:
            conn.execute(update(dead_letters).where(mine).values(first_seen_at=to_text(moment)))

    def close(self, sync: str, keys: list[int]) -> None:
        with self.store.begin() as conn:
            self.store.dead_letters.resolve_keys(conn, sync, self.epoch, [f"k{key}" for key in keys], "delivered")

    def decide(self, sync: str, keys: list[int]) -> None:
        found = self.store.dead_letters.list(sync)
        wanted = {f"k{key}" for key in keys}
        self.store.dead_letters.resolve(
            [each.id for each in found if each.record_keys.get("id") in wanted], "fixed", "ann"
        )

    def keyless(self, sync: str, rows: int) -> None:
        with self.store.begin() as conn:
            self.store.dead_letters.keyless(
                conn, sync, self.epoch, "r", ErrorCode.MISSING_KEY, rows=rows, message="no key"
            )

    def forget(self, sync: str, key: int) -> None:
        with self.store.begin() as conn:
            self.store.keys.erase(conn, sync, self.epoch, f"k{key}", ())

    def change(self, sync: str, _: None) -> None:
        with self.store.begin() as conn:
            self.store.dead_letters.resolve_other_epochs(conn, sync, "another")

    def move(self, sync: str, _: None) -> None:
        with self.store.begin() as conn:
            self.store.move_epoch(conn, sync, self.epoch, "moved")
            self.store.move_epoch(conn, sync, "moved", self.epoch)

    def expire(self, sync: str, moment: datetime) -> None:
        self.store.expiry.dead_letters(sync, max(moment, self.store.now()), 3)

    def purge(self, sync: str, _: None) -> None:
        with self.store.begin() as conn:
            self.store.purging.purge(conn, sync, "gone", "ann")

    def raise_(self, sync: str, keys: list[int]) -> None:
        """A transaction that does much and comes to nothing."""
        with contextlib.suppress(UndoneError), self.store.begin() as conn:
            self.store.dead_letters.fail(conn, sync, self.epoch, "r", failures(dict.fromkeys(keys, CODES[0])))
            self.store.dead_letters.resolve_keys(conn, sync, self.epoch, ["k0", "k1", "k2"], "delivered")
            raise UndoneError


def failures(codes: dict[int, ErrorCode]) -> list[Failure]:
    return [
        Failure(
            key=f"k{key}",
            record_keys=f'{{"id": "k{key}"}}',
            code=code,
            message="x",
            operation="upsert",
            fingerprint="f",
            rejection=True,
        )
        for key, code in codes.items()
    ]


def assert_counts(store: Store, syncs: list[str]) -> None:
    """For each sync, for both, and since every moment, as looking at each entry says."""
    store_syncs = [*syncs, None]
    for sync_id in store_syncs:
        for since in (None, *MOMENTS, *(moment - timedelta(microseconds=1) for moment in MOMENTS)):
            stats = store.dead_letters.stats(sync_id, since, among=frozenset(syncs))
            counted = plainly(store, syncs if sync_id is None else [sync_id], since)
            assert (stats.by_error_code, stats.resolved_count) == counted, (sync_id, since)
            assert stats.open_count == counted[0].total()
        if sync_id is not None:
            assert store.dead_letters.count_open(sync_id) == plainly(store, [sync_id], None)[0].total()


def plainly(store: Store, syncs: list[str], since: datetime | None) -> tuple[Counter[str], int]:
    with store.engine.connect() as conn:
        columns = (dead_letters.c.error_code, dead_letters.c.first_seen_at, dead_letters.c.resolved_at)
        rows = conn.execute(select(*columns).where(dead_letters.c.sync_id.in_(syncs))).all()
    seen = [row for row in rows if since is None or from_text(row.first_seen_at) >= since]
    opened = Counter(row.error_code for row in seen if row.resolved_at is None)
    return opened, len(seen) - opened.total()


def kept(store: Store, syncs: list[str]) -> int:
    with store.engine.connect() as conn:
        return conn.scalar(select(func.count()).where(letter_counts.c.sync_id.in_(syncs))) or 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=12))
def test_whatever_happens_counts_are_right(store: Store, operations: list[tuple[str, int, Any]]) -> None:
    desk = Desk(store)
    for name, sync, argument in operations:
        getattr(desk, "raise_" if name == "raise" else name)(desk.syncs[sync], argument)
    assert_counts(store, desk.syncs)
    for sync_id in desk.syncs:
        desk.purge(sync_id, None)
    assert kept(store, desk.syncs) == 0


def test_rows_of_counts_stay_few(store: Store) -> None:
    desk = Desk(store)
    for number in range(30):
        desk.fail(desk.syncs[0], {number: CODES[0]})
        desk.age(desk.syncs[0], (number, MOMENTS[number % 2]))
    desk.close(desk.syncs[0], list(range(20)))
    assert_counts(store, desk.syncs)
    assert kept(store, desk.syncs) == 1 + 2 + 2 + 2  # in all; two months, two days, two minutes


WRITER = """
import random, sys
from dagster_retl.errors import ErrorCode
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.store import Store

url, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
codes = [ErrorCode.CONFLICT, ErrorCode.TIMEOUT]

def failure(key):
    return Failure(key=key, record_keys="{}", code=chance.choice(codes), message="x", operation="upsert",
                   fingerprint="f", rejection=True)

with Store.open(url) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(60):
        if chance.random() < 0.5:
            with store.begin() as conn:
                for _ in range(3):  # keys of its own: two runs of one sync are never at work at once
                    keys = sorted({f"{seed}-{chance.randrange(30)}" for _ in range(5)})
                    sync = chance.choice("ab")
                    store.dead_letters.fail(conn, sync, "e", "r", [failure(key) for key in keys])
                    store.dead_letters.resolve_keys(conn, sync, "e", sorted(chance.sample(keys, 2)), "delivered")
        else:
            found = store.dead_letters.list(limit=200)  # one at a time: several would wait for a run's, and it for them
            store.dead_letters.resolve([each.id for each in chance.sample(found, min(1, len(found)))], "fixed", "ann")
"""


def test_processes_that_write_at_once_keep_counts_right(store_url: str, store: Store) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "error", "-c", WRITER, store_url]
    writers = [
        subprocess.Popen([*command, str(seed)], text=True, stdin=pipe, stdout=pipe, stderr=pipe) for seed in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=120)[1] for writer in writers] == [""] * 3
    assert plainly(store, ["a", "b"], None)[0].total() > 0
    assert plainly(store, ["a", "b"], None)[1] > 0
    assert_counts(store, ["a", "b"])


def test_on_postgres_nobody_waits_for_counts(postgres_url: str) -> None:
    with Store.open(postgres_url) as store:
        letters = store.dead_letters
        with store.begin() as conn:
            letters.fail(conn, "a", "e", "r", failures({0: CODES[0], 1: CODES[0]}))
        [_, second] = [each.id for each in letters.list()]
        with store.begin() as run, store.begin() as person:
            letters.fail(run, "a", "e", "r", failures({2: CODES[0]}))
            person.execute(text("SET LOCAL lock_timeout = '2s'"))
            letters.resolve([second], "fixed", "ann", conn=person)
            assert letters.count_open("a") == 2  # as it is committed
        assert letters.count_open("a") == 2
        assert kept(store, ["a"]) == 4 * 2  # each left what the other could not see …
        with store.begin() as conn:
            letters.fail(conn, "a", "e", "r", failures({3: CODES[0]}))
        assert kept(store, ["a"]) <= 4 * 2  # … and whoever comes next takes it up
        assert letters.count_open("a") == 3
        assert_counts(store, ["a"])


@pytest.fixture
def older_scripts(tmp_path: Path) -> str:
    """The migrations before counts."""
    folder = tmp_path / "older"
    shutil.copytree(Path(migrations.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (folder / "versions").glob("v*.py"):
        if file.name >= "v0006":
            file.unlink()
    return str(folder)


def test_an_older_store_is_counted_when_it_is_upgraded(new_url: str, older_scripts: str) -> None:
    database = Database(new_url)
    database.prepare()
    ensure_schema(database, upgrade=None, scripts=older_scripts)
    common = {
        "epoch": "e", "run_id": "r", "record_keys": "{}", "message": "x", "operation": "upsert", "attempts": 1,
        "rejections": 1, "rows": 1, "held": False, "silenced": False, "last_seen_at": to_text(MOMENTS[-1]),
    }  # fmt: skip
    rows = [
        {
            "id": f"d{number}",
            "key": f"k{number}",
            "sync_id": "ab"[number % 2],
            "error_code": CODES[number % 3].value,
            "first_seen_at": to_text(MOMENTS[number % 7]),
            "resolved_at": to_text(MOMENTS[-1]) if number % 5 else None,
        }
        for number in range(100)
    ]
    with database.begin() as conn:
        conn.execute(insert(dead_letters), [row | common for row in rows])
    database.close()
    with Store.open(new_url, upgrade=True) as store:
        assert store.dead_letters.stats().resolved_count == 80
        assert_counts(store, ["a", "b"])
        Desk(store).close("a", [0])  # and it goes on from there
        assert_counts(store, ["a", "b"])
