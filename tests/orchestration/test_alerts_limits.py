"""Alerts about dead letters beyond a limit: too large a share of a run, or open for too long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_things import Inbox, tick, with_alerts
from worlds import World, world

from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.project import AlertRule
from dagster_retl.model.runs import Guard
from dagster_retl.testing.fake_http import Rules

PAST = "2020-01-01T00:00:00.000000Z"


def no_bad(record: Any) -> str | None:
    return "a name cannot be bad" if str(record.get("name", "")).startswith("bad") else None


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as server:
        yield server


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, Rules(refuse=no_bad)) as made:
        yield made


def limited(made: World, inbox: Inbox, *, on: tuple[str, ...] = ("dead_letters", "recovered"), **limits: Any) -> World:
    """The same world with a rule that tells about nothing but these limits."""
    rule = {"notify": [inbox.address], "on": on, "dead_letters": {"new_codes": False, **limits}}
    return with_alerts(made, AlertRule.model_validate(rule))


def fill(made: World, good: int, bad: int) -> None:
    made.put(*[(n, "good", n) for n in range(good)], *[(1_000 + n, "bad", n) for n in range(bad)])
    made.run(overrides=frozenset({Guard.FAILURES}))


def test_a_share_of_failed_rows_above_the_limit_is_told_once_and_when_it_is_over(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, rate="10%")
    with made.service:
        fill(made, 9, 1)
        tick(made.project)
        assert inbox.titles() == []  # exactly the limit
        fill(made, 9, 2)
        tick(made.project)
        [message] = inbox.messages
        run = made.service.runs()[0]
        assert message["title"] == "More than 10% of the rows into http_service failed: 2 rows"
        assert message["type"] == "warning"
        for words in (f"18.2% failed, 2 of 11 rows, run `{run.id}`", "`retl dlq list things`"):
            assert words in message["message"]
        inbox.messages.clear()
        made.put((2_000, "bad", 1))
        made.run(overrides=frozenset({Guard.FAILURES}))
        tick(made.project)
        assert inbox.titles() == []
        fill(made, 100, 0)
        tick(made.project)
        assert inbox.titles() == ["Few enough rows into http_service fail again"]
        tick(made.project)
        assert inbox.titles() == []


def test_a_replay_of_few_rows_is_no_share_of_the_whole(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, rate="10%")
    with made.service:
        fill(made, 20, 1)
        letters = [letter.id for letter in made.letters().values()]
        [(sync_id, options)] = made.service.replays(letters)
        replay = made.service.run(sync_id, options).run
        assert (replay.counters.failed, replay.counters.read) == (1, 1)
        tick(made.project)
        assert inbox.titles() == []


def test_a_run_that_read_nothing_changes_no_share(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, rate="10%")
    with made.service:
        fill(made, 1, 1)
        tick(made.project)
        assert len(inbox.titles()) == 1
        made.sql("ALTER TABLE t RENAME TO elsewhere")
        with pytest.raises(RetlError):
            made.run()
        tick(made.project)
        assert inbox.titles() == []


def test_a_run_that_was_stopped_because_of_them_counts(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, rate="10%")
    with made.service:
        made.put(*[(n, "bad", n) for n in range(200)])
        with pytest.raises(RetlError) as caught:
            made.run()
        assert caught.value.code is ErrorCode.GUARD_TRIPPED
        tick(made.project)
        assert len(inbox.titles()) == 1


def test_an_entry_that_is_open_for_too_long_is_told_once_and_when_it_is_resolved(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, age="24h")
    with made.service:
        fill(made, 1, 2)
        tick(made.project)
        assert inbox.titles() == []
        made.store(f"UPDATE dead_letters SET first_seen_at = '{PAST}'")
        tick(made.project)
        [message] = inbox.messages
        assert message["title"] == (
            "Dead letters of http_service have been open for more than 1d: DESTINATION_VALIDATION"
        )
        for words in (
            "`things`: 2 dead letters open, the oldest since 2020-01-01 00:00 UTC",
            "`retl dlq replay --sync things`",
        ):
            assert words in message["message"]
        inbox.messages.clear()
        tick(made.project)
        assert inbox.titles() == []
        made.put((1_000, "good", 1), (1_001, "good", 1))
        made.run()
        tick(made.project)
        assert inbox.titles() == ["No dead letters of http_service are too old any more: DESTINATION_VALIDATION"]


def test_the_rest_of_the_rule_is_told_apart(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, new_codes=True, rate="10%", age="24h")
    with made.service:
        fill(made, 1, 1)
        made.store(f"UPDATE dead_letters SET first_seen_at = '{PAST}'")
        tick(made.project)
        assert sorted(inbox.titles()) == [
            "1 row was not written to http_service: DESTINATION_VALIDATION",
            "Dead letters of http_service have been open for more than 1d: DESTINATION_VALIDATION",
            "More than 10% of the rows into http_service failed: 1 row",
        ]


def test_each_address_has_its_own_limits(plain: World, inbox: Inbox) -> None:
    with Inbox() as strict:
        rules = [
            {"notify": [address], "dead_letters": {"new_codes": False, "rate": rate}}
            for address, rate in ((inbox.address, "60%"), (strict.address, "1%"))
        ]
        made = with_alerts(plain, *map(AlertRule.model_validate, rules))
        with made.service:
            fill(made, 1, 1)
            tick(made.project)
            assert inbox.titles() == []
            assert strict.titles() == ["More than 1% of the rows into http_service failed: 1 row"]


def test_a_limit_that_was_taken_back_is_no_recovery(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, rate="10%", age="24h")
    with made.service:
        fill(made, 1, 1)
        made.store(f"UPDATE dead_letters SET first_seen_at = '{PAST}'")
        tick(made.project)
        assert len(inbox.titles()) == 2
        tick(limited(plain, inbox, open=100).project)
        assert inbox.titles() == []
        assert made.service.store.notices.all("alert/") == []


def test_a_rule_for_recoveries_alone_tells_the_end(plain: World, inbox: Inbox) -> None:
    made = limited(plain, inbox, on=("recovered",), age="24h")
    with made.service:
        fill(made, 1, 1)
        made.store(f"UPDATE dead_letters SET first_seen_at = '{PAST}'")
        tick(made.project)
        assert inbox.titles() == []
        made.put((1_000, "good", 1))
        made.run()
        tick(made.project)
        assert sorted(inbox.titles()) == [
            "No dead letters are left for http_service: DESTINATION_VALIDATION",
            "No dead letters of http_service are too old any more: DESTINATION_VALIDATION",
        ]
