"""A run says what it is doing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from worlds import World, world

from dagster_retl.engine.phase import Phase, doing
from dagster_retl.errors import DestinationError
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunOptions
from dagster_retl.testing.server import Trouble


def heard(made: World, **options: object) -> list[tuple[Phase, Counters]]:
    """The phases of a run, whatever ends it."""
    seen: list[tuple[Phase, Counters]] = []
    with suppress(DestinationError):
        made.service.run("things", RunOptions(**options), on_phase=lambda *said: seen.append(said))  # type: ignore[arg-type]
    return seen


def test_a_run_enters_its_phases_in_order(tmp_path: Path) -> None:
    with world(tmp_path, sync_mode="mirror") as made:
        made.put((1, "a", 1), (2, "b", 2), (3, "c", 3))
        assert [phase for phase, _ in heard(made)] == [phase for phase in Phase if phase is not Phase.WAIT]
        made.sql("DELETE FROM t WHERE id = 1")
        made.put((2, "B", 2))
        said = {phase: doing(phase, counters) for phase, counters in heard(made)}
        assert said[Phase.EXTRACT] == "reading the query"
        assert said[Phase.DELIVER] == "sending 1 row, removing 1"
        assert {phase: doing(phase, counters) for phase, counters in heard(made)}[Phase.DELIVER] == "nothing to send"


def test_the_last_phase_knows_the_runs_counters(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1), (2, "b", 2))
        phase, counters = heard(made)[-1]
        assert (phase, counters) == (Phase.COMMIT, made.service.runs()[0].counters)


def test_a_run_that_ends_early_is_added_up_and_closed(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.http.disturb(Trouble(status=401))
        assert [phase for phase, _ in heard(made)] == [phase for phase in Phase if phase is not Phase.WAIT]


def test_a_plan_reads_and_compares_only(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        assert [phase for phase, _ in heard(made, dry_run=True)] == [Phase.EXTRACT, Phase.DIFF]


@pytest.mark.parametrize(
    ("counters", "words"),
    [
        (Counters(read=12_500, unchanged=100), "sending 12,400 rows"),
        (Counters(read=5, unchanged=5, removed=1), "removing 1 row"),
        (Counters(read=5, skipped=3, removed=2_000, delete_skipped=1), "sending 2 rows, removing 1,999"),
        (Counters(read=5, failed=5), "nothing to send"),
    ],
)
def test_what_is_sent_in_words(counters: Counters, words: str) -> None:
    assert doing(Phase.DELIVER, counters) == words


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_words(phase: Phase) -> None:
    assert doing(phase, Counters())
