"""The write protocol, a rule at a time: the shortest history that goes wrong where the rule is broken."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from capricious import Capricious, Fate
from nursery import Nursery, locked
from sqlalchemy.exc import IntegrityError
from worlds import World, world

from dagster_retl.connectors.base import Connector
from dagster_retl.connectors.sql import SqlConfig, SqlConnector
from dagster_retl.engine.answers import Answer
from dagster_retl.engine.breaker import Breaker
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.delivery import Delivery, Target
from dagster_retl.engine.dispatch import Dispatch
from dagster_retl.engine.epoch import KEY_FORMS, epoch_of
from dagster_retl.engine.feed import Intents, NumberedBatch, batches_of
from dagster_retl.engine.keeper import LeaseKeeper
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.payload import DOCUMENT, MANIFEST
from dagster_retl.engine.phase import Phase
from dagster_retl.engine.recorder import Recorder
from dagster_retl.engine.transport import Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.engine.writers import HttpWriter
from dagster_retl.errors import (
    CancelledError,
    ConfigurationError,
    DestinationError,
    ErrorCode,
    GuardTrippedError,
    LeaseHeldError,
    LeaseLostError,
    RetlError,
)
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Account, Batch, Counters, KeyForm, Operation
from dagster_retl.model.runs import AccountChange, DeadLetter, Guard, RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.store.clock import to_text
from dagster_retl.store.leases import TTL
from dagster_retl.testing.fake_http import Rules
from dagster_retl.testing.rows import make_row
from dagster_retl.testing.server import Trouble

ALL_GUARDS = frozenset(Guard)
AT_ONCE = {"Retry-After": "0"}
APPLIED = Trouble(status=503, headers=AT_ONCE, apply=True)
LOST = Trouble(status=503, headers=AT_ONCE)


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad" if str(record["name"]).startswith("bad") else None


@contextlib.contextmanager
def late_world(
    folder: Path, rules: Rules | None = None, *, config: Mapping[str, Any] | None = None, **sync: Any
) -> Iterator[World]:
    """A world whose service applies requests late (`late`), or never, as its script says. Nothing settles by itself."""
    config = {"concurrency": 1, **(config or {})}
    with world(folder, rules or Rules(refuse=refuse_bad), config=config, server=Capricious, **sync) as made:
        yield made


def script(made: World, *fates: Fate) -> None:
    assert isinstance(made.http, Capricious)
    made.http.expect(fates)


def land(made: World) -> None:
    made.http.land()


def rest(made: World) -> None:
    """`settle` goes by."""
    made.settle()


def store(made: World, statement: str) -> list[Any]:
    return made.store(statement)


def run(made: World, **options: Any) -> Counters:
    return made.run(overrides=ALL_GUARDS, **options).run.counters


def letters(made: World) -> dict[Any, DeadLetter]:
    return made.letters()


def replay(made: World, letter: DeadLetter) -> Counters:
    [(_, options)] = made.service.replays([letter.id])
    return made.service.run("things", options).run.counters


def sent(made: World) -> int:
    return len(made.http.requests)


FAILING_KEY = [
    {"source": "CASE WHEN name = 'lost key' THEN CAST(name AS INTEGER) ELSE id END", "destination": "id", "key": True},
    {"source": "name", "destination": "name"},
]


class TestRule3PresentThoughFailed:
    def test_a_row_that_failed_before_it_was_sent_is_no_removal(self, tmp_path: Path) -> None:
        mappings = [FAILING_KEY[0], {"source": "CAST(name AS INTEGER)", "destination": "name"}]
        with world(tmp_path, sync_mode="mirror", field_mappings=mappings) as made:
            made.put((1, "1", 1), (2, "2", 1), (3, "3", 1))
            made.run()
            made.put((1, "one", 1))
            made.sql("INSERT INTO t VALUES (2, '22', 1)")
            assert (run(made).failed, run(made).removed) == (3, 0)
            assert sorted(made.records) == ["1", "2", "3"]

    def test_a_row_without_a_computable_key_holds_the_removals(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="mirror", field_mappings=FAILING_KEY) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.put((1, "lost key", 1))
            report = made.run()
            assert report.run.counters.removed == 0
            assert "the key of 1 rows could not be computed" in report.run.warnings[0]
            assert sorted(made.records) == ["1", "2"]

    def test_it_holds_those_of_a_replay_too(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), sync_mode="mirror", field_mappings=FAILING_KEY) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.put((1, "bad", 1))
            made.run()
            letter = letters(made)[1]
            made.put((1, "lost key", 1))
            counters = replay(made, letter)
            assert (counters.read, counters.removed) == (0, 0)
            assert sorted(made.records) == ["1", "2"]

    @pytest.mark.parametrize("mode", ["mirror", "upsert"])
    def test_nobody_says_that_a_row_left_which_may_be_there(self, tmp_path: Path, mode: str) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), sync_mode=mode, field_mappings=FAILING_KEY) as made:
            made.put((1, "bad", 1), (2, "b", 1))
            made.run()
            made.put((1, "lost key", 1))
            made.run()
            assert set(letters(made)) == {1, "MAPPING_ERROR"}

    def test_a_delete_sync_remembers_what_it_deleted(self, tmp_path: Path) -> None:
        """Another record under that key, made since, is not the one that the query names."""
        with world(tmp_path, sync_mode="delete", field_mappings=FAILING_KEY) as made:
            made.http.records["things"] = {"1": {"id": 1}}
            made.put((1, "a", 1))
            made.run()
            made.put((1, "lost key", 1))
            made.run()
            made.http.records["things"] = {"1": {"id": 1}}
            made.put((1, "a", 1))
            made.run()
            assert sorted(made.records) == ["1"]


class TestRule4Intents:
    @pytest.mark.parametrize("mode", ["upsert", "insert"])
    def test_nothing_leaves_while_its_intent_cannot_be_written_down(self, tmp_path: Path, mode: str) -> None:
        """Somebody else writes to the store when the run begins to deliver."""
        with world(tmp_path, sync_mode=mode) as made:
            made.put((1, "a", 1))
            left: list[int] = []
            busy = sqlite3.connect(tmp_path / "retl.db", isolation_level=None, check_same_thread=False)

            def let_go() -> None:
                left.append(sent(made))
                busy.execute("ROLLBACK")

            def hold(phase: Phase, counters: Counters) -> None:
                if phase is Phase.DELIVER:
                    busy.execute("BEGIN IMMEDIATE")
                    threading.Timer(0.5, let_go).start()

            with contextlib.closing(busy):
                assert made.service.run("things", on_phase=hold).run.counters.written == 1
            assert left == [0]


class TestRules5And6Suspects:
    def test_a_late_write_is_overwritten_though_the_row_is_back_at_its_old_version(self, tmp_path: Path) -> None:
        with late_world(tmp_path) as made:
            made.put((1, "A", 1))
            made.run()
            made.put((1, "B", 1))
            script(made, *["late"] * 4)
            assert run(made).failed == 1
            made.put((1, "A", 1))
            land(made)
            assert made.names() == {"1": "B"}
            assert run(made).written == 1
            assert made.names() == {"1": "A"}

    def test_an_ambiguous_attempt_leaves_a_suspect_whatever_came_after(self, tmp_path: Path) -> None:
        """B is sent, lost sight of, sent again and accepted; C is accepted; then the first B arrives."""
        with late_world(tmp_path) as made:
            made.put((1, "B", 1))
            script(made, "late", "ok")
            assert run(made).written == 1
            made.put((1, "C", 1))
            run(made)
            land(made)
            assert made.names() == {"1": "B"}
            run(made)
            assert made.names() == {"1": "C"}

    def test_an_ambiguous_attempt_that_was_then_refused_is_a_suspect(self, tmp_path: Path) -> None:
        with late_world(tmp_path) as made:
            made.put((1, "A", 1))
            made.run()
            made.put((1, "B", 1))
            script(made, "late", "ok")
            made.http.rules = Rules(refuse=lambda record: "no" if record["name"] == "B" else None)
            assert run(made).failed == 1
            made.http.rules = Rules()
            land(made)
            made.put((1, "A", 1))
            run(made)
            assert made.names() == {"1": "A"}

    def test_until_it_is_settled_each_run_sends_the_row_again_and_after_that_none(self, tmp_path: Path) -> None:
        with late_world(tmp_path) as made:
            made.put((1, "B", 1))
            script(made, "late", "ok")
            run(made)
            made.put((1, "C", 1))
            assert [run(made).written for _ in range(3)] == [1, 1, 1]
            rest(made)
            assert [run(made).written for _ in range(3)] == [1, 0, 0]
            assert store(made, "SELECT count(*) FROM suspects") == [(0,)]

    def test_a_suspect_that_could_land_when_the_next_version_was_sent_stays(self, tmp_path: Path) -> None:
        """B can land no more when C is answered, but it could when C was sent."""
        with late_world(tmp_path) as made:
            made.put((1, "B", 1))
            script(made, "late", "ok")
            run(made)
            made.put((1, "C", 1))

            def settled() -> None:
                store(made, f"UPDATE suspects SET until = '{to_text(made.service.store.now())}'")

            made.http.disturb(Trouble(before=settled))
            run(made)
            land(made)
            assert made.names() == {"1": "B"}
            run(made)
            assert made.names() == {"1": "C"}

    def test_a_suspect_that_left_the_query_is_removed_in_mirror(self, tmp_path: Path) -> None:
        """The first write of a key timed out, so that no snapshot knows it."""
        with late_world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "b", 1))
            script(made, *["late"] * 4)
            made.run(keys=({"id": 1},))
            made.sql("DELETE FROM t WHERE id = 1")
            land(made)
            assert sorted(made.records) == ["1"]
            run(made)
            assert sorted(made.records) == ["2"]

    def test_a_row_that_came_back_is_sent_where_its_removal_may_still_land(self, tmp_path: Path) -> None:
        with late_world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.sql("DELETE FROM t WHERE id = 1")
            script(made, *["late"] * 4)
            assert run(made).delete_failed == 1
            made.put((1, "a", 1))
            land(made)
            assert sorted(made.records) == ["2"]
            run(made)
            assert sorted(made.records) == ["1", "2"]

    def test_a_removal_without_an_answer_is_repeated_until_it_has_one(self, tmp_path: Path) -> None:
        with late_world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.sql("DELETE FROM t WHERE id = 1")
            script(made, *["late"] * 4)
            assert [run(made).removed for _ in range(3)] == [1, 1, 0]
            rest(made)
            run(made)
            assert store(made, "SELECT count(*) FROM suspects") == [(0,)]

    def test_the_suspects_move_with_the_snapshot_to_another_account_id(self, tmp_path: Path) -> None:
        with late_world(tmp_path) as made:
            made.put((1, "A", 1))
            made.run()
            made.put((1, "B", 1))
            script(made, *["late"] * 4)
            run(made)
            made.put((1, "A", 1))
            land(made)
            made.service.project = renamed_account(made)
            made.run(account_change=AccountChange.KEEP_SNAPSHOT)
            assert made.names() == {"1": "A"}


def renamed_account(made: World) -> Any:
    """The project, with its destination under another name of the same host."""
    config = dict(made.project.destinations["http_service"].config)
    config["url"] = config["url"].replace("127.0.0.1", "localhost")
    destination = made.project.destinations["http_service"].model_copy(update={"config": config})
    return made.project.model_copy(update={"destinations": {"http_service": destination}})


INSERTS = Rules(refuse=refuse_bad)


class TestRule8InsertsWithoutIdempotency:
    @pytest.mark.parametrize(
        "trouble",
        [
            Trouble(status=503, apply=True),
            Trouble(status=408, apply=True),
            Trouble(body=b"<html>please log in</html>"),
            Trouble(body=b"not json"),
            Trouble(reset="after"),
            Trouble(truncate=True),
        ],
        ids=["503", "408", "html", "not-json", "reset", "truncated"],
    )
    def test_without_a_clear_answer_the_rows_are_held(self, tmp_path: Path, trouble: Trouble) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.http.disturb(trouble)
            made.run()
            made.run()
            assert all(count == 1 for count in made.http.applications().values())
            assert {letter.held for letter in letters(made).values()} == {True}

    def test_a_hold_survives_other_failures_of_the_row(self, tmp_path: Path) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert", config={"settle": 0.0}) as made:
            made.put((1, "a", 1))
            made.http.disturb(APPLIED)
            made.run()
            made.sql("INSERT INTO t VALUES (1, 'twin', 1)")
            made.run()
            made.put((1, "a", 1))
            assert made.run().run.counters.skipped == 1
            assert made.http.applications() == {("things", "1"): 1}

    def test_nobody_decides_before_it_is_settled(self, tmp_path: Path) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.http.disturb(APPLIED)
            made.run()
            with pytest.raises(ConfigurationError, match="may still arrive"):
                replay(made, letters(made)[1])
            with pytest.raises(ConfigurationError, match="may still arrive"):
                made.service.resolve([letters(made)[1].id], "arrived", actor="me")

    @pytest.mark.parametrize("arrived", [True, False])
    def test_resolved_it_arrived_and_replayed_it_did_not(self, tmp_path: Path, arrived: bool) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert", config={"settle": 0.0}) as made:
            made.put((1, "a", 1))
            made.http.disturb(APPLIED if arrived else LOST)
            made.run()
            letter = letters(made)[1]
            if arrived:
                made.service.resolve([letter.id], "arrived", actor="me")
            else:
                assert replay(made, letter).written == 1
            assert made.run().run.counters.unchanged == 1
            assert made.http.applications() == {("things", "1"): 1}
            assert letters(made) == {}

    def test_a_full_refresh_sends_no_held_row(self, tmp_path: Path) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.http.disturb(APPLIED)
            made.run()
            assert made.run(full_refresh=True).run.counters.skipped == 1
            assert made.http.applications() == {("things", "1"): 1}

    def test_an_account_under_another_id_frees_no_held_row(self, tmp_path: Path) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run(keys=({"id": 2},))
            made.http.disturb(APPLIED)
            made.run()
            made.service.project = renamed_account(made)
            made.run(account_change=AccountChange.KEEP_SNAPSHOT)
            assert set(made.http.applications().values()) == {1}

    def test_an_error_that_names_no_row_is_no_refusal_of_an_insert(self, tmp_path: Path) -> None:
        """Even where the vendor rejects atomically: it answered 200, and may have taken some rows."""
        with world(tmp_path, INSERTS, sync_mode="insert", config={"atomic_rejection": True}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.http.disturb(Trouble(body=json.dumps({"errors": [{"message": "one of them"}]}).encode()))
            made.run()
            assert set(made.http.applications().values()) == {1}
            assert len(letters(made)) == 2

    def test_a_row_that_timed_out_at_the_vendor_is_held_too(self, tmp_path: Path) -> None:
        """PROTOCOL 19: the vendor says of one row that it knows no more than we do."""
        results = {"errors_path": "errors", "codes": {"SLOW": "TIMEOUT"}}
        with world(tmp_path, INSERTS, sync_mode="insert", config={"results": results}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.http.disturb(Trouble(body=json.dumps({"errors": [{"index": 0, "code": "SLOW"}]}).encode()))
            assert (made.run().run.counters.written, made.run().run.counters.skipped) == (1, 1)
            assert {key: letter.held for key, letter in letters(made).items()} == {1: True}
            assert set(made.http.applications().values()) == {1}


class TestRule1Lease:
    def test_nothing_is_read_before_the_lease_is_held(self, tmp_path: Path) -> None:
        """A query that cannot be read is no matter for a newcomer: the sync is somebody else's."""
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            sync_id = made.project.syncs[0].id
            lease = made.service.store.leases.acquire(sync_id, made.service.queue("things").id)
            broken = made.with_sync(source_query="SELECT id, nam, score FROM t")
            with broken.service:
                with pytest.raises(LeaseHeldError):
                    broken.run()
                made.service.store.leases.release(lease)
                with pytest.raises(RetlError) as caught:
                    broken.run()
            assert caught.value.code in (ErrorCode.SOURCE_QUERY, ErrorCode.SOURCE_COLUMN_MISSING)

    def test_nothing_is_sent_that_the_lease_may_not_outlast(self, tmp_path: Path) -> None:
        """A request may take 20 s; this lease ends sooner, though its holder lives."""
        with world(tmp_path, config={"timeout": 20.0}) as made:
            with pytest.raises(LeaseLostError, match="could not be extended in time"):
                deliver_under(made, ttl=19.0)
            assert sent(made) == 0
            deliver_under(made, ttl=60.0)
            assert sent(made) == 1

    @pytest.mark.parametrize(("mode", "held"), [("upsert", False), ("insert", True)])
    def test_a_lease_that_ends_between_attempts_leaves_no_row_unsaid(
        self, tmp_path: Path, mode: str, held: bool
    ) -> None:
        """The first attempt may have been applied: `not sent` would be a lie that nothing corrects."""
        with world(tmp_path, sync_mode=mode, config={**WITH_HEADER} if held else {}) as made:
            answers = send_and_lose_the_lease(made, Operation(mode))
            assert [(answer.ambiguous, answer.held) for answer in answers] == [(True, held)]
            assert sent(made) == 1


