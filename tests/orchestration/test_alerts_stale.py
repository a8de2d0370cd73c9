"""Alerts about syncs that have had no successful run for longer than their schedules allow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from alert_things import Inbox, tick, with_alerts
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st
from worlds import World, world

from dagster_retl.errors import ErrorCode
from dagster_retl.model.project import AlertRule
from dagster_retl.model.runs import RunOptions, RunStatus
from dagster_retl.model.sync_settings import Schedule
from dagster_retl.orchestration.alerting.staleness import due
from dagster_retl.orchestration.freshness import overdue_after
from dagster_retl.service import Service

HOURLY = "0 * * * *"
STALE = "things into http_service is stale: no run has succeeded for too long"
FRESH = "things into http_service is up to date again"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path, inbox: Inbox) -> Iterator[World]:
    with world(tmp_path, schedule=HOURLY) as plain:
        watched = with_alerts(plain, AlertRule(notify=(inbox.address,), on=("stale", "recovered")))
        with watched.service:
            yield watched


def ended(made: World, *, hours_ago: float, code: ErrorCode | None = None, **options: Any) -> None:
    """A run of the past, as the engine leaves it in the store."""
    store, sync = made.service.store, made.project.syncs[0]
    run = store.runs.create(sync.id, sync.slug, RunOptions(**options))
    with store.begin() as conn:
        store.runs.finish(
            conn, run.id, RunStatus.FAILED if code else RunStatus.SUCCEEDED, run.counters, error_code=code
        )
    past = _text(datetime.now(UTC) - timedelta(hours=hours_ago))
    made.store(f"UPDATE runs SET created_at = '{past}', finished_at = '{past}' WHERE id = '{run.id}'")


def pass_time(made: World, hours: float) -> None:
    """What was said and watched is of the past by now."""
    past = _text(datetime.now(UTC) - timedelta(hours=hours))
    made.store(f"UPDATE notices SET notified_at = '{past}'")


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def edited(made: World, **changes: Any) -> World:
    """The same world after somebody edited the sync and kept the alerts."""
    again = made.with_sync(**changes)
    project = again.project.model_copy(update={"alerts": made.project.alerts})
    return World(project, Service(project), made.http, made.warehouse)


def test_a_sync_whose_last_success_is_too_old_is_told_once_and_when_a_run_succeeds(made: World, inbox: Inbox) -> None:
    ended(made, hours_ago=1)
    tick(made.project)
    assert inbox.titles() == []
    made.store("DELETE FROM runs")
    ended(made, hours_ago=2)
    tick(made.project)
    [message] = inbox.messages
    assert (message["title"], message["type"]) == (STALE, "failure")
    for words in ("`things`: last succeeded at", "was due by", "`0 * * * *` UTC", "`retl run things`", "daemon"):
        assert words in message["message"]
    inbox.messages.clear()
    tick(made.project)
    assert inbox.titles() == []
    made.put((1, "a", 1))
    made.run()
    tick(made.project)
    assert inbox.titles() == [FRESH]
    tick(made.project)
    assert inbox.titles() == []


def test_it_is_told_again_after_a_while(made: World, inbox: Inbox) -> None:
    ended(made, hours_ago=5)
    tick(made.project)
    pass_time(made, 25)
    tick(made.project)
    assert inbox.titles() == [STALE, f"Still: {STALE}"]


@pytest.mark.parametrize(
    "attempt",
    [
        {"code": ErrorCode.AUTH},
        {"dry_run": True},
        {"limit": 5},
        {"keys": ({"id": 1},)},
        {"replay": ("retl_dlq_1",)},
    ],
)
def test_what_did_not_deliver_the_whole_query_makes_nothing_fresh(
    made: World, inbox: Inbox, attempt: dict[str, Any]
) -> None:
    ended(made, hours_ago=3)
    ended(made, hours_ago=0, **attempt)
    tick(made.project)
    assert inbox.titles() == [STALE]


@pytest.mark.parametrize("options", [{"full_refresh": True}, {"baseline": True}])
def test_what_did_makes_it_fresh(made: World, inbox: Inbox, options: dict[str, Any]) -> None:
    ended(made, hours_ago=3)
    ended(made, hours_ago=0, **options)
    tick(made.project)
    assert inbox.titles() == []


def test_a_sync_that_never_ran_is_watched_from_when_it_was_first_seen(made: World, inbox: Inbox) -> None:
    tick(made.project)
    pass_time(made, 1.2)
    tick(made.project)
    assert inbox.titles() == []
    pass_time(made, 1.3)
    tick(made.project)
    assert inbox.messages[0]["title"] == STALE
    assert "`things`: has never succeeded" in inbox.messages[0]["message"]


@pytest.mark.parametrize("changes", [{"schedule": "manual"}, {"schedule": "on_upstream"}, {"enabled": False}])
def test_nobody_waits_for_a_sync_that_no_clock_runs(made: World, inbox: Inbox, changes: dict[str, Any]) -> None:
    ended(made, hours_ago=100)
    quiet = edited(made, **changes)
    with quiet.service:
        tick(quiet.project)
        assert inbox.titles() == []


def test_nobody_waits_where_writes_are_off(made: World, inbox: Inbox) -> None:
    ended(made, hours_ago=100)
    tick(made.project.model_copy(update={"writes": False}))
    assert inbox.titles() == []


def test_a_sync_that_was_enabled_again_has_time_to_run(made: World, inbox: Inbox) -> None:
    ended(made, hours_ago=100)
    tick(made.project)
    made.service.set_enabled("things", False, actor="test")
    tick(made.project)
    pass_time(made, 50)
    made.service.set_enabled("things", True, actor="test")
    tick(made.project)
    assert inbox.titles() == [STALE]  # and no recovery: nothing succeeded
    pass_time(made, 2)
    tick(made.project)
    assert inbox.titles() == [STALE]


def test_another_schedule_counts_from_when_it_was_seen(made: World, inbox: Inbox) -> None:
    monthly = edited(made, schedule="0 0 1 * *")
    with monthly.service:
        ended(monthly, hours_ago=100)
        tick(monthly.project)
    tick(made.project)
    assert inbox.titles() == []
    pass_time(made, 2)
    tick(made.project)
    assert inbox.titles() == [STALE]


def test_many_stale_syncs_of_a_destination_are_one_message_and_one_query(made: World, inbox: Inbox) -> None:
    one = made.project.syncs[0]
    syncs = tuple(one.model_copy(update={"name": f"sync {n}", "slug": f"sync_{n}"}) for n in range(300))
    crowd = made.project.model_copy(update={"syncs": syncs})
    tick(crowd)
    assert inbox.titles() == []
    pass_time(made, 2)
    tick(crowd)
    [message] = inbox.messages
    assert message["title"] == "300 syncs into http_service are stale: no run has succeeded for too long"
    assert "and 280 more syncs" in message["message"]


def test_watches_of_syncs_that_are_gone_are_forgotten(made: World) -> None:
    tick(made.project)
    assert len(made.service.store.notices.all("watch/")) == 1
    tick(made.project.model_copy(update={"syncs": ()}))
    assert made.service.store.notices.all("watch/") == []


def test_without_a_rule_nothing_is_watched(made: World) -> None:
    deaf = with_alerts(made, AlertRule(notify=("json://127.0.0.1",)))
    with deaf.service:
        tick(deaf.project)
        assert deaf.service.store.notices.all() == []


@pytest.mark.parametrize(
    ("expression", "pause"),
    [
        ("*/15 8-18 * * 1-5", timedelta(days=2, hours=13, minutes=15)),
        ("* 9-17 * * 1-5", timedelta(days=2, hours=15, minutes=1)),
        ("30,0 22-2 * * *", timedelta(hours=19, minutes=30)),
        ("15,45 3,9 * * 2,5", timedelta(days=3, hours=17, minutes=30)),
        ("0 0 1 * *", timedelta(days=31)),
        ("0 6 * 1-3 *", timedelta(days=276)),
        ("7 * * * *", timedelta(hours=1)),
    ],
)
def test_nights_and_week_ends_are_pauses_however_often_it_runs(expression: str, pause: timedelta) -> None:
    assert overdue_after(expression) == pause + max(timedelta(minutes=15), pause / 10)


PARIS = Schedule(type="cron", expression="0 */4 * * *", timezone="Europe/Paris")


def test_the_night_when_clocks_are_set_back_is_an_hour_longer() -> None:
    evening = datetime(2024, 10, 26, 22, 5, tzinfo=UTC)  # 00:05 in Paris; clocks go back at 03:00
    assert due(PARIS, evening) - evening == timedelta(hours=5, minutes=24)
    assert due(PARIS, evening + timedelta(days=1)) - evening - timedelta(days=1) == timedelta(hours=4, minutes=24)
    spring = datetime(2024, 3, 30, 23, 5, tzinfo=UTC)
    assert due(PARIS, spring) - spring == timedelta(hours=4, minutes=24)


@given(
    st.integers(0, 730),
    st.sampled_from(["Europe/Paris", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    st.sampled_from(["0 */4 * * *", "*/15 * * * *", "30 2 * * *", "0 9-17 * * 1-5", "15 1,5 * * *"]),
)
def test_a_sync_that_runs_at_each_tick_is_never_stale(day: int, zone: str, expression: str) -> None:
    """Each run takes five minutes, also around the days when clocks are set."""
    schedule = Schedule(type="cron", expression=expression, timezone=zone)
    begin = datetime(2024, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(days=day)
    ticks = croniter(expression, begin, ret_type=datetime)
    ends = [ticks.get_next().astimezone(UTC) + timedelta(minutes=5) for _ in range(60)]
    for one, following in pairwise(ends):
        assert following <= due(schedule, one)
