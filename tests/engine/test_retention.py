"""Retention: each run cleans up after its sync, a bounded amount; `clean` does all of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from capricious import Capricious
from nursery import Nursery
from sqlalchemy import text
from test_explain import scripted
from worlds import World, world

from dagster_retl.model.project import Retention
from dagster_retl.service import Service
from dagster_retl.testing.fake_http import Rules

SHORT = Retention(runs="1d", row_history="1d", resolved_dead_letters="1d", generations=3)


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad" if str(record["name"]).startswith("bad") else None


def short(made: World) -> World:
    project = made.project.model_copy(update={"retention": SHORT})
    return World(project, Service(project), made.http, made.warehouse)


def days_pass(made: World, days: int) -> None:
    """Everything that happened happened so many days earlier."""
    with made.service.store.begin() as conn:
        for table, columns in (
            ("runs", ("created_at", "started_at", "finished_at")),
            ("row_history", ("created_at",)),
            ("dead_letters", ("first_seen_at", "last_seen_at", "resolved_at")),
        ):
            for column in columns:
                shift = f"strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '-{days} days')"
                conn.execute(text(f"UPDATE {table} SET {column} = {shift} WHERE {column} IS NOT NULL"))
    for file in (made.project.base / "state").rglob("*.parquet"):
        moment = file.stat().st_mtime - timedelta(days=days).total_seconds()
        os.utime(file, times=(moment, moment))


def files(made: World) -> dict[str, int]:
    """How many files of each kind."""
    names = [file.name[0] for file in (made.project.base / "state").rglob("*.parquet")]
    return {kind: names.count(kind) for kind in "ghm"}


def fill(made: World) -> None:
    """Five runs that write, one letter that was resolved, one that is open."""
    for number in range(5):
        made.put((1, f"a{number}", 1), (2, "bad" if number < 2 else "good", 1), (3, "bad", 1))
        made.run()


def test_a_run_cleans_up_after_its_sync(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad)) as made:
        fill(made)
        days_pass(made, 2)
        made.put((1, "new", 1))
        last = short(made).run().run
        newest_write = made.service.runs("things")[1]
        assert [run.id for run in made.service.runs("things")] == [last.id, newest_write.id]
        assert made.service.store.history.files(last.sync_id)[0].run_id == last.id
        assert made.service.dead_letters("things", resolved=True) == []
        assert [letter.record_keys for letter in made.service.dead_letters("things")] == [{"id": 3}]
        assert files(made) == {"g": 3, "h": 1, "m": 1}


def test_what_is_young_stays(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad)) as made:
        fill(made)
        before = (len(made.service.runs("things")), files(made))
        assert before == (5, {"g": 5, "h": 5, "m": 5})
        (done,) = short(made).service.clean("things")
        assert (done.runs, done.history, done.dead_letters, done.files) == (0, 0, 0, 0)
        assert (len(made.service.runs("things")), files(made)) == before


def test_explain_forgets_what_is_not_kept_and_nothing_else_changes(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad)) as made:
        fill(made)
        days_pass(made, 2)
        (done,) = short(made).service.clean()
        assert (done.runs, done.history, done.dead_letters) == (4, 5, 1)
        told = made.service.explain("things", {"id": 1})
        assert told.delivered is not None
        assert told.now is not None
        assert (told.attempts, told.missing, told.now.outcome) == ([], [], "unchanged")
        assert made.run().run.counters.unchanged == 2


def test_the_manifest_of_a_run_that_nobody_folded_stays(tmp_path: Path, nursery: Nursery) -> None:
    with scripted(tmp_path, config={"batch_rows": 1}) as made:
        assert isinstance(made.http, Capricious)
        made.put((1, "a", 1), (2, "b", 1))
        made.http.expect(["ok", "kill"])
        made.http.meet(nursery.begin(tmp_path, made.http.url, config={"batch_rows": 1, "concurrency": 1}))
        assert nursery.end().killed
        made.http.expect([])
        days_pass(made, 5)
        short(made).service.clean()
        assert files(made) == {"g": 0, "h": 0, "m": 1}
        run = made.run().run
        assert run.counters.written + run.counters.unchanged == 2


def test_one_run_deletes_a_bounded_amount(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.run()
        sync_id = made.project.syncs[0].id
        with made.service.store.begin() as conn:
            conn.execute(text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10200) "
                "INSERT INTO row_history (sync_id, epoch, run_id, name, checksum, rows, created_at) "
                f"SELECT '{sync_id}', 'e', 'r', 'x' || i, 'c', 1, '2020-01-01T00:00:00.000000Z' FROM n"
            ))  # fmt: skip
        made.run()
        assert len(made.service.store.history.names(sync_id)) == 200
        (done,) = made.service.clean("things")
        assert (done.history, made.service.store.history.names(sync_id)) == (200, set())


@pytest.mark.parametrize("days", [0, 400])
def test_what_is_open_is_never_deleted(tmp_path: Path, days: int) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad)) as made:
        made.put((1, "bad", 1), (2, "a", 1))
        refused = made.run().run
        (letter,) = made.service.dead_letters("things")
        made.service.resolve([letter.id], "skipped", actor="me")
        made.put((3, "bad", 1))
        made.run()
        days_pass(made, days)
        made.run()
        assert [each.record_keys for each in made.service.dead_letters("things")] == [{"id": 3}]
        assert [each.id for each in made.service.dead_letters("things", resolved=True)] == [letter.id]
        assert made.run().run.counters.skipped == 1
        kept = {run.id for run in made.service.runs("things")}
        assert (refused.id in kept) == (days == 0)