def deliver_under(made: World, *, ttl: float) -> None:
    """Deliver a batch of one row under a lease of so many seconds."""
    store, sync = made.service.store, made.project.syncs[0]
    connector = made.service.connector(made.project.destinations["http_service"])
    lease = store.leases.acquire(sync.id, store.runs.create(sync.id, sync.slug).id, ttl=ttl)
    recorder = Recorder(store, lease, epoch="e", settle=0.0, redact=Redactor(()))
    with contextlib.closing(LeaseKeeper(store, lease)) as keeper, contextlib.closing(recorder):
        target = Target(connector, "things", ("id",), "manifest", lease.run_id)
        try:
            Delivery(target, recorder, keeper, threading.Event()).run([one_row()], workers=1)
        finally:
            store.leases.release(lease)


def one_row() -> NumberedBatch:
    """A batch as it comes out of a payload."""
    row = {
        "batch": 0, "position": 0, "operation": "upsert", "removal": False, "key": '["1"]', "record_keys": '{"id":1}',
        "content": bytes(16), "record_id": None, "has_letter": False, "row_hash": None, DOCUMENT: b'{"id":1}',
    }  # fmt: skip
    table = pa.Table.from_pylist([row], schema=MANIFEST.append(pa.field(DOCUMENT, pa.binary())))
    (batch,) = batches_of([table], Intents("intent", by_key=False))
    return batch


