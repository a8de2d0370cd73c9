"""Random histories of a sync with a watermark: it passes no row that is lost, whatever happened.

Rows change with a cursor that grows, some of them are committed late, some have no cursor, one may have no key.
The service refuses some and loses sight of others; runs are limited, end early, are killed; people decide.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from capricious import Capricious
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nursery import Nursery
from test_watermark import letters, mark, moving_world, script
from worlds import World

from dagster_retl.errors import RetlError
from dagster_retl.model.runs import RunOptions
from dagster_retl.store.runs import options_to_json

LOOKBACK = 3
DETECTION = {"watermark": "changed", "lookback": LOOKBACK}
CONFIG = {"concurrency": 1, "batch_rows": 1, "timeout": 0.5}

KEYS = st.integers(1, 4)
NAMES = st.sampled_from(["a", "b", "c", "bad"])
TROUBLE = st.lists(st.sampled_from(["ok", "ok", "late", "lost", "applied", "locked_out"]), max_size=5)
FATAL = st.sampled_from(["kill", "kill_applied", "kill_late"])
ACTIONS = st.one_of(
    st.tuples(st.just("change"), KEYS, NAMES),
    st.tuples(st.just("change"), KEYS, NAMES),
    st.tuples(st.just("commit late"), KEYS, NAMES, st.integers(0, LOOKBACK)),
    st.tuples(st.just("change without cursor"), KEYS, NAMES),
    st.tuples(st.just("lose a key")),
    st.tuples(st.just("find the key")),
    st.tuples(st.just("run"), TROUBLE),
    st.tuples(st.just("run"), TROUBLE),
    st.tuples(st.just("limited"), TROUBLE, st.integers(1, 2)),
    st.tuples(st.just("by key"), TROUBLE, KEYS),
    st.tuples(st.just("kill"), st.lists(st.just("ok"), max_size=2), FATAL),
    st.tuples(st.just("kill at"), st.integers(10, 40)),
    st.tuples(st.just("resolve"), st.integers(0, 3), st.sampled_from(["fixed", "skipped", "manual_push"])),
    st.tuples(st.just("replay"), st.integers(0, 3), TROUBLE),
    st.tuples(st.just("rest")),
)  # fmt: skip


@dataclass
class Story:
    """One sync, what its table holds (key → name and cursor), and which versions people decided about."""

    made: World
    nursery: Nursery
    clock: int = 100
    rows: dict[int | None, tuple[str, int | None]] = field(default_factory=dict)
    decided: set[tuple[int, str]] = field(default_factory=set)

    def tell(self, action: tuple[Any, ...]) -> None:
        what, *about = action
        getattr(self, what.replace(" ", "_"))(*about)
        self.check()

    # What happens to the table

    def change(self, key: int, name: str) -> None:
        self.clock += 1
        self._put(key, name, self.clock)

    def commit_late(self, key: int, name: str, late: int) -> None:
        """With a cursor below the watermark, as far as `lookback` allows."""
        self._put(key, name, int(mark(self.made) or self.clock) - late)

    def change_without_cursor(self, key: int, name: str) -> None:
        self._put(key, name, None)

    def lose_a_key(self) -> None:
        self.clock += 1
        self._put(None, "a", self.clock)

    def find_the_key(self) -> None:
        """Whoever gives the row its key changes it, so that its cursor grows."""
        if self.rows.pop(None, None):
            self.made.sql("DELETE FROM t WHERE id IS NULL")
            self.change(1, "b")

    def _put(self, key: int | None, name: str, changed: int | None) -> None:
        self.rows[key] = (name, changed)
        self.made.sql("DELETE FROM t WHERE id IS NOT DISTINCT FROM ?", [key])
        self.made.sql("INSERT INTO t VALUES (?, ?, 1, ?)", [key, name, changed])

    # What runs do

    def run(self, trouble: list[Any], **options: Any) -> None:
        script(self.made, *trouble)
        with contextlib.suppress(RetlError):
            self.made.run(**options)
        script(self.made)

    def limited(self, trouble: list[Any], limit: int) -> None:
        self.run(trouble, limit=limit)

    def by_key(self, trouble: list[Any], key: int) -> None:
        self.run(trouble, keys=({"id": key},))

    def kill(self, before: list[Any], fate: Any) -> None:
        self._elsewhere([*before, fate])

    def kill_at(self, moment: int) -> None:
        self._elsewhere([], die_at=moment)

    def _elsewhere(self, fates: list[Any], **how: Any) -> None:
        http = self.made.http
        assert isinstance(http, Capricious)
        script(self.made, *fates)
        sync = self.made.project.syncs[0].model_dump(exclude_unset=True, mode="json")
        how["options"] = options_to_json(RunOptions())
        http.meet(self.nursery.begin(self.made.project.base, http.url, config=CONFIG, sync=sync, **how))
        self.nursery.end()
        script(self.made)

    # What people and time do

    def resolve(self, which: int, resolution: str) -> None:
        found = [letter for letter in letters(self.made).values() if letter.record_keys]
        if not found:
            return
        letter = found[which % len(found)]
        if resolution != "fixed":
            self.decided.update((letter.record_keys["id"], name) for name in ("a", "b", "c", "bad"))
        self.made.service.resolve([letter.id], resolution, actor="somebody")

    def replay(self, which: int, trouble: list[Any]) -> None:
        found = [letter for letter in letters(self.made).values() if letter.record_keys]
        if found:
            [(_, options)] = self.made.service.replays([found[which % len(found)].id])
            self.run(trouble, keys=options.keys, replay=options.replay)

    def rest(self) -> None:
        http = self.made.http
        assert isinstance(http, Capricious)
        while http.late:
            http.land()
        self._store("UPDATE suspects SET until = '2000-01-01T00:00:00.000000Z'")

    def _store(self, statement: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.made.project.base / "retl.db", timeout=30)) as store, store:
            return store.execute(statement).fetchall()

    # What must be true

    def check(self) -> None:
        """A row below all that will be read is accepted, or something brings it back."""
        value = mark(self.made)
        if value is None:
            return
        kept = {key for table in ("suspects", "rearmed_keys") for (key,) in self._store(f"SELECT key FROM {table}")}
        waiting = kept | {f'["{key}"]' for key in letters(self.made)}
        for key, (name, changed) in self.rows.items():
            if changed is None or changed >= int(value) - LOOKBACK or (key, name) in self.decided:
                continue
            assert key is not None, f"the watermark {value} passed a row without key at {changed}"
            accepted = self.made.names().get(str(key)) == name
            assert accepted or f'["{key}"]' in waiting, f"{value} passed {key}, {name} at {changed}: {waiting}"

    def end(self) -> None:
        self.rest()
        self.made.run()
        self.made.run()
        names = self.made.names()
        for key, (name, _) in self.rows.items():
            if key is not None and name != "bad" and (key, name) not in self.decided:
                assert names.get(str(key)) == name, f"{key} is {names.get(str(key))}, not {name}"
        assert ("MISSING_KEY" in letters(self.made)) == (None in self.rows)


def run_stories(nursery: Nursery, folders: pytest.TempPathFactory, examples: int, steps: int, **how: Any) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **how)
    @given(st.lists(ACTIONS, min_size=steps // 2, max_size=steps))
    def check(actions: list[tuple[Any, ...]]) -> None:
        folder: Path = folders.mktemp("story")
        with moving_world(folder, change_detection=DETECTION, config=CONFIG, max_attempts=2) as made:
            story = Story(made, nursery)
            story.change(1, "a")
            for action in actions:
                story.tell(action)
            story.end()

    check()


def test_a_few_stories(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_stories(nursery, tmp_path_factory, 2, 12, derandomize=True)


@pytest.mark.long
def test_many_stories(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_stories(nursery, tmp_path_factory, int(os.environ.get("RETL_HISTORIES", "100")), 24)
