"""Replays: asked for once, launched as soon as that can be.

A replay is a queued run, and dead letters that are marked with it. Whoever asks for one may launch
it at once where nothing is in the way; otherwise it waits, and the sensor `retl_replays` launches it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from dagster_retl.errors import ErrorCode
from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import REPLAY, DeadLetter, Run, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.service.dead_letters import replay_of
from dagster_retl.service.runs import LAUNCHING, RunCases


@dataclass(frozen=True, slots=True)
class Replay:
    """A run that sends dead letters again.

    entries: those of the request that it has taken. mine: it was queued by this request and nothing is in
    its way, so that whoever asked launches it.
    """

    run: Run
    entries: tuple[str, ...]
    mine: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for of one partition of a sync. idle: no run of the sync is in the way."""

    sync: Sync
    partition: Partition | None
    letters: Sequence[DeadLetter]
    actor: str
    idle: bool


class ReplayCases(RunCases):
    """Replays: asked for once, launched as soon as that can be."""

    def queue_replays(self, entry_ids: Sequence[str], *, actor: str) -> list[Replay]:
        """Have the rows of these entries sent again; recorded before this returns.

        Entries that a run which has not begun is to send already stay with it; others join the replay
        of their sync that waits, or a new one. Nothing is refused because its sync is running. Raises
        `NotFoundError` for an entry or sync that is not there, `ConflictError` for a disabled sync,
        `ConfigurationError` for an entry that is resolved, or held and may still arrive: nothing is recorded then.
        """
        asked = self.by_partition(entry_ids)
        syncs = {sync_id: self.find(sync_id) for sync_id, _ in asked}
        for sync in syncs.values():
            self.require_enabled(sync)
        with self.store.begin() as conn:
            for sync_id in sorted(syncs):  # always in one order: nobody waits for one that waits for him
                self.store.leases.lock(conn, sync_id)
                self.catalog.require_live(conn, sync_id)
            idle = {sync_id for sync_id, sync in syncs.items() if self._in_the_way(conn, sync) is None}
            return [
                replay
                for (sync_id, partition), letters in asked.items()
                for replay in self._queue_replays(
                    conn, _Request(syncs[sync_id], partition, letters, actor, idle=sync_id in idle)
                )
            ]

    def _queue_replays(self, conn: Connection, asked: _Request) -> list[Replay]:
        sync, letters = asked.sync, asked.letters
        if not self.project.writes:
            return [Replay(self._queue_replay(conn, asked, letters), tuple(each.id for each in letters), mine=True)]
        queued = {run.id: run for run in self.store.runs.unfinished(conn, sync.id) if run.status is RunStatus.QUEUED}
        marks = self.store.replays.marks(conn, [letter.id for letter in letters])
        kept: dict[str, list[str]] = {}
        for entry_id, run_id in marks.items():
            if run_id is not None and run_id in queued:
                kept.setdefault(run_id, []).append(entry_id)
        known = [Replay(queued[run_id], tuple(ids), mine=False) for run_id, ids in kept.items()]
        fresh = [letter for letter in letters if letter.id in marks and marks[letter.id] not in kept]
        return [*known, self._join(conn, asked, fresh)] if fresh else known

    def _join(self, conn: Connection, asked: _Request, letters: Sequence[DeadLetter]) -> Replay:
        """The replay that takes these entries: the one that waits, or a new one."""
        ids = tuple(letter.id for letter in letters)
        waiting = self.store.replays.open_for_more(conn, asked.sync.id, asked.partition)
        run = waiting or self._queue_replay(conn, asked, letters)
        self.store.dead_letters.mark_replaying(conn, ids, run.id, asked.actor)
        return Replay(run, ids, mine=waiting is None and asked.idle)

    def _queue_replay(self, conn: Connection, asked: _Request, letters: Sequence[DeadLetter]) -> Run:
        options = replace(replay_of(letters), partition=asked.partition)
        return self._queue(conn, asked.sync, options, REPLAY, asked.actor)

    def waiting_replays(self, sync_ids: Collection[str]) -> list[Run]:
        """The replays of these syncs that whoever asked for them does not launch (any more), oldest first."""
        return self.store.replays.waiting(sync_ids, self.store.now() - LAUNCHING)

    def can_begin(self, run: Run) -> bool:
        """Whether nobody is about to launch this replay, and nobody runs its sync."""
        waits = self.store.replays.waits(run, self.store.now() - LAUNCHING)
        return waits and self.running(self.find(run.sync_id)) is None

    def close_replay(self, run: Run, status: RunStatus, message: str) -> bool:
        """End a replay that has not begun; false: it has. Its entries are ordinary open ones again."""
        code = ErrorCode.CANCELLED if status is RunStatus.CANCELLED else ErrorCode.INTERRUPTED
        if not self.store.runs.close_queued(run.id, status, code, message):
            return False
        with self.store.begin() as conn:
            self.store.dead_letters.clear_replaying(conn, run.id)
        return True