def send_and_lose_the_lease(made: World, operation: Operation) -> list[Answer]:
    """One batch of one row: an attempt without a clear answer, and no leave for another."""
    leave = iter([None])

    def before_send() -> None:
        if next(leave, "no") == "no":
            raise LeaseLostError("it is somebody else's")

    made.http.disturb(APPLIED)
    connector = made.service.connector(made.project.destinations["http_service"])
    assert isinstance(connector, Connector)
    stop = threading.Event()
    transport = Transport(connector, auth=None, turns=Turns(Pacer(None), stop, Gate(1), before_send))
    batch = Batch("things", operation, [make_row({"id": 1, "name": "a"})], ("id",), "intent")
    dispatch = Dispatch(batch, HttpWriter(connector, transport), connector, Breaker(10), stop)
    answers = dispatch.send()
    assert isinstance(dispatch.abort, LeaseLostError)
    transport.close()
    return answers


class TestRule7Recovery:
    """A run is killed with a request on its way that is applied (or not) when nobody waits for it any more."""

    @pytest.mark.parametrize("fate", ["kill", "kill_applied", "kill_late"])
    def test_what_was_on_its_way_is_sent_again(self, tmp_path: Path, nursery: Nursery, fate: Fate) -> None:
        with late_world(tmp_path, config={"batch_rows": 1}) as made:
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            kill(made, nursery, "ok", fate)
            counters = run(made)
            assert counters.unchanged + counters.written == 3
            killed = made.service.runs()[1]
            assert (killed.status, killed.error_code) == (RunStatus.FAILED, "INTERRUPTED")
            # The first answer may not be on record yet, and batches are marked as started a little ahead.
            assert killed.counters.written == counters.unchanged <= 1
            assert killed.counters.unknown + killed.counters.skipped + killed.counters.written == 3
            assert killed.counters.unknown >= 1

    def test_it_is_folded_before_anything_is_read(self, tmp_path: Path, nursery: Nursery) -> None:
        """The next run cannot read its query: the killed one is closed, and what it delivered is remembered."""
        with late_world(tmp_path, config={"batch_rows": 1}) as made:
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            kill(made, nursery, "ok", "ok", "kill")
            broken = made.with_sync(source_query="SELECT id, nam, score FROM t")
            with broken.service, pytest.raises(RetlError):
                broken.run()
            killed = made.service.runs()[1]
            assert killed.error_code == "INTERRUPTED"
            # A worker has one unwritten answer at most, so that the first one of two is on record.
            assert killed.counters.written in (1, 2)
            assert store(made, "SELECT count(*) FROM batches") == [(0,)]
            assert made.service.store.snapshots.pointer(made.project.syncs[0].id).rows == killed.counters.written

    def test_it_is_a_suspect(self, tmp_path: Path, nursery: Nursery) -> None:
        """B is on its way when the run dies, A is true again before anybody ran, and then B arrives."""
        with late_world(tmp_path) as made:
            made.put((1, "A", 1))
            made.run()
            made.put((1, "B", 1))
            kill(made, nursery, "kill_late")
            made.put((1, "A", 1))
            land(made)
            assert run(made).written == 1
            assert made.names() == {"1": "A"}

    @pytest.mark.parametrize("fate", ["kill", "kill_applied", "kill_late"])
    def test_an_insert_is_held(self, tmp_path: Path, nursery: Nursery, fate: Fate) -> None:
        with late_world(tmp_path, sync_mode="insert", config={"batch_rows": 1}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            kill(made, nursery, fate)
            assert (run(made).skipped, run(made).skipped) == (1, 1)
            assert {key: letter.held for key, letter in letters(made).items()} == {1: True}
            land(made)
            assert max(made.http.applications().values()) == 1


def kill(made: World, nursery: Nursery, *fates: Fate) -> None:
    begin(made, nursery, *fates)
    assert nursery.end().killed


def begin(made: World, nursery: Nursery, *fates: Fate) -> Capricious:
    """Start a run in a process of its own, to which the service does what the script says."""
    script(made, *fates)
    assert isinstance(made.http, Capricious)
    settings = dict(made.project.destinations["http_service"].config)
    sync = made.project.syncs[0].model_dump(exclude_unset=True, mode="json")
    made.http.meet(nursery.begin(made.project.base, made.http.url, config=settings, sync=sync))
    return made.http


def marked(made: World) -> int:
    """How many batches may be on their way."""
    return int(store(made, "SELECT count(*) FROM batches WHERE started_at IS NOT NULL")[0][0])


def test_a_run_that_lost_its_lease_writes_nothing_down_but_what_it_sent(tmp_path: Path, nursery: Nursery) -> None:
    """Rule 6: it stood still for so long that all doubts about its request were settled; then that arrives."""
    with late_world(tmp_path) as made:
        made.put((1, "B", 1))
        http = begin(made, nursery, "pause")
        assert http.paused.wait(10)
        while locked(made.project.base / "retl.db"):  # it was stopped inside a transaction: it may go on for a moment
            http.stir()
        store(made, "UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'")
        made.put((1, "C", 1))
        run(made)
        rest(made)
        assert [run(made).written, run(made).written] == [1, 0]
        http.resume()
        assert nursery.end().error == "LEASE_LOST"
        assert made.names() == {"1": "B"}
        assert run(made).written == 1
        assert made.names() == {"1": "C"}


@pytest.mark.long
def test_a_run_whose_lease_ran_out_sends_not_even_what_it_marked_ahead(tmp_path: Path, nursery: Nursery) -> None:
    """Rule 1, in real time: for what is marked already it asks no store, only its own clock."""
    with late_world(tmp_path, config={"batch_rows": 1, "concurrency": 1}) as made:
        made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
        http = begin(made, nursery, "pause")
        assert http.paused.wait(10)
        while locked(made.project.base / "retl.db") or (started := marked(made)) == 1:
            http.stir()
        time.sleep(TTL + 1)
        made.put((1, "A", 1), (2, "B", 1), (3, "C", 1))
        run(made)
        rest(made)
        assert [run(made).written, run(made).written] == [started, 0]
        asked = sent(made)
        http.resume()
        assert nursery.end().error == "LEASE_LOST"
        assert sent(made) == asked
        assert made.names() == {"1": "a", "2": "B", "3": "C"}
        assert run(made).written == 1
        assert made.names() == {"1": "A", "2": "B", "3": "C"}


def test_a_run_that_was_told_to_stop_waits_for_no_rate_limit(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.http.disturb(Trouble(status=429, headers={"Retry-After": "0.05"}), times=500)
        stop = threading.Event()
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(CancelledError):
            made.service.run("things", stop=stop)
        assert sent(made) < 50
        counters = made.service.runs()[0].counters
        assert (counters.skipped, counters.failed, letters(made)) == (1, 0, {})


class TestRule9Commit:
    @pytest.mark.parametrize(
        "refused",
        [
            "UPDATE ON snapshots WHEN NEW.generation IS NOT NULL",
            "DELETE ON batches",
            "UPDATE ON runs WHEN NEW.status = 'succeeded'",
            "UPDATE ON leases WHEN NEW.run_id IS NULL",
        ],
    )
    def test_all_that_ends_a_run_happens_or_nothing(self, tmp_path: Path, refused: str) -> None:
        with world(tmp_path, config={"batch_rows": 1}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            assert made.service.runs() == []  # the store is made at its first use
            store(made, f"CREATE TRIGGER refused BEFORE {refused} BEGIN SELECT RAISE(ABORT, 'refused'); END")
            with pytest.raises(IntegrityError, match="refused"):
                made.run()
            assert store(made, "SELECT generation FROM snapshots") == [(None,)]
            assert store(made, "SELECT count(*) FROM batches") == [(2,)]
            assert made.service.runs()[0].status is not RunStatus.SUCCEEDED
            store(made, "DROP TRIGGER refused")
            store(made, "UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z'")
            assert made.run().run.counters.unchanged == 2
            assert made.service.runs()[1].counters.written == 2

    def test_an_aborted_run_is_folded(self, tmp_path: Path) -> None:
        """S14: what was accepted before a quota ran out is not inserted again."""
        with world(tmp_path, INSERTS, sync_mode="insert", config={"batch_rows": 1, "concurrency": 1}) as made:
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            made.http.disturb(Trouble(status=402), where=lambda request: b'"b"' in request.body)
            with pytest.raises(DestinationError):
                made.run()
            counters = made.service.runs()[0].counters
            assert (counters.written, counters.skipped) == (1, 2)
            assert made.run().run.counters.written == 2
            assert set(made.http.applications().values()) == {1}

    def test_missing_state_is_not_an_empty_snapshot(self, tmp_path: Path) -> None:
        """S7."""
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.run()
            for file in (tmp_path / "state").rglob("g-*"):
                file.unlink()
            with pytest.raises(RetlError) as caught:
                made.run()
            assert caught.value.code is ErrorCode.STATE_MISSING
            assert made.http.applications() == {("things", "1"): 1}


class TestRule10Epoch:
    def test_another_object_starts_empty(self, tmp_path: Path) -> None:
        """S9."""
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            made.run()
            with made.with_sync(object_name="others").service as service:
                assert service.run("things").run.counters.written == 1

    def test_an_insert_that_would_start_empty_stops(self, tmp_path: Path) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.run()
            moved = made.with_sync(object_name="others")
            with moved.service, pytest.raises(ConfigurationError, match="insert every row again"):
                moved.run()
            assert made.http.applications() == {("things", "1"): 1}

    def test_between_deleting_and_writing_nothing_is_taken_along(self, tmp_path: Path) -> None:
        """What a `delete` sync deleted and others made again since is nothing that a `mirror` sync delivered."""
        with world(tmp_path, sync_mode="delete") as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.http.records["things"] = {"1": {"id": 1}, "2": {"id": 2}}
            made.sql("DELETE FROM t WHERE id = 1")
            mirror = made.with_sync(sync_mode="mirror")
            with mirror.service:
                assert run(mirror).removed == 0
            assert sorted(made.records) == ["1", "2"]

    def test_it_is_connector_account_object_key_and_kind_of_writing(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            connector = made.service.connector(made.project.destinations["http_service"])
            sync, account, form = made.project.syncs[0], Account("1", "one"), KeyForm()
            epoch = epoch_of(sync, connector, account, form)
            assert epoch == epoch_of(sync, connector, Account("1", "another name"), form)
            others = [{"object_name": "others"}, {"sync_mode": "delete"}, {"field_mappings": keyed_by("id", "name")}]
            epochs = {epoch, epoch_of(sync, connector, Account("2", "one"), form)}
            epochs |= {epoch_of(edited(sync, **changes), connector, account, form) for changes in others}
            epochs |= {epoch_of(sync, connector, account, form) for form in KEY_FORMS}
            other = SqlConnector(SqlConfig(url="sqlite:///x.db"))
            epochs.add(epoch_of(sync, other, account, form))
            assert len(epochs) == 9
            for changes in ({"sync_mode": "mirror"}, {"field_mappings": keyed_by("id")}, {"source_query": "SELECT 1"}):
                assert epoch_of(edited(sync, **changes), connector, account, form) == epoch


def edited(sync: Sync, **changes: Any) -> Sync:
    return Sync(**{**sync.model_dump(exclude_unset=True), **changes})


def keyed_by(*names: str) -> list[dict[str, Any]]:
    return [{"source": name, "destination": name, "key": True} for name in names]


class TestRule11FullRefresh:
    def test_one_that_stopped_is_finished_by_the_next_run(self, tmp_path: Path) -> None:
        with world(tmp_path, config={"batch_rows": 1, "concurrency": 1}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.records.clear()
            made.http.records.clear()
            made.http.disturb(Trouble(status=401), where=lambda request: b'"b"' in request.body)
            with pytest.raises(DestinationError):
                made.run(full_refresh=True)
            assert made.names() == {"1": "a"}
            assert made.run().run.counters.written == 1
            assert made.names() == {"1": "a", "2": "b"}

    def test_one_that_could_not_read_is_finished_by_the_next_run(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            broken = made.with_sync(source_query="SELECT id, nam, score FROM t")
            with broken.service, pytest.raises(RetlError):
                broken.run(full_refresh=True)
            assert made.run().run.counters.written == 2

    def test_it_is_kept_when_the_account_gets_another_id(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            made.put((1, "a", 1))
            made.run()
            made.service.project = renamed_account(made)
            report = made.run(full_refresh=True, account_change=AccountChange.KEEP_SNAPSHOT)
            assert report.run.counters.written == 1


class TestRule13DeadLetters:
    def test_back_at_the_accepted_version_it_closes(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad)) as made:
            made.put((1, "a", 1))
            made.run()
            made.put((1, "bad", 1))
            made.run()
            letter = letters(made)[1]
            made.put((1, "a", 1))
            made.run()
            assert made.service.dead_letter(letter.id).resolution == "reverted"

    def test_a_key_that_left_closes_it_unless_its_removal_is_due(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "bad", 1), (3, "c", 1))
            made.run()
            made.put((1, "bad", 1))
            made.run()
            first, second = letters(made)[1], letters(made)[2]
            made.sql("DELETE FROM t WHERE id < 3")
            made.http.disturb(Trouble(status=400), where=lambda request: request.method == "DELETE")
            run(made)
            assert set(letters(made)) == {1}
            assert made.service.dead_letter(second.id).resolution == "source_row_missing"
            run(made)
            assert made.service.dead_letter(first.id).resolution == "delivered"
            assert sorted(made.records) == ["3"]

    def test_a_partial_run_says_of_nobody_that_it_left(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad)) as made:
            made.put((1, "bad", 1), (2, "b", 1))
            made.run()
            made.sql("DELETE FROM t WHERE id = 1")
            made.run(limit=1)
            made.run(keys=({"id": 2},))
            assert set(letters(made)) == {1}

    def test_rows_without_a_key_are_one_entry(self, tmp_path: Path) -> None:
        with world(tmp_path) as made:
            for count in (2, 3, 1):
                made.sql("DELETE FROM t")
                made.sql("INSERT INTO t SELECT NULL, 'x', 1 FROM range(?)", [count])
                made.run()
                assert [(letter.error_code, letter.rows) for letter in letters(made).values()] == [
                    ("MISSING_KEY", count)
                ]
            made.sql("DELETE FROM t")
            made.run()
            assert letters(made) == {}

    def test_a_silenced_version_is_silent_no_more_once_the_row_was_another(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad)) as made:
            made.put((1, "a", 1))
            made.run()
            made.put((1, "bad", 1))
            made.run()
            made.service.resolve([letters(made)[1].id], "skipped", actor="me")
            assert made.run().run.counters.skipped == 1
            made.put((1, "a", 1))
            assert made.run().run.counters.unchanged == 1
            made.put((1, "bad", 1))
            assert made.run().run.counters.failed == 1


class TestRule14Parking:
    def test_outages_never_park(self, tmp_path: Path) -> None:
        with world(tmp_path, config={"batch_rows": 1}, max_attempts=2) as made:
            made.put((1, "a", 1))
            for _ in range(3):
                made.http.disturb(LOST, times=4)
                assert made.run().run.counters.failed == 1
            assert made.run().run.counters.written == 1

    def test_another_version_starts_again(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), max_attempts=2) as made:
            for name in ("bad", "bad", "bad too", "bad"):
                made.put((1, name, 1))
                assert made.run().run.counters.failed == 1
            assert made.run().run.counters.failed == 1
            assert made.run().run.counters.skipped == 1

    @pytest.mark.parametrize("how", ["replay", "refresh", "resolve"])
    def test_a_person_starts_it_again(self, tmp_path: Path, how: str) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad), max_attempts=1) as made:
            made.put((1, "bad", 1))
            made.run()
            assert made.run().run.counters.skipped == 1
            made.http.rules = Rules()
            if how == "resolve":
                made.service.resolve([letters(made)[1].id], "fixed_destination", actor="me")
            counters = (
                replay(made, letters(made)[1])
                if how == "replay"
                else made.run(full_refresh=how == "refresh").run.counters
            )
            assert counters.written == 1


