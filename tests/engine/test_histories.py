"""Random histories of a sync, against promises that no history may break (docs/protocol.md).

Rows come, change, go, are duplicated, lose their key or cannot be mapped; the service refuses some,
and requests get lost, are applied without an answer, or are applied late; runs are killed at any
moment, overtaken, limited, replayed; people decide about dead letters, and edit the sync. After all that,
and a time of rest, ordinary runs must make the destination what the query says.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from capricious import Capricious, Fate, Sent
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from nursery import Nursery, locked
from worlds import project_of

from dagster_retl.errors import RetlError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import DeadLetter, Guard, Run, RunOptions, RunStatus
from dagster_retl.service import Service
from dagster_retl.store.runs import options_to_json
from dagster_retl.testing.fake_http import Rules

KEYS = st.integers(1, 3)
NAMES = st.sampled_from(["a", "b", "c", "bad", "broken", "lost key"])
PATIENCE = 0.15
ALL_GUARDS = frozenset(Guard)

FATES = st.sampled_from(
    ["ok", "ok", "ok", "lost", "applied", "applied", "late", "late", "reset", "reset_applied", "html", "slow"]
)
TROUBLES = st.one_of(
    st.just([]),
    st.lists(FATES, max_size=4),
    st.tuples(st.sampled_from(["lost", "applied", "late"]), st.sampled_from([4, 8])).map(lambda t: [t[0]] * t[1]),
    st.tuples(st.lists(FATES, max_size=2), st.just(["locked_out"])).map(lambda t: t[0] + t[1]),
)
KILLS = st.tuples(st.lists(FATES, max_size=3), st.sampled_from(["kill", "kill_applied", "kill_late"])).map(
    lambda t: [*t[0], t[1]]
)


@dataclass(frozen=True)
class Kind:
    """What varies between the syncs that histories are about, and what people edit in them.

    header: inserts carry an idempotency key. plain: the key is a column, which may be null; otherwise an
    expression, which may fail. upper: names are sent in upper case. two_keys: a second field, always 1,
    belongs to the key.
    """

    mode: str
    refusals: str = "partial"
    one_by_one: bool = False
    header: bool = False
    concurrency: int = 1
    detection: Any = "snapshot"
    plain: bool = False
    upper: bool = False
    two_keys: bool = False

    @property
    def inserts(self) -> bool:
        return self.mode == "insert"

    @property
    def modes(self) -> list[str]:
        """The modes that people may change it to."""
        return ["upsert", "update", *(["mirror"] if self.detection == "snapshot" else [])]

    def key(self, key: int) -> dict[str, int]:
        return {"id": key, "region": 1} if self.two_keys else {"id": key}

    @property
    def rules(self) -> Rules:
        return Rules(
            refuse=lambda record: "that is bad" if record["name"].lower() == "bad" else None,
            refusals=self.refusals,  # type: ignore[arg-type]  # one of its two words
            operations={"POST": "update" if self.mode == "update" else "upsert"},
            idempotency_header="Idempotency-Key" if self.header else None,
            remembers_refusals=False,
        )

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the destination; nothing is settled before `History.rest` says so."""
        single = {"body": "object", "results": None, "batch_rows": None} if self.one_by_one else {"batch_rows": 2}
        header = {"idempotency_header": "Idempotency-Key"} if self.header else {}
        return {**single, **header, "timeout": PATIENCE, "settle": 900.0, "concurrency": self.concurrency}

    @property
    def sync(self) -> dict[str, Any]:
        """The key and a field of some rows cannot be computed."""
        key = "id" if self.plain else _failing("lost key", "id")
        return {
            "sync_mode": self.mode,
            "max_attempts": 2,
            "source_query": "SELECT id, name, score, region, changed FROM t",
            "change_detection": self.detection,
            "field_mappings": [
                {"source": key, "destination": "id", "key": True},
                {"source": "upper(name)" if self.upper else "name", "destination": "name"},
                {"source": _failing("broken", "score"), "destination": "score"},
                {"source": "region", "destination": "region", "key": self.two_keys},
            ],
        }


