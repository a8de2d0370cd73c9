"""Dead letters against a model in memory: any sequence of operations leaves the same facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from secrets import token_hex
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_retl.errors import ErrorCode
from dagster_retl.store.clock import to_text
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.store import Store

KEYS = st.sampled_from(["a", "b", "c"])
FINGERPRINTS = st.sampled_from(["f1", "f2", None])
KINDS = st.sampled_from(["refused", "outage", "unknown"])
OPERATIONS = st.one_of(
    st.tuples(st.just("fail"), st.lists(st.tuples(KEYS, FINGERPRINTS, KINDS), max_size=4)),
    st.tuples(st.just("close"), st.lists(KEYS, max_size=3)),
    st.tuples(st.just("resolve"), st.tuples(KEYS, st.sampled_from(["skipped", "manual_push", "fixed"]))),
    st.tuples(st.just("replay"), KEYS),
)


@dataclass
class Entry:
    fingerprint: str | None
    rejections: int
    held: bool
    attempts: int = 1


@dataclass
class Model:
    """What is open, by key; how many were resolved; which version of a key is silent; what was accepted."""

    open: dict[str, Entry] = field(default_factory=dict)
    resolved: int = 0
    silent: dict[str, str | None] = field(default_factory=dict)
    accepted: list[tuple[str, str | None]] = field(default_factory=list)

    def fail(self, failures: list[tuple[str, str | None, str]]) -> int:
        opened = 0
        for key, fingerprint, kind in failures:
            refused, held = int(kind == "refused"), kind == "unknown"
            entry = self.open.get(key)
            if entry is None:
                self.open[key] = Entry(fingerprint, refused, held)
                self.silent.pop(key, None)
                opened += 1
                continue
            entry.attempts += 1
            if not entry.held:
                entry.rejections = refused + (entry.rejections if entry.fingerprint == fingerprint else 0)
                entry.fingerprint = fingerprint
            entry.held = entry.held or held
        return opened

    def close(self, keys: list[str]) -> int:
        closing = [key for key in set(keys) if key in self.open and not self.open[key].held]
        for key in keys:
            self.silent.pop(key, None)
        for key in closing:
            del self.open[key]
        self.resolved += len(closing)
        return len(closing)

    def resolve(self, decision: tuple[str, str]) -> None:
        key, resolution = decision
        entry = self.open.pop(key, None)
        if entry is None:
            return
        self.resolved += 1
        if (entry.held or resolution == "manual_push") and entry.fingerprint is not None:
            self.accepted.append((key, entry.fingerprint))
        if resolution == "skipped" and not entry.held:
            self.silent[key] = entry.fingerprint

    def replay(self, key: str) -> None:
        if entry := self.open.get(key):
            entry.rejections, entry.held = 0, False


class Real:
    """The same operations on a sync of its own in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sync = token_hex(8)
        self.settled = to_text(store.now() - timedelta(seconds=1))

    def fail(self, failures: list[tuple[str, str | None, str]]) -> int:
        with self.store.begin() as conn:
            return self.store.dead_letters.fail(conn, self.sync, "e", "r", [self._failure(*item) for item in failures])

    def close(self, keys: list[str]) -> int:
        with self.store.begin() as conn:
            return self.store.dead_letters.resolve_keys(conn, self.sync, "e", keys, "accepted")

    def resolve(self, decision: tuple[str, str]) -> None:
        key, resolution = decision
        self.store.dead_letters.resolve(self._ids(key), resolution, "ann")

    def replay(self, key: str) -> None:
        with self.store.begin() as conn:
            self.store.dead_letters.mark_replaying(conn, self._ids(key), "r2")

    def _ids(self, key: str) -> list[str]:
        return [row["id"] for row in self._open() if row["key"] == key]

    def _open(self) -> list[dict[str, Any]]:
        return list(self.store.dead_letters.open_for_plan(self.sync, "e").to_pylist())

    def _failure(self, key: str, fingerprint: str | None, kind: str) -> Failure:
        held = kind == "unknown"
        return Failure(
            key=key,
            record_keys="{}",
            code=ErrorCode.UNKNOWN_OUTCOME if held else ErrorCode.CONFLICT,
            message=kind,
            operation="insert",
            fingerprint=fingerprint,
            rejection=kind == "refused",
            held=held,
            held_until=self.settled if held else None,
        )

    def assert_agrees_with(self, model: Model) -> None:
        letters = self.store.dead_letters
        rows = self._open()
        assert len(rows) == len(model.open)
        facts = {row["key"]: Entry(row["fingerprint"], row["rejections"], row["held"]) for row in rows}
        for row in rows:
            entry = letters.get(row["id"])
            facts[row["key"]].attempts = entry.attempts
            assert (entry.error_code == "UNKNOWN_OUTCOME") >= row["held"]
        assert facts == model.open
        stats = letters.stats(self.sync)
        assert (stats.open_count, stats.resolved_count) == (len(model.open), model.resolved)
        assert sum(stats.by_error_code.values()) == letters.count_open(self.sync) == len(model.open)
        silent = {row["key"]: row["fingerprint"] for row in letters.silenced(self.sync, "e").to_pylist()}
        assert silent == model.silent
        accepted = self.store.acceptances.table(self.sync, "e").to_pylist()
        assert [(row["key"], row["fingerprint"]) for row in accepted] == model.accepted


# The store is shared by the examples; each has a sync of its own.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, max_size=12))
def test_any_sequence_of_operations(store: Store, operations: list[tuple[str, Any]]) -> None:
    model, real = Model(), Real(store)
    for name, argument in operations:
        expected: Callable[[Any], Any] = getattr(model, name)
        actual: Callable[[Any], Any] = getattr(real, name)
        assert actual(argument) == expected(argument)
        real.assert_agrees_with(model)