class TestRule15NotFound:
    def test_a_removal_of_what_is_gone_is_done(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            made.http.records["things"].pop("1")
            made.sql("DELETE FROM t WHERE id = 1")
            assert run(made).deleted == 1
            assert letters(made) == {}

    @pytest.mark.parametrize("on_missing", ["skip", "fail"])
    def test_an_update_that_found_nothing_forgets_what_was_accepted(self, tmp_path: Path, on_missing: str) -> None:
        """S13: A is accepted, others delete the record, B finds nothing; A again is not `unchanged`."""
        rules = Rules(operations={"PATCH": "update"})
        config = {"method": "PATCH", "body": "object", "results": None, "batch_rows": None}
        with world(tmp_path, rules, sync_mode="update", on_missing=on_missing, config=config) as made:
            made.http.records["things"] = {"1": {"id": 1}}
            made.put((1, "A", 1))
            made.run()
            made.http.records["things"].clear()
            made.put((1, "B", 1))
            made.run()
            made.put((1, "A", 1))
            counters = made.run().run.counters
            assert (counters.unchanged, counters.skipped + counters.failed) == (0, 1)
            made.http.records["things"] = {"1": {"id": 1}}
            assert made.run().run.counters.written == 1

    def test_records_that_are_not_there_stop_no_run(self, tmp_path: Path) -> None:
        """As many as would, were they refused."""
        rules = Rules(operations={"PATCH": "update"})
        config = {"method": "PATCH", "body": "object", "results": None, "batch_rows": None}
        with world(tmp_path, rules, sync_mode="update", config=config) as made:
            made.sql("INSERT INTO t SELECT n, 'x', 1 FROM range(120) r(n)")
            assert made.run().run.counters.skipped == 120


class TestRule16Balance:
    def test_failed_rows_are_those_of_the_dead_letters(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(refuse=refuse_bad)) as made:
            made.sql("INSERT INTO t VALUES (NULL, 'x', 1), (NULL, 'y', 1), (7, 'p', 1), (7, 'q', 2), (8, 'bad', 1)")
            counters = made.run().run.counters
            assert counters.failed == sum(letter.rows for letter in letters(made).values()) == 5

    def test_a_tripped_guard_opens_no_dead_letter(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1))
            made.run()
            made.sql("DELETE FROM t")
            made.sql("INSERT INTO t VALUES (NULL, 'x', 1)")
            with pytest.raises(GuardTrippedError):
                made.run()
            assert letters(made) == {}

    def test_an_empty_result_that_somebody_accepted_is_what_the_next_run_compares_with(self, tmp_path: Path) -> None:
        with world(tmp_path, sync_mode="mirror") as made:
            made.put((1, "a", 1))
            made.run()
            made.sql("DELETE FROM t")
            run(made)
            assert made.run().run.status is RunStatus.SUCCEEDED