def _failing(name: str, otherwise: str) -> str:
    return f"CASE WHEN name = '{name}' THEN CAST(name AS INTEGER) ELSE {otherwise} END"


KINDS = [
    Kind("mirror"),
    Kind("mirror", refusals="whole", concurrency=2),
    Kind("upsert", refusals="whole", header=True),
    Kind("insert"),
    Kind("insert", one_by_one=True, header=True),
    Kind("insert", header=True),
    Kind("update", one_by_one=True),
    Kind("delete"),
    Kind("upsert", detection={"watermark": "changed"}, plain=True),
    Kind("upsert", detection={"watermark": "changed"}, concurrency=2),
    Kind("insert", detection={"watermark": "changed"}, plain=True),
    Kind("update", detection={"watermark": "changed"}, plain=True, one_by_one=True),
    Kind("upsert", detection="none"),
]


@dataclass
class Table:
    """The warehouse's table: id → the names of its rows; and rows without an id. plain, upper: see `Kind`."""

    rows: dict[int, list[str]] = field(default_factory=dict)
    nulls: int = 0
    plain: bool = False
    upper: bool = False

    def write(self, path: Path, changed: Mapping[int | None, int]) -> None:
        """changed: key → when its rows changed last, which is their cursor."""
        values: list[tuple[int | None, str, int]] = [
            (None if self.plain and name == "lost key" else k, name, changed[k])
            for k, names in self.rows.items()
            for name in names
        ]
        values += [(None, "a", changed[None])] * self.nulls
        with duckdb.connect(str(path)) as connection:
            connection.execute(
                "CREATE OR REPLACE TABLE t "
                "(id BIGINT, name VARCHAR, score DECIMAL(12, 2), region INTEGER, changed BIGINT)"
            )
            for row in values:
                connection.execute("INSERT INTO t VALUES (?, ?, 1, 1, ?)", row)

    @property
    def without_key(self) -> int:
        """Rows whose key is null."""
        return self.nulls + (self._lost if self.plain else 0)

    @property
    def identified(self) -> dict[int, list[str]]:
        """The rows by the key that can be computed for them."""
        kept = {k: [name for name in names if name != "lost key"] for k, names in self.rows.items()}
        return {k: names for k, names in kept.items() if names}

    @property
    def unidentified(self) -> int:
        """Rows whose key cannot be computed."""
        return 0 if self.plain else self._lost

    @property
    def _lost(self) -> int:
        return sum(name == "lost key" for names in self.rows.values() for name in names)

    def sendable(self) -> dict[int, str]:
        """Key → name, of the rows that get as far as the wire."""
        single = {k: names[0] for k, names in self.identified.items() if len(names) == 1}
        return {k: name.upper() if self.upper else name for k, name in single.items() if name != "broken"}

    def copy(self) -> Table:
        return replace(self, rows={k: list(names) for k, names in self.rows.items()})


