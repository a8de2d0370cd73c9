"""Erasing one key of a sync from everything that is kept about it, under the sync's lease.

What dead runs left is folded first. Then new files take the place of those that hold the key, the
store swaps its pointers to them and erases the key's rows in one transaction, and what is named no
more is removed. Every step may be done again: killed anywhere, the next call finishes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
from sqlalchemy import Connection

from dagster_retl.changes.erasing import holds, without
from dagster_retl.changes.history import copy_history
from dagster_retl.changes.keys import key_of
from dagster_retl.changes.snapshot import copy_rows, find
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.jobs import JobConnector
from dagster_retl.engine.commit import Closer
from dagster_retl.engine.ending import ending_of
from dagster_retl.engine.epoch import KEY_FORMS, key_form_of
from dagster_retl.engine.job_recovery import JobRecovery
from dagster_retl.engine.keeper import LeaseKeeper
from dagster_retl.engine.recovery import Recovery
from dagster_retl.engine.workspace import Workspace, workspace
from dagster_retl.errors import ConfigurationError, StateMissingError
from dagster_retl.model.mask import KeyMask
from dagster_retl.model.project import EngineSettings
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.store.files import Stored
from dagster_retl.store.key_records import KeyRecord
from dagster_retl.store.leases import Lease
from dagster_retl.store.row_history import HistoryFile
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.sql import chunks
from dagster_retl.store.state import State, generation_name, history_name
from dagster_retl.store.store import Store

_TEXTS_AT_ONCE = 500  # that a transaction rewrites: it holds up the sync's other writers for some milliseconds


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased: dead letters, other rows of the store, texts that quoted the key, files that held it."""

    sync: Sync
    letters: int
    records: int
    texts: int
    files: int


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Erases the row with these key fields. force: although it may still arrive, or be inserted twice.

    keeps_history: whether the runs that it recovers leave row history.
    """

    store: Store
    state: State
    settings: EngineSettings
    sync: Sync
    connector: AnyConnector
    record_keys: Mapping[str, Any]
    actor: str
    force: bool = False
    keeps_history: bool = True

    def execute(self) -> Forgotten:
        """Erase the key. Raises `LeaseHeldError` while the sync runs, `ConfigurationError` for what needs `force`.

        It holds the lease under a run of its own, which contacts nobody: a dry run.
        """
        store = self.store
        run = store.runs.create(self.sync.id, self.sync.slug, RunOptions(dry_run=True), trigger="forget")
        try:
            lease = store.leases.acquire(self.sync.id, run.id)
        except BaseException as error:
            with store.begin() as conn:
                self._finish(conn, run.id, error)
            raise
        keeper = LeaseKeeper(store, lease)
        try:
            with workspace(self.settings) as space:
                forgotten = _Erasure(self, lease, keeper, space).execute()
        except BaseException as error:
            self._end(lease, error)
            raise
        finally:
            keeper.close()
        self._end(lease)
        return forgotten

    def _end(self, lease: Lease, error: BaseException | None = None) -> None:
        with self.store.begin() as conn:
            if self.store.leases.release(lease, conn):  # otherwise its new holder closes the run
                self._finish(conn, lease.run_id, error)

    def _finish(self, conn: Connection, run_id: str, error: BaseException | None) -> None:
        if error is None:
            self.store.runs.finish(conn, run_id, RunStatus.SUCCEEDED, Counters())
            return
        ending = ending_of(error, Redactor(()))
        self.store.runs.finish(
            conn, run_id, ending.status, Counters(), error_code=ending.error_code, error_message=ending.error_message
        )


class _Erasure:
    """The steps, under the lease."""

    def __init__(self, asked: Forgetting, lease: Lease, keeper: LeaseKeeper, space: Workspace) -> None:
        self._store = asked.store
        self._state = asked.state
        self._asked = asked
        self._sync = asked.sync
        self._lease = lease
        self._keeper = keeper
        self._space = space

    def execute(self) -> Forgotten:
        store, sync_id = self._store, self._sync.id
        with store.fenced(self._lease) as conn:
            store.runs.start(conn, self._lease.run_id, self._lease.token)
        closer = Closer(store, self._state, self._lease, self._space, keeps_history=self._asked.keeps_history)
        Recovery(store, self._lease, closer, self._sync, jobs=self._job_recovery()).recover()
        pointer = store.snapshots.pointer(sync_id)
        epoch = pointer.epoch if pointer else None
        key, elsewhere = self._keys(pointer)
        record = store.keys.of(sync_id, epoch, key)
        if not self._asked.force:
            _refuse_open(record, self._sync)
        mask = self._mask(record, pointer, key)
        generation = self._without_key(pointer, key)
        history = self._history_without_key(epoch, key, elsewhere)
        with store.fenced(self._lease) as conn:
            if generation is not None:
                store.snapshots.save(conn, generation)
            for file, stored in history.items():
                store.history.replace(conn, file.id, stored)
            erased = store.keys.erase(conn, sync_id, epoch, key, elsewhere)
            store.audit.add(conn, self._asked.actor, "key.forget", sync_id, _hash(store.uuid, key))
        texts = self._mask_texts(mask)
        outdated = [file.name for file in history]
        outdated += [pointer.generation] if generation and pointer and pointer.generation else []
        files = self._remove_files(generation or pointer, outdated)
        return Forgotten(self._sync, erased.letters, erased.others, texts, files)

    def _job_recovery(self) -> JobRecovery | None:
        connector, margin = self._asked.connector, float(self._asked.connector.config.timeout)
        if not isinstance(connector, JobConnector):
            return None
        return JobRecovery(
            self._store, self._state, self._lease, connector, self._sync, Redactor(()),
            before_send=lambda: self._keeper.check(margin=margin),
        )  # fmt: skip

    def _keys(self, pointer: Pointer | None) -> tuple[str, set[str]]:
        """The key as it is now; and as it may have been before the sync was pointed elsewhere."""
        values, names = self._asked.record_keys, self._sync.key_fields
        key = key_of(values, names, key_form_of(self._sync, self._asked.connector, pointer))
        if key is None:
            raise ConfigurationError(
                f"sync {self._sync.name!r} has no such key",
                hint=f"Give a value for each key field: {', '.join(names) or 'it has none'}.",
            )
        return key, {other for form in KEY_FORMS if (other := key_of(values, names, form)) is not None}

    def _mask(self, record: KeyRecord, pointer: Pointer | None, key: str) -> KeyMask:
        """Text may quote the key as it was typed now, or as it was sent."""
        known = [self._asked.record_keys, *record.record_keys]
        if pointer is not None and pointer.generation is not None:
            row = find(self._space.connection, self._state.local_path(pointer.generation, pointer.checksum or ""), key)
            known += [orjson.loads(row.record_keys)] if row else []
        texts = ({str(keys[name]) for keys in known if keys.get(name) is not None} for name in self._sync.key_fields)
        return KeyMask(list(texts))

    def _without_key(self, pointer: Pointer | None, key: str) -> Pointer | None:
        """The pointer to a generation without the key; None: there is none with it."""
        if pointer is None or pointer.generation is None:
            return None
        path = self._state.local_path(pointer.generation, pointer.checksum or "")
        if not holds(self._space.connection, path, {key}):
            return None
        name = generation_name(self._store.uuid, self._sync.id, self._lease.token)
        stored = self._write(name, copy_rows, without(path, {key}))
        return replace(pointer, generation=stored.name, rows=stored.rows or 0, checksum=stored.checksum)

    def _history_without_key(
        self, epoch: str | None, key: str, elsewhere: Collection[str]
    ) -> dict[HistoryFile, Stored | None]:
        """What takes the place of history files that hold the key; None: nothing, also for one that cannot be read."""
        replaced: dict[HistoryFile, Stored | None] = {}
        for file in self._store.history.files(self._sync.id):
            keys = {key} if file.epoch == epoch else elsewhere
            try:
                path = self._state.local_path(file.name, file.checksum)
            except StateMissingError:
                replaced[file] = None
                continue
            if holds(self._space.connection, path, keys):
                name = history_name(self._store.uuid, self._sync.id, self._lease.token)
                stored = self._write(name, copy_history, without(path, keys))
                replaced[file] = stored if stored.rows else None
        return replaced

    def _write(self, name: str, copy: Callable[[duckdb.DuckDBPyConnection, str, Path], int], query: str) -> Stored:
        return self._state.write(name, lambda path: copy(self._space.connection, query, path))

    def _mask_texts(self, mask: KeyMask) -> int:
        count = 0
        for rewrites in chunks(self._store.mentions.find(self._sync.id, mask), _TEXTS_AT_ONCE):
            with self._store.fenced(self._lease) as conn:
                for rewrite in rewrites:
                    self._store.mentions.rewrite(conn, rewrite)
            count += len(rewrites)
        return count

    def _remove_files(self, pointer: Pointer | None, outdated: Sequence[str]) -> int:
        """Files that held the key, and everything that the store does not name: any of it may hold the key."""
        keep = self._store.history.names(self._sync.id)
        keep |= {pointer.generation} if pointer and pointer.generation else set()
        self._keeper.check(margin=1.0)  # files of another holder are none of our business
        for name in outdated:
            self._state.delete(name)
        unnamed = self._state.collect(self._sync.id, keep, timedelta(0), store_uuid=self._store.uuid, generations=0)
        return len(outdated) + len(unnamed)


def _refuse_open(record: KeyRecord, sync: Sync) -> None:
    """Raise where the key is all that stands between a row and being sent a second time."""
    held = [letter.id for letter in record.letters if letter.held and not letter.resolved]
    if held:
        raise ConfigurationError(
            f"sync {sync.name!r} holds this insert, because it may have arrived ({held[0]}): "
            "without its key, the next run would insert the row again",
            hint="Resolve it if the record is there, or replay it if it is not; `--force` forgets it all the same.",
        )


def _hash(salt: str, key: str) -> str:
    return f"sha256:{hashlib.sha256(f'{salt}:{key}'.encode()).hexdigest()}"