class TestRule17KeyIdentity:
    def test_a_key_of_another_number_type_is_the_same_key(self, tmp_path: Path) -> None:
        """S3."""
        with world(tmp_path, sync_mode="mirror") as made:
            made.put((42, "a", 1))
            made.run()
            retyped = made.with_sync(source_query="SELECT id::DECIMAL(12, 1) AS id, name, score FROM t")
            with retyped.service:
                assert run(retyped).removed == 0
            texts = made.with_sync(source_query="SELECT id::VARCHAR AS id, name, score FROM t")
            with texts.service:
                assert run(texts).removed == 0
            assert sorted(made.records) == ["42"]

    def test_equal_keys_of_other_looks_are_duplicates(self, tmp_path: Path) -> None:
        with world(tmp_path, source_query="SELECT id::VARCHAR AS id, name, score FROM t UNION ALL "
                   "SELECT id::DECIMAL(12, 1)::INTEGER::VARCHAR, 'twin', 1 FROM t") as made:  # fmt: skip
            made.put((42, "a", 1))
            assert made.run().run.counters.failed == 2
            assert letters(made)["42"].error_code == "DUPLICATE_SOURCE_KEY"


HEADER = Rules(refuse=refuse_bad, idempotency_header="Idempotency-Key")
WITH_HEADER = {"idempotency_header": "Idempotency-Key"}
SINGLE = {"body": "object", "results": None, "batch_rows": None}


