"""`change_detection: none`: every row is sent by every run; all else goes on as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_protocol import APPLIED, late_world, letters, refuse_bad, store
from worlds import World, world

from dagster_retl.testing.fake_http import Rules

NONE = {"change_detection": "none"}


def test_every_row_is_sent_by_every_run(tmp_path: Path) -> None:
    with world(tmp_path, **NONE) as made:
        made.put((1, "a", 1), (2, "b", 1))
        for _ in range(2):
            counters = made.run().run.counters
            assert (counters.read, counters.written, counters.unchanged) == (2, 2, 0)


def test_what_others_changed_is_overwritten(tmp_path: Path) -> None:
    with world(tmp_path, **NONE) as made:
        made.put((1, "a", 1))
        made.run()
        made.http.records["things"]["1"] = {"id": 1, "name": "edited"}
        made.run()
        assert made.names() == {"1": "a"}


@pytest.mark.parametrize("mode", ["update", "delete"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    with world(tmp_path, sync_mode=mode, **NONE) as made:
        for _ in range(2):
            made.http.records["things"] = {"1": {"id": 1, "name": "old"}}
            made.put((1, "a", 1))
            assert made.run().run.counters.written == 1
        assert made.names() == ({} if mode == "delete" else {"1": "a"})


def test_dead_letters_parking_and_silence_go_on(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad), max_attempts=2, **NONE) as made:
        made.put((1, "bad", 1), (2, "b", 1))
        assert [made.run().run.counters.failed for _ in range(3)] == [1, 1, 0]
        assert made.run().run.counters.skipped == 1
        made.put((1, "bad too", 1))
        assert made.run().run.counters.failed == 1
        made.service.resolve([letters(made)[1].id], "skipped", actor="me")
        assert made.run().run.counters.skipped == 1
        made.put((1, "good", 1))
        assert made.run().run.counters.written == 2
        assert letters(made) == {}


def test_a_letter_closes_when_its_row_leaves(tmp_path: Path) -> None:
    with world(tmp_path, Rules(refuse=refuse_bad), **NONE) as made:
        made.put((1, "bad", 1), (2, "b", 1))
        made.run()
        letter = letters(made)[1]
        made.sql("DELETE FROM t WHERE id = 1")
        made.run()
        assert made.service.dead_letter(letter.id).resolution == "source_row_missing"


def test_suspects_are_kept_and_cleared(tmp_path: Path) -> None:
    with late_world(tmp_path, config={"settle": 0.0}, **NONE) as made:
        made.put((1, "a", 1))
        made.http.expect(["late", "ok"])  # type: ignore[attr-defined]  # a capricious one
        made.run()
        assert store(made, "SELECT count(*) FROM suspects") == [(1,)]
        made.run()
        assert store(made, "SELECT count(*) FROM suspects") == [(0,)]


def test_a_snapshot_is_kept(tmp_path: Path) -> None:
    """Comparing again sends nothing, and a mirror knows what it may remove."""
    with world(tmp_path, **NONE) as made:
        made.put((1, "a", 1), (2, "b", 1))
        made.run()
        _compares(made)


def _compares(made: World) -> None:
    mirror = made.with_sync(change_detection="snapshot", sync_mode="mirror")
    with mirror.service:
        assert mirror.run().run.counters.unchanged == 2
        made.sql("DELETE FROM t WHERE id = 1")
        assert mirror.service.plan("things").totals.removed == 1


def test_a_limit_and_a_plan_know_what_is_sent(tmp_path: Path) -> None:
    with world(tmp_path, **NONE) as made:
        made.put((1, "a", 1), (2, "b", 1))
        made.run()
        assert made.service.plan("things").totals.changed == 2
        counters = made.run(limit=1).run.counters
        assert (counters.written, counters.skipped) == (1, 1)


def test_after_an_outage_every_row_is_sent_again(tmp_path: Path) -> None:
    with world(tmp_path, config={"batch_rows": 1, "concurrency": 1}, **NONE) as made:
        made.put((1, "a", 1), (2, "b", 1))
        made.http.disturb(APPLIED, times=4)
        made.run()
        assert made.run().run.counters.written == 2
