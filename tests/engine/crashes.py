"""A run that is killed at a point, or stands still there; the runs after it; and what must be true in the end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from capricious import Fate, Sent
from crash_kinds import DELIVERED, WANTED, WIRE
from nursery import Ended, locked, stands_still, stir
from sqlalchemy import select, text, update

from dagster_retl.model.runs import Run, RunOptions, RunStatus
from dagster_retl.service import Service
from dagster_retl.store.runs import options_to_json
from dagster_retl.store.schema import leases, metadata, suspects

if TYPE_CHECKING:
    from scenarios import Scenario

_BEFORE_A_REFRESH = ("start", "recover", "discover")
"""Phases in which a refresh is not on record yet: whoever wants it has to ask again."""

IN_TRANSACTION = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
"""Processes of the server whose clients stand still inside a transaction."""


@dataclass
class Crash:
    """One copy of a scenario's world, and what happened there.

    in_flight: run → the keys that were marked as started and have no answer, when it was killed.
    leased: runs that held the lease when they were killed.
    """

    scenario: Scenario
    number: int
    folder: Path
    store: str | None
    service: Service
    in_flight: dict[str, list[int]] = field(default_factory=dict)
    leased: set[str] = field(default_factory=set)
    sent: Counter[int] = field(default_factory=Counter)
    _child: int | None = None
    _in_request: bool = False

    @property
    def sync_id(self) -> str:
        return self.service.project.syncs[0].id

    @property
    def records(self) -> dict[int, str]:
        return {int(key): record["name"] for key, record in self.scenario.http.records["things"].items()}

    def saw(self, row: Sent) -> None:
        self.sent[row.key] += 1

    # What happens

    def begin(self, script: Sequence[Fate] = (), *, options: RunOptions | None = None, **how: Any) -> int:
        """Start a run in a process of its own; returns its process id. how: see the nursery."""
        scenario = self.scenario
        scenario.http.expect(script)
        pid = scenario.nursery.begin(
            self.folder,
            scenario.http.url,
            store=self.store,
            config=scenario.config(str(self.number)),
            sync=scenario.kind.sync,
            options=options_to_json(options or scenario.kind.options),
            **how,
        )
        scenario.http.meet(pid)
        self._child = pid
        return pid

    def record(self) -> list[str]:
        """Run to the end; the points on the way."""
        file = self.folder / "points"
        self.begin(record=str(file))
        assert self.end() == Ended(killed=False)
        return file.read_text().splitlines()

    def kill(self, point: str, *, options: RunOptions | None = None) -> bool:
        """Run until that point, and die there; false: this run never got there, threads do as they like."""
        place, moment, *_, number = point.split()
        if place == "wire":
            self.begin(_script(int(number), dict(WIRE)[moment]), options=options)
        else:
            self.begin(kill_at=point, options=options)
        ended = self.end()
        self.look()
        assert not ended.killed or place in _BEFORE_A_REFRESH or self._refresh_is_known()
        return ended.killed

    def pause(self, point: str) -> bool:
        """Run until that point, and stand still there; false: this run never got there.

        `wire paused 2` is the second request: it has arrived, and is applied when the run wakes.
        """
        place, *rest = point.split()
        self._in_request = place == "wire"
        pid = self.begin(_script(int(rest[1]), "pause")) if self._in_request else self.begin(pause_at=point)
        while not stands_still(pid) or (self._in_request and self._stirred(pid)):
            if self.scenario.nursery.over():
                return False
            time.sleep(0.005)
        return True

    def _stirred(self, pid: int) -> bool:
        """Whether a process that the service stopped was inside a transaction; it went on for a moment, if so."""
        if self._quiet():
            return False
        stir(pid)
        return True

    def _quiet(self) -> bool:
        """Whether nobody holds a lock in the store."""
        if self.store is not None:
            with self.service.store.engine.connect() as conn:
                return not conn.execute(text(IN_TRANSACTION)).all()
        return not locked(self.folder / "retl.db")

    def wake(self) -> Ended:
        """Let the run go on that stands still, to its end."""
        if self._in_request:
            self.scenario.http.resume()
        elif self._child is not None:
            os.kill(self._child, signal.SIGCONT)
        return self.end()

    def holds_lease(self) -> bool:
        """Whether the newest run holds the lease."""
        holder = self.service.store.leases.holder(self.sync_id)
        return holder is not None and holder.run_id == self.service.runs("things")[0].id

    def end(self) -> Ended:
        self._child = None
        ended = self.scenario.nursery.end()
        self.scenario.http.calm()
        return ended

    def stop(self) -> None:
        """End a run that a failed test left behind, standing still perhaps."""
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            self.end()
            self.scenario.http.resume()

    def run(self, options: RunOptions | None = None) -> Run:
        """A run in this process, which nothing happens to."""
        return self.service.run("things", options or self.scenario.kind.plain).run

    def next_options(self) -> RunOptions:
        """Those of a plain run; a refresh that is not on record is asked for once more."""
        kind = self.scenario.kind
        return kind.plain if self._refresh_is_known() else kind.options

    def _refresh_is_known(self) -> bool:
        """Whether a plain run goes on with the refresh, if this is one."""
        pointer = self.service.store.snapshots.pointer(self.sync_id)
        assert pointer is not None
        return not self.scenario.kind.refresh or pointer.stale or pointer.generation != self.scenario.generation

    def land(self) -> None:
        """Requests that nobody waits for any more arrive after all."""
        while self.scenario.http.late:
            self.scenario.http.land()

    def rest(self) -> None:
        """`settle` goes by."""
        with self.service.store.begin() as conn:
            conn.execute(update(suspects).values(until="2000-01-01T00:00:00.000000Z"))

    def expire_lease(self) -> None:
        """A minute without a heartbeat goes by."""
        expired = update(leases).where(leases.c.run_id.is_not(None))
        with self.service.store.begin() as conn:
            conn.execute(expired.values(expires_at="2000-01-01T00:00:00.000000Z"))

    # What is left

    def look(self) -> None:
        """Who was killed, and what was on its way."""
        store = self.service.store
        holder = store.leases.holder(self.sync_id)
        if holder is not None:
            self.leased.add(holder.run_id)
        for run_id in store.ledger.unfolded(self.sync_id):
            if run_id not in self.in_flight:
                self.in_flight[run_id] = self._unanswered(run_id)

    def _unanswered(self, run_id: str) -> list[int]:
        store, plan = self.service.store, self.service.store.runs.plan_of(run_id)
        assert plan is not None, "something was sent without a plan"
        manifest = self.service.state.local_path(plan["manifest"], plan["checksum"])
        started = {batch.number for batch in store.ledger.batches(run_id) if batch.outcomes is None}
        rows = pq.read_table(manifest, columns=["batch", "record_keys"]).to_pylist()
        return [json.loads(row["record_keys"])["id"] for row in rows if row["batch"] in started]

    def files(self) -> set[str]:
        """The files of the state that stay once everything may go that nobody names."""
        pointer = self.service.store.snapshots.pointer(self.sync_id)
        assert pointer is not None
        keep = {pointer.generation} if pointer.generation else set()
        self.service.state.collect(self.sync_id, keep, timedelta(0), store_uuid=self.service.store.uuid)
        return {path.name for path in (self.service.state.folder / self.sync_id).iterdir()}

    def tables(self) -> dict[str, list[str]]:
        """All that the store holds but suspects and budgets, which need no lease."""
        with self.service.store.engine.connect() as conn:
            return {
                table.name: sorted(str(row) for row in conn.execute(select(table)))
                for table in metadata.sorted_tables
                if table.name not in ("suspects", "rate_budgets")
            }

    def suspected(self) -> dict[int, tuple[int, str | None]]:
        """The suspects: id → (key, version)."""
        with self.service.store.engine.connect() as conn:
            rows = conn.execute(select(suspects)).all()
        return {row.id: (json.loads(row.record_keys)["id"], row.fingerprint) for row in rows}

    # What must be true

    def check(self) -> None:
        """After the run that recovered: nothing is lost, nothing was sent twice but what was in flight."""
        self.check_runs()
        assert all(run.counters.read in (0, len(WANTED), len(DELIVERED)) for run in self.service.runs("things"))
        self._check_destination()
        self._check_letters()
        self.check_leftovers()

    def check_runs(self) -> None:
        for run in self.service.runs("things", limit=200):
            if run.id in self.in_flight or run.id in self.leased:
                assert (run.status, run.error_code) == (RunStatus.FAILED, "INTERRUPTED"), run
                unknown = run.counters.unknown + run.counters.delete_unknown
                assert unknown == len(self.in_flight.get(run.id, ())), run
            else:
                assert run.status in (RunStatus.SUCCEEDED, RunStatus.QUEUED), run
            assert run.counters.balanced(), run

    def _check_destination(self) -> None:
        wanted, held = self.scenario.kind.wanted, self._held()
        assert wanted.keys() - held <= self.records.keys() <= wanted.keys(), (self.records, held)
        assert all(wanted[key] == name for key, name in self.records.items()), self.records
        again = Counter(key for keys in self.in_flight.values() for key in keys)
        kind = self.scenario.kind
        most_sent = {key: 1 + (0 if kind.holds else again[key]) for key in self.sent}
        assert all(count <= most_sent[key] for key, count in self.sent.items()), (self.sent, self.in_flight)
        applied = Counter(int(change.key) for change in self.scenario.http.applied)
        assert all(count <= (1 if kind.mode == "insert" else most_sent[key]) for key, count in applied.items()), applied

    def _held(self) -> set[int]:
        if not self.scenario.kind.holds:
            return set()
        return {key for keys in self.in_flight.values() for key in keys}

    def _check_letters(self) -> None:
        letters = self.service.dead_letters("things", limit=200)
        assert {letter.record_keys["id"] for letter in letters} == self._held(), letters
        assert len(letters) == len(self._held()), letters
        assert all((letter.error_code, letter.held) == ("UNKNOWN_OUTCOME", True) for letter in letters), letters

    def check_leftovers(self) -> None:
        store = self.service.store
        assert store.leases.holder(self.sync_id) is None
        assert store.ledger.unfolded(self.sync_id) == []
        pointer = store.snapshots.pointer(self.sync_id)
        assert pointer is not None
        assert not pointer.stale
        assert list((self.folder / "spill").iterdir()) == []
        files = self.files()
        assert len(files) <= 2, files
        assert all(name.startswith("g-") for name in files), files
        assert pointer.generation is None or pointer.generation.rpartition("/")[2] in files


def _script(number: int, fate: Fate) -> list[Fate]:
    """What happens to the request of that number; those before it are answered well."""
    well: list[Fate] = ["ok"] * (number - 1)
    return [*well, fate]