class History:
    """One sync, its source, its service, and what happened to them."""

    def __init__(self, kind: Kind, folder: Path, http: Capricious) -> None:
        self.kind = kind
        self.folder = folder
        self.http = http
        self.http.sent = self._saw
        self.table = Table(plain=kind.plain)
        self.written: dict[int | None, list[str]] = {}
        self.changed: dict[int | None, int] = {}
        self.edited = False
        self.forgotten: set[int] = set()
        self.read_by_last = Table()
        self.read_by: dict[str, Table] = {}
        self.violations: list[str] = []
        self.decided: dict[int, set[str]] = {}
        self.sent: list[Sent] = []
        self.service = Service(self.project)
        self.fenced_off = False
        if kind.mode in ("update", "delete"):
            self.records.update({str(k): {"id": k, "name": "old"} for k in (1, 2)})

    @property
    def project(self) -> Project:
        return project_of(self.folder, self.http.url, config=self.kind.config, **self.kind.sync)

    @property
    def records(self) -> dict[str, Mapping[str, Any]]:
        return self.http.records.setdefault("things", {})

    @property
    def applied(self) -> Counter[int]:
        return Counter(int(change.key) for change in self.http.applied)

    # What happens

    def read(self) -> None:
        """A run is about to read the table."""
        self._change_cursors()
        self.table.write(self.folder / "warehouse.duckdb", self.changed)
        self.read_by_last = self.table.copy()

    def _change_cursors(self) -> None:
        """Whatever changed since the table was written has a cursor above all others."""
        rows = {**self.table.rows, None: ["a"] * self.table.nulls}
        for key, names in rows.items():
            if names != self.written.get(key):
                self.changed[key] = max(self.changed.values(), default=0) + 1
        self.written = {key: list(names) for key, names in rows.items()}

    def edit(self, **changes: Any) -> None:
        """Somebody edits the sync between two runs.

        With another key it begins anew: it knows nothing any more of what is under way, or to be removed.
        """
        self.edited = True
        if changes.get("two_keys", self.kind.two_keys) != self.kind.two_keys:
            self.rest()
            self.forgotten |= set(map(int, self.records))
        self.kind = replace(self.kind, **changes)
        self.table.upper = self.kind.upper
        self.http.rules = self.kind.rules
        self.service.project = self.project

    def run(self, troubles: Sequence[Fate] = (), **options: Any) -> RetlError | None:
        """A run in this process. Returns what ended it early."""
        self.read()
        self.http.expect(troubles)
        error = None
        try:
            self.service.run("things", RunOptions(overrides=ALL_GUARDS, **options))
        except RetlError as raised:
            error = raised
        self.http.calm()
        self._finished(error.code if error else None)
        return error

    def run_elsewhere(self, nursery: Nursery, troubles: Sequence[Fate], **how: Any) -> None:
        """A run in a process of its own, which may be killed. how: see `begin`."""
        self.begin(nursery, troubles, **how)
        self.end(nursery)

    def end(self, nursery: Nursery) -> None:
        ended = nursery.end()
        self.http.expect([])
        if ended.killed:
            self._remember_run()
            self.check()
        else:
            self._finished(ended.error)

    def begin(
        self,
        nursery: Nursery,
        troubles: Sequence[Fate],
        *,
        die_at: int | None = None,
        wipe: bool = False,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Start a run in a process of its own, with other settings (`config`) than the kind's if need be.

        die_at: see the nursery; wipe: see the service.
        """
        self.read()
        self.http.expect(troubles, wipe=wipe)
        how = {
            "config": {**self.kind.config, **(config or {})},
            "sync": self.kind.sync,
            "options": options_to_json(RunOptions(overrides=ALL_GUARDS, **options)),
            "die_at": die_at,
        }
        self.http.meet(nursery.begin(self.folder, self.http.url, **how))

    def pause(self, nursery: Nursery) -> bool:
        """Wait until the run stands still; false: it ended before."""
        while not self.http.paused.wait(0.01):
            if nursery.over():
                self.end(nursery)
                return False
        while locked(self.folder / "retl.db"):  # it was stopped inside a transaction
            self.http.stir()
        self._remember_run()
        return True

    def marked_ahead(self) -> bool:
        """Whether the newest run may send more than what is on its way without asking the store."""
        started = self.service.store.ledger.batches(self.service.runs("things", limit=1)[0].id)
        return sum(batch.outcomes is None for batch in started) > 1

    def wake(self, nursery: Nursery) -> None:
        """Let the run go on that stands still; nothing of it may be sent any more."""
        self.fenced_off = True
        self.http.resume()
        ended = nursery.end()
        self.fenced_off = False
        self.check()
        assert ended.error == "LEASE_LOST", ended

    def die(self, nursery: Nursery) -> None:
        """The run that stands still is killed; its request arrives after all."""
        nursery.clear()
        self.http.resume()
        assert self.http.arrived.wait(10)

    def expire_lease(self) -> None:
        """A minute without a heartbeat goes by, for everybody but the run itself."""
        self._store("UPDATE leases SET expires_at = '2000-01-01T00:00:00.000000Z' WHERE expires_at IS NOT NULL")

    def rest(self) -> None:
        """`settle` goes by: what was late has landed, and no request of before can land any more."""
        self.http.land()
        self._store("UPDATE suspects SET until = '2000-01-01T00:00:00.000000Z'")
        self._store("UPDATE dead_letters SET held_until = '2000-01-01T00:00:00.000000Z' WHERE held_until IS NOT NULL")

    def _store(self, statement: str) -> None:
        self.service.store.now()
        with contextlib.closing(sqlite3.connect(self.folder / "retl.db", timeout=30)) as store, store:
            store.execute(statement)

    def suspects(self) -> int:
        with contextlib.closing(sqlite3.connect(self.folder / "retl.db", timeout=30)) as store:
            return int(store.execute("SELECT count(*) FROM suspects").fetchone()[0])

    # What people do

    def letters(self) -> list[DeadLetter]:
        return sorted(self.service.dead_letters("things", limit=200), key=lambda letter: letter.id)

    def resolve(self, letter: DeadLetter, resolution: str) -> None:
        """A person decides about a letter, and does what the decision says was done."""
        if letter.held:
            self.settle_held(letter)
            return
        name = self._name_of(letter)
        if name is not None and resolution != "fixed_upstream":
            self.decided.setdefault(letter.record_keys["id"], set()).add(name)
        if name is not None and resolution == "manual_push":
            self._push(letter, name)
        self.service.resolve([letter.id], resolution, actor="somebody")

    def settle_held(self, letter: DeadLetter) -> None:
        """After a rest, a person looks whether the insert arrived."""
        self.rest()
        if self.applied[letter.record_keys["id"]]:
            self.service.resolve([letter.id], "arrived", actor="somebody")
        else:
            self.replay([letter])

    def replay(self, letters: Sequence[DeadLetter], troubles: Sequence[Fate] = ()) -> None:
        for _, options in self.service.replays([letter.id for letter in letters]):
            self.run(troubles, keys=options.keys, replay=options.replay)

    def _push(self, letter: DeadLetter, name: str) -> None:
        key = letter.record_keys["id"]
        if letter.operation == "delete":
            self.records.pop(str(key), None)
        else:
            self.records[str(key)] = {"id": key, "name": name}

    def _name_of(self, letter: DeadLetter) -> str | None:
        """The version that a letter is about, where it got as far as the wire."""
        if letter.error_code in ("MISSING_KEY", "DUPLICATE_SOURCE_KEY", "MAPPING_ERROR"):
            return None
        read = self.read_by.get(letter.run_id)
        return None if read is None else read.sendable().get(letter.record_keys["id"], "")

    # What must be true

    def _saw(self, row: Sent) -> None:
        """A row arrives at the service: is it what the run read, and may it be sent at all?"""
        self.sent.append(row)
        if self.fenced_off:
            self.violations.append(f"a run that lost its lease sent {row}")
        read = self.read_by_last
        if row.content is None and self.kind.mode == "mirror":
            if row.key in read.rows or read.unidentified:
                self.violations.append(f"record {row.key} is to be deleted, though the query holds it: {read}")
        elif row.content is None:
            if row.key not in read.sendable():
                self.violations.append(f"{row} is not in what the run read: {read}")
        elif read.sendable().get(row.key) != row.content:
            self.violations.append(f"{row} is not what the run read: {read}")

    def _finished(self, error: str | None) -> None:
        run = self._remember_run()
        assert run is not None
        assert run.status.ended, run
        assert run.counters.balanced(), run
        assert error in (None, "AUTH", "DESTINATION_DOWN", "CONFIGURATION"), (error, run)
        mine = [letter for letter in self.letters() if letter.run_id == run.id]
        failed = run.counters.failed + run.counters.delete_failed
        assert failed == sum(letter.rows for letter in mine), (run.counters, mine)
        self.check()

    def _remember_run(self) -> Run | None:
        """The newest run, if it came so far as to be registered: it read what was there last."""
        for run in self.service.runs("things", limit=1):
            self.read_by.setdefault(run.id, self.read_by_last)
            return run
        return None

    def check(self) -> None:
        assert not self.violations, self.violations
        if self.kind.inserts:
            assert max(self.applied.values(), default=0) <= 1, f"inserted twice: {self.applied}"

    def check_end(self) -> None:
        """Rest, run, and see that the destination is what the query says, and stays so."""
        self.rest()
        self.run_well()
        self._decide_held()
        self._check_destination()
        self._check_letters()
        if self.suspects():
            self.rest()
            self.run_well()
            self._check_destination()
        assert all(run.counters.balanced() and run.status.ended for run in self._runs()), self._runs()
        self.sent.clear()
        self.run_well()
        assert {row.key for row in self.sent} <= self._tried_again(), f"{self.sent} was sent without need"

    def _tried_again(self) -> set[int]:
        """Keys of rows that were refused, have nothing to update, or are sent in any case."""
        if self.kind.detection == "none":
            return set(self.table.rows)
        refused = {letter.record_keys.get("id", 0) for letter in self.letters()}
        absent = set(self.table.rows) - set(map(int, self.records)) if self.kind.mode == "update" else set()
        return refused | absent

    def run_well(self) -> None:
        error = self.run()
        assert error is None, error

    def _decide_held(self) -> None:
        for letter in self.letters():
            if letter.held:
                self.settle_held(letter)

    def _runs(self) -> list[Run]:
        return [run for run in self.service.runs("things", limit=200) if run.status is not RunStatus.QUEUED]

    def _check_destination(self) -> None:
        wanted = self.table.sendable()
        names = {int(key): record["name"] for key, record in self.records.items()}
        for key, name in wanted.items():
            if name.lower() == "bad" and self.kind.mode != "delete":
                continue
            if self._is_decided(key, name):
                continue
            self._check_record(key, name, names)
        if self.kind.mode == "mirror" and not self.table.unidentified:
            assert set(names) <= set(self.table.rows) | self.forgotten, f"orphans: {names}, {self.table}"

    def _is_decided(self, key: int, name: str) -> bool:
        """Whether a person said that this version is to be left alone; a `delete` sync knows only one version."""
        return name in self.decided.get(key, ()) or (self.kind.mode == "delete" and key in self.decided)

    def _check_record(self, key: int, name: str, names: Mapping[int, str]) -> None:
        match self.kind.mode:
            case "delete":
                assert key not in names, f"{key} is still there"
            case "insert":
                assert key in names, f"{key} was never inserted"
            case "update":
                assert names.get(key, name) == name, f"{key} is {names[key]}, not {name}"
            case _:
                assert names.get(key) == name, f"{key} is {names.get(key)}, not {name}"

    def _check_letters(self) -> None:
        found = {letter.record_keys.get("id", letter.error_code) for letter in self.letters()}
        wanted, possible = self._expected_letters()
        assert wanted <= found <= wanted | possible, f"open: {found}, rejected: {wanted}, {self.table}"

    def _expected_letters(self) -> tuple[set[Any], set[Any]]:
        """The keys (or codes) that must have a letter, and those that may."""
        wanted = {k for k, names in self.table.identified.items() if self._rejected(k, names)}
        possible = {k for k in self.decided if k in self.table.identified}
        if self.edited:  # what was refused before is parked, though its record is gone now
            possible |= {k for k, names in self.table.identified.items() if names[0] == "bad"}
        codes = {"MISSING_KEY"} if self.table.without_key else set()
        if self.table.unidentified:
            codes |= {"MAPPING_ERROR"}
            possible |= {1, 2, 3}
        if self.kind.inserts:
            possible |= set(self.applied) | set(map(int, self.records))
        return (wanted - possible) | codes, wanted | possible

    def _rejected(self, key: int, names: Sequence[str]) -> bool:
        if len(names) > 1 or names[0] == "broken":
            return True
        absent = self.kind.mode == "update" and str(key) not in self.records
        return names[0] == "bad" and self.kind.mode != "delete" and not absent


class Machine(RuleBasedStateMachine):
    """See the module. `kind` and `nursery` are the test's; a folder is a history's."""

    kind: Kind
    nursery: Nursery

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        memory = Path("/dev/shm")
        folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        http = self._stack.enter_context(Capricious(self.kind.rules))
        self.history = History(self.kind, Path(self._stack.enter_context(folder)), http)
        self._stack.enter_context(self.history.service)

    @initialize(names=st.lists(st.sampled_from(["a", "b", "bad"]), min_size=1, max_size=3))
    def fill(self, names: list[str]) -> None:
        self.history.table.rows.update({k: [name] for k, name in enumerate(names, 1)})

    @rule(key=KEYS, name=NAMES)
    def put(self, key: int, name: str) -> None:
        self.history.table.rows[key] = [name]

    @rule(key=KEYS)
    def drop(self, key: int) -> None:
        self.history.table.rows.pop(key, None)

    @rule(key=KEYS, names=st.tuples(NAMES, NAMES))
    def duplicate(self, key: int, names: tuple[str, str]) -> None:
        self.history.table.rows[key] = list(names)

    @rule(count=st.integers(0, 2))
    def lose_keys(self, count: int) -> None:
        self.history.table.nulls = count

    @rule(troubles=TROUBLES)
    def run(self, troubles: list[Fate]) -> None:
        self.history.run(troubles)

    @rule(troubles=TROUBLES, limit=st.integers(1, 2))
    def run_limited(self, troubles: list[Fate], limit: int) -> None:
        self.history.run(troubles, limit=limit)

    @rule(troubles=TROUBLES, key=KEYS)
    def run_by_key(self, troubles: list[Fate], key: int) -> None:
        self.history.run(troubles, keys=(self.history.kind.key(key),))

    @precondition(lambda self: not self.kind.inserts)
    @rule(troubles=TROUBLES)
    def refresh(self, troubles: list[Fate]) -> None:
        self.history.run(troubles, full_refresh=True)

    @rule(troubles=KILLS)
    def kill_on_the_wire(self, troubles: list[Fate]) -> None:
        self.history.run_elsewhere(self.nursery, troubles)

    @rule(moment=st.integers(0, 45), refresh=st.booleans())
    def kill_at_the_store(self, moment: int, refresh: bool) -> None:
        self.history.run_elsewhere(self.nursery, [], die_at=moment, full_refresh=refresh and not self.kind.inserts)

    @rule(
        before=st.lists(FATES, max_size=2),
        key=KEYS,
        name=st.one_of(st.none(), NAMES),
        troubles=TROUBLES,
        settles=st.booleans(),
    )
    def overtake(self, before: list[Fate], key: int, name: str | None, troubles: list[Fate], settles: bool) -> None:
        """A run stands still with a request on its way; its lease goes to others; it wakes up, perhaps after ages.

        What it marked ahead, and the other half of a batch that is halved as its answer was no JSON, is kept back by
        its own clock alone, which has hardly moved: then it dies instead, and its request arrives within `settle`, as
        nobody is left who could say that it came later.
        """
        history = self.history
        history.begin(self.nursery, [*before, "pause"], config={"timeout": 30.0, "concurrency": 1})
        if not history.pause(self.nursery):
            return
        ahead = history.marked_ahead() or "html" in before
        history.expire_lease()
        history.table.rows.pop(key, None)
        if name is not None:
            history.table.rows[key] = [name]
        history.run(troubles)
        if ahead:
            history.die(self.nursery)
        if settles:
            history.rest()
            history.run()
        if not ahead:
            history.wake(self.nursery)

    @precondition(lambda self: self.history.kind.mode in ("upsert", "mirror"))
    @rule(moment=st.integers(15, 45))
    def kill_a_refresh_of_an_empty_destination(self, moment: int) -> None:
        """Whatever the killed run had sent so far, all records must come back."""
        self.history.run_elsewhere(self.nursery, [], die_at=moment, wipe=True, full_refresh=True)

    @precondition(lambda self: self.kind.mode not in ("insert", "delete"))
    @rule(what=st.sampled_from(["upper", "mode", "two_keys"]), which=st.integers(0, 2))
    def edit(self, what: str, which: int) -> None:
        kind = self.history.kind
        if what == "mode":
            mode = kind.modes[which % len(kind.modes)]
            self.history.edit(mode=mode, one_by_one=self.kind.one_by_one or mode == "update")
        else:
            self.history.edit(**{what: not getattr(kind, what)})

    @rule()
    def land(self) -> None:
        """A request that nobody waits for any more arrives, if there is one: on a slow machine there are more."""
        if self.history.http.late:
            self.history.http.land(1)

    @rule()
    def rest(self) -> None:
        self.history.rest()

    @rule(
        which=st.integers(0, 5),
        resolution=st.sampled_from(["skipped", "manual_push", "fixed_upstream"]),
    )
    def resolve(self, which: int, resolution: str) -> None:
        letters = self.history.letters()
        if letters:
            self.history.resolve(letters[which % len(letters)], resolution)

    @rule(which=st.integers(0, 5), troubles=TROUBLES)
    def replay(self, which: int, troubles: list[Fate]) -> None:
        letters = [letter for letter in self.history.letters() if not letter.held]
        if letters:
            self.history.replay([letters[which % len(letters)]], troubles)

    def teardown(self) -> None:
        with self._stack:
            self.history.check_end()


def run_histories(kind: Kind, nursery: Nursery, **how: Any) -> None:
    machine = type("Histories", (Machine,), {"kind": kind, "nursery": nursery})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine, settings=settings(deadline=None, database=None, suppress_health_check=checks, **how)
    )


def _named(kind: Kind) -> str:
    detection = "" if kind.detection == "snapshot" else "none" if kind.detection == "none" else "watermark"
    words = [kind.mode, kind.refusals, "one-by-one" if kind.one_by_one else "", "header" if kind.header else ""]
    words += [detection, "plain" if kind.plain else ""]
    return "-".join(word for word in words if word)


@pytest.mark.parametrize("kind", KINDS, ids=_named)
def test_a_few_histories(kind: Kind, nursery: Nursery) -> None:
    run_histories(kind, nursery, max_examples=1, stateful_step_count=12, derandomize=True)


def run_many(kind: Kind, nursery: Nursery) -> None:
    run_histories(kind, nursery, max_examples=int(os.environ.get("RETL_HISTORIES", "200")), stateful_step_count=16)


@pytest.mark.long
class TestManyHistories:
    """In two classes, so that they run side by side."""

    @pytest.mark.parametrize("kind", KINDS[::2], ids=_named)
    def test_of_some_kinds(self, kind: Kind, nursery: Nursery) -> None:
        run_many(kind, nursery)


@pytest.mark.long
class TestManyOtherHistories:
    @pytest.mark.parametrize("kind", KINDS[1::2], ids=_named)
    def test_of_the_other_kinds(self, kind: Kind, nursery: Nursery) -> None:
        run_many(kind, nursery)