class TestRule18IdempotencyKeys:
    def test_the_same_content_again_is_another_intent(self, tmp_path: Path) -> None:
        """S4: A, B, and A again."""
        with world(tmp_path, HEADER, config={**WITH_HEADER, **SINGLE}) as made:
            for name in ("A", "B", "A"):
                made.put((1, name, 1))
                made.run()
                assert made.names() == {"1": name}

    def test_a_run_that_goes_on_after_a_failure_has_other_intents(self, tmp_path: Path) -> None:
        """A step that Dagster retries keeps its run; its batches are not those of the attempt before."""
        with world(tmp_path, HEADER, config={**WITH_HEADER, "batch_rows": 1, "concurrency": 1}) as made:
            made.put((1, "A", 1), (2, "b", 1))
            made.http.disturb(Trouble(status=401), where=lambda request: b'"b"' in request.body)
            queued = made.service.queue("things")
            with pytest.raises(DestinationError):
                made.service.run("things", run_id=queued.id)
            made.put((1, "B", 1))
            made.service.run("things", run_id=queued.id)
            assert made.names() == {"1": "B", "2": "b"}

    def test_an_insert_of_one_row_is_sent_again_under_its_own_key(self, tmp_path: Path) -> None:
        """Though another row stands in its place by then."""
        with world(tmp_path, HEADER, sync_mode="insert", config={**WITH_HEADER, **SINGLE}) as made:
            made.put((1, "a", 1))
            made.http.disturb(APPLIED, times=4)
            assert made.run().run.counters.failed == 1
            made.sql("DELETE FROM t")
            made.put((0, "new", 1), (1, "a", 1))
            assert made.run().run.counters.written == 2
            assert made.http.applications() == {("things", "1"): 1, ("things", "0"): 1}

    def test_a_key_for_many_rows_counts_within_its_run_only(self, tmp_path: Path) -> None:
        """S5: the next run cuts other batches, so that their keys say nothing of rows sent before."""
        with world(tmp_path, HEADER, sync_mode="insert", config={**WITH_HEADER, "batch_rows": 2}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.http.disturb(APPLIED, times=4)
            made.run()
            made.put((0, "new", 1))
            made.run()
            assert set(made.http.applications().values()) == {1}
            assert {key: letter.held for key, letter in letters(made).items()} == {1: True, 2: True}

    def test_a_part_of_a_batch_has_a_key_of_its_own(self, tmp_path: Path) -> None:
        """Under the key of the whole, only the first part would arrive."""
        rules = Rules(refuse=refuse_bad, refusals="whole", idempotency_header="Idempotency-Key")
        with world(tmp_path, rules, config={**WITH_HEADER, "batch_rows": 4}) as made:
            made.put((1, "a", 1), (2, "bad", 1), (3, "c", 1), (4, "d", 1))
            counters = made.run().run.counters
            assert (counters.written, counters.failed) == (3, 1)
            assert made.names() == {"1": "a", "3": "c", "4": "d"}

    def test_within_its_run_it_makes_a_second_attempt_safe(self, tmp_path: Path) -> None:
        with world(tmp_path, HEADER, sync_mode="insert", config={**WITH_HEADER, "batch_rows": 2}) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.http.disturb(APPLIED, times=2)
            assert made.run().run.counters.written == 2
            assert set(made.http.applications().values()) == {1}


class TestRule21FingerprintScope:
    def test_a_changed_null_policy_changes_the_row(self, tmp_path: Path) -> None:
        """S12."""
        mappings = [
            {"source": "id", "destination": "id", "key": True},
            {"source": "name", "destination": "name", "on_null": "omit"},
        ]
        with world(tmp_path, field_mappings=mappings) as made:
            made.put((1, "a", 1))
            made.run()
            made.put((1, None, 1))
            made.run()
            assert made.names() == {"1": "a"}
            sends = made.with_sync(field_mappings=[mappings[0], {"source": "name", "destination": "name"}])
            with sends.service:
                assert sends.run().run.counters.written == 1
            assert made.names() == {"1": None}

    def test_a_changed_mapping_stops_an_insert_without_a_key(self, tmp_path: Path) -> None:
        """S10: identity is the fingerprint, so that every row would be new."""
        mappings = [{"source": "id", "destination": "id"}, {"source": "name", "destination": "name"}]
        with world(tmp_path, sync_mode="insert", field_mappings=mappings) as made:
            made.put((1, "a", 1), (2, "b", 1))
            made.run()
            wider = made.with_sync(field_mappings=[*mappings, {"source": "score", "destination": "score"}])
            with wider.service:
                with pytest.raises(ConfigurationError, match="insert every row again"):
                    wider.run()
                assert set(made.http.applications().values()) == {1}
                assert wider.run(full_refresh=True).run.counters.written == 2

    def test_a_changed_mapping_of_an_insert_with_a_key_sends_nothing(self, tmp_path: Path) -> None:
        with world(tmp_path, INSERTS, sync_mode="insert") as made:
            made.put((1, "a", 1))
            made.run()
            narrower = made.with_sync(field_mappings=[{"source": "id", "destination": "id", "key": True}])
            with narrower.service:
                assert narrower.run().run.counters.skipped == 1


def test_nothing_is_sent_before_the_last_row_was_read(tmp_path: Path) -> None:
    """Rule 2, S11: the duplicate comes last."""
    with world(tmp_path) as made:
        made.sql("INSERT INTO t SELECT n, 'x', 1 FROM range(3000) r(n)")
        made.sql("INSERT INTO t VALUES (0, 'twin', 1)")
        made.run()
        assert "0" not in made.records
        assert len(made.records) == 2999


def test_the_ledger_of_a_dead_run_folds_into_its_own_epoch(tmp_path: Path) -> None:
    """Rule 10, S8: the key is another one since; the old keys must not look like removals."""
    with world(tmp_path, sync_mode="mirror", config={"batch_rows": 1, "concurrency": 1}) as made:
        made.put((1, "a", 1), (2, "b", 1))
        made.http.disturb(Trouble(status=401), where=lambda request: b'"b"' in request.body)
        with pytest.raises(DestinationError):
            made.run()
        by_name = made.with_sync(
            field_mappings=[
                {"source": "id", "destination": "id"},
                {"source": "name", "destination": "name", "key": True},
            ]
        )
        with by_name.service:
            assert by_name.run().run.counters.removed == 0


def test_a_limit_reads_everything(tmp_path: Path) -> None:
    """Rule 2: what is cut is what is sent."""
    with world(tmp_path, sync_mode="mirror") as made:
        made.put((1, "a", 1), (2, "b", 1))
        made.run()
        made.sql("INSERT INTO t VALUES (2, 'twin', 1)")
        counters = made.service.run("things", RunOptions(limit=1)).run.counters
        assert (counters.read, counters.failed, counters.removed) == (3, 2, 0)
