"""Row history: every run that sent something leaves one file that says what became of each row."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from capricious import Capricious
from nursery import Nursery
from worlds import World, project_of, world

from dagster_retl.changes.history import RowEvent, read_history
from dagster_retl.changes.outcomes import Status
from dagster_retl.model.project import Retention
from dagster_retl.model.runs import Guard
from dagster_retl.service import Service
from dagster_retl.store.state import State, Stored
from dagster_retl.testing.fake_http import Rules


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad" if str(record["name"]).startswith("bad") else None


def events(made: World, key: int) -> list[tuple[str, RowEvent]]:
    """(run, event) of a key, oldest run first."""
    sync_id = made.project.syncs[0].id
    with duckdb.connect() as connection:
        return [
            (file.run_id, event)
            for file in made.service.store.history.files(sync_id)
            for event in read_history(connection, made.service.state.local_path(file.name, file.checksum), f'["{key}"]')
        ]


def files(made: World) -> list[str]:
    return sorted(path.name for path in (made.project.base / "state").rglob("h-*"))


def test_each_run_says_what_became_of_its_rows(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad), sync_mode="mirror") as made:
        made.put((1, "a", 1), (2, "bad", 1))
        first = made.run().run
        made.put((1, "b", 1), (2, "good", 1))
        second = made.run().run
        made.sql("DELETE FROM t WHERE id = 1")
        third = made.run(overrides=frozenset(Guard)).run

        one, two = events(made, 1), events(made, 2)
        assert [(run, e.operation, e.removal, e.status) for run, e in one] == [
            (first.id, "upsert", False, Status.WRITTEN),
            (second.id, "upsert", False, Status.WRITTEN),
            (third.id, "delete", True, Status.WRITTEN),
        ]
        assert [(run, e.status, e.error_code) for run, e in two] == [
            (first.id, Status.FAILED, "DESTINATION_VALIDATION"),
            (second.id, Status.WRITTEN, None),
        ]
        assert len({event.content for _, event in one}) == 3
        assert {event.record_keys for _, event in one} == {'{"id":1}'}
        assert first.started_at is not None
        assert all(str(first.created_at.year) in event.started_at for _, event in one)


def test_a_run_that_sends_nothing_writes_no_history(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.run()
        before = files(made)
        made.run()
        assert files(made) == before
        assert len(before) == 1


def test_the_history_of_a_killed_run_is_written_by_the_next(tmp_path: Path, nursery: Nursery) -> None:
    with Capricious(Rules()) as http:
        project = project_of(tmp_path, http.url, config={"batch_rows": 1, "concurrency": 1})
        with Service(project) as service:
            made = World(project, service, http, tmp_path / "warehouse.duckdb")
            made.sql("CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2))")
            made.put((1, "a", 1), (2, "b", 1), (3, "c", 1))
            http.expect(["ok", "kill_applied"])
            http.meet(nursery.begin(tmp_path, http.url, config={"batch_rows": 1, "concurrency": 1}))
            assert nursery.end().killed
            http.expect([])
            assert files(made) == []
            made.run()
            killed, finishing = (run.id for run in reversed(service.runs("things")))
            # When the process died, the first answer may not have been written down, the third row may have been due.
            (first, _), *again = [(e.status, run) for run, e in events(made, 1)]
            assert first in (Status.WRITTEN, Status.UNKNOWN)
            assert again == ([] if first is Status.WRITTEN else [(Status.WRITTEN, finishing)])
            assert [(run, e.status) for run, e in events(made, 2)] == [
                (killed, Status.UNKNOWN),
                (finishing, Status.WRITTEN),
            ]
            *early, last = [(run, e.status) for run, e in events(made, 3)]
            assert (early, last) in (
                ([], (finishing, Status.WRITTEN)),
                ([(killed, Status.UNKNOWN)], (finishing, Status.WRITTEN)),
            )


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        project = made.project.model_copy(update={"retention": Retention(row_history=0)})
        made.put((1, "a", 1))
        with Service(project) as service:
            assert service.run("things").run.counters.written == 1
        assert files(made) == []
        assert made.service.store.history.files(project.syncs[0].id) == []


def test_named_history_stays_and_the_rest_goes(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.run()
        (named,) = (tmp_path / "state").rglob("h-*")
        stray = named.with_name(named.name.replace(named.stem[-16:], "0" * 16))
        stray.write_bytes(named.read_bytes())
        for file in (named, stray):
            os.utime(file, times=(time.time() - 10**6,) * 2)
        made.run()
        assert files(made) == [named.name]


class FullForHistory(State):
    """On a disk that is full when the history comes."""

    def write(self, name: str, write: Callable[[Path], int | None]) -> Stored:
        def fill(path: Path) -> int | None:
            if "/h-" in name:
                path.write_bytes(b"PAR1")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(path)

        return super().write(name, fill)


class FullService(Service):
    """One with such a state."""

    def _open_state(self) -> State:
        return FullForHistory(self.project.base / "state")


@pytest.mark.parametrize("rows", [1, 25])
def test_a_history_that_cannot_be_written_fails_no_run(tmp_path: Path, rows: int) -> None:
    with world(tmp_path) as made:
        made.put(*((number, "a", 1) for number in range(rows)))
        with FullService(made.project) as service:
            run = service.run("things").run
        assert (run.status, run.counters.written) == ("succeeded", rows)
        assert [warning.partition(":")[0] for warning in run.warnings] == [
            "what became of single rows was not written down"
        ]
        assert files(made) == []
        assert made.service.store.history.files(run.sync_id) == []
        assert made.run().run.counters.unchanged == rows
