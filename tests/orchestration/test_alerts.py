"""Alerts from end to end: real runs, a real store, Apprise, and an inbox on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alert_things import Inbox, tick, with_alerts
from worlds import World, world

from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.project import AlertRule
from dagster_retl.model.runs import Guard, RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.alerting.tick import tick as look
from dagster_retl.orchestration.alerts import alert_sensor
from dagster_retl.service import Service
from dagster_retl.testing.fake_http import Rules


def no_bad(record: Any) -> str | None:
    return "a name cannot be bad" if str(record.get("name", "")).startswith("bad") else None


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path, inbox: Inbox) -> Iterator[World]:
    with world(tmp_path, Rules(refuse=no_bad), sync_mode="mirror") as plain:
        watched = with_alerts(plain, AlertRule(notify=(inbox.address,)))
        with watched.service:
            yield watched


def break_query(made: World) -> None:
    made.sql("ALTER TABLE t RENAME TO elsewhere")


def mend_query(made: World) -> None:
    made.sql("ALTER TABLE elsewhere RENAME TO t")


def fail(made: World) -> None:
    with pytest.raises(RetlError):
        made.run()


def test_nothing_is_said_while_all_is_well(made: World, inbox: Inbox) -> None:
    made.put((1, "a", 1))
    made.run()
    assert tick(made.project).skip_reason == dg.SkipReason("nothing new")
    assert inbox.titles() == []


def test_dead_letters_are_told_once_and_when_they_are_gone(made: World, inbox: Inbox) -> None:
    made.put((1, "bad", 1), (2, "good", 2), (3, "bad too", 3))
    made.run()
    tick(made.project)
    [message] = inbox.messages
    assert message["title"] == "2 rows were not written to http_service: DESTINATION_VALIDATION"
    assert message["type"] == "warning"
    for words in ("`things` (2)", "id = 1", "id = 3", "INVALID", "a name cannot be bad"):
        assert words in message["message"]
    assert "`retl dlq list things --code DESTINATION_VALIDATION`" in message["message"]
    assert "`retl dlq replay --sync things`" in message["message"]
    inbox.messages.clear()
    tick(made.project)
    made.put((4, "bad as well", 4))
    made.run()
    tick(made.project)
    assert inbox.titles() == []
    made.put((1, "b", 1), (3, "b", 3), (4, "b", 4))
    made.run()
    tick(made.project)
    assert inbox.titles() == ["No dead letters are left for http_service: DESTINATION_VALIDATION"]
    tick(made.project)
    assert inbox.titles() == []
    assert made.service.store.notices.all() == []


def test_a_failed_run_is_told_once_and_when_the_next_one_succeeds(made: World, inbox: Inbox) -> None:
    break_query(made)
    fail(made)
    tick(made.project)
    [message] = inbox.messages
    run = made.service.runs()[0]
    assert message["title"] == f"things into http_service fails: {run.error_code}"
    assert message["type"] == "failure"
    assert run.id in message["message"]
    assert "Table with name t does not exist" in message["message"]
    inbox.messages.clear()
    fail(made)
    tick(made.project)
    assert inbox.titles() == []
    mend_query(made)
    made.put((1, "a", 1))
    made.run()
    tick(made.project)
    assert inbox.titles() == [f"things into http_service works again: {run.error_code}"]
    tick(made.project)
    assert inbox.titles() == []


def test_dry_and_cancelled_runs_say_nothing(made: World, inbox: Inbox) -> None:
    store, sync = made.service.store, made.project.syncs[0]
    dry = store.runs.create(sync.id, sync.slug, RunOptions(dry_run=True))
    cancelled = store.runs.create(sync.id, sync.slug)
    with store.begin() as conn:
        store.runs.finish(conn, dry.id, RunStatus.FAILED, dry.counters, error_code=ErrorCode.AUTH)
        store.runs.finish(conn, cancelled.id, RunStatus.CANCELLED, dry.counters, error_code=ErrorCode.CANCELLED)
    tick(made.project)
    assert inbox.titles() == []


def test_a_cancelled_run_does_not_end_a_failure(made: World, inbox: Inbox) -> None:
    end_run(made.service, made.project.syncs[0], ErrorCode.AUTH)
    tick(made.project)
    store, sync = made.service.store, made.project.syncs[0]
    run = store.runs.create(sync.id, sync.slug)
    with store.begin() as conn:
        store.runs.finish(conn, run.id, RunStatus.CANCELLED, run.counters)
    tick(made.project)
    assert inbox.titles() == ["things into http_service fails: AUTH"]


def test_a_tripped_guard_says_how_to_override_it(made: World, inbox: Inbox) -> None:
    made.put(*[(n, f"n{n}", n) for n in range(30)])
    made.run()
    made.sql("DELETE FROM t WHERE id < 12")
    fail(made)
    tick(made.project)
    [message] = inbox.messages
    assert message["title"] == "Guard 'deletes' stopped things into http_service"
    assert "12 of 30 records would be deleted" in message["message"]
    assert "`retl run things --override deletes`" in message["message"]
    inbox.messages.clear()
    made.run(overrides=frozenset({Guard.DELETES}))
    tick(made.project)
    assert inbox.titles() == ["things into http_service works again: guard 'deletes'"]


def end_run(service: Service, sync: Sync, code: ErrorCode | None, message: str = "the token expired") -> None:
    """A run that ended, as the engine leaves it in the store."""
    run = service.store.runs.create(sync.id, sync.slug)
    status = RunStatus.FAILED if code else RunStatus.SUCCEEDED
    with service.store.begin() as conn:
        service.store.runs.finish(
            conn, run.id, status, run.counters, error_code=code, error_message=message if code else None
        )


def many(made: World, count: int) -> World:
    """The same world with so many syncs of one destination."""
    one = made.project.syncs[0]
    syncs = tuple(one.model_copy(update={"name": f"sync {n}", "slug": f"sync_{n}"}) for n in range(count))
    return World(made.project.model_copy(update={"syncs": syncs}), made.service, made.http, made.warehouse)


def test_one_expired_token_behind_many_syncs_is_one_message(made: World, inbox: Inbox) -> None:
    crowd = many(made, 200)
    for sync in crowd.project.syncs:
        end_run(made.service, sync, ErrorCode.AUTH)
    tick(crowd.project)
    [message] = inbox.messages
    assert message["title"] == "200 syncs into http_service fail: AUTH"
    assert message["message"].count("the token expired") == 1
    assert "`sync_0`" in message["message"]
    assert "and 180 more syncs" in message["message"]
    inbox.messages.clear()
    for sync in crowd.project.syncs[1:]:
        end_run(made.service, sync, None)
    tick(crowd.project)
    assert inbox.titles() == []
    end_run(made.service, crowd.project.syncs[0], None)
    tick(crowd.project)
    assert inbox.titles() == ["200 syncs into http_service work again: AUTH"]


def test_another_reason_is_no_recovery(made: World, inbox: Inbox) -> None:
    sync = made.project.syncs[0]
    end_run(made.service, sync, ErrorCode.AUTH)
    tick(made.project)
    end_run(made.service, sync, ErrorCode.PERMISSION)
    tick(made.project)
    end_run(made.service, sync, None)
    tick(made.project)
    assert inbox.titles() == [
        "things into http_service fails: AUTH",
        "things into http_service fails: PERMISSION",
        "things into http_service works again: PERMISSION",
    ]


def test_a_run_that_was_turned_away_by_a_live_one_is_no_failure(made: World, inbox: Inbox) -> None:
    end_run(made.service, made.project.syncs[0], ErrorCode.LEASE_HELD)
    tick(made.project)
    assert inbox.titles() == []


def test_what_cannot_be_delivered_is_tried_again_and_blocks_nobody(made: World, inbox: Inbox) -> None:
    with Inbox() as broken:
        broken.broken = True
        crowd = with_alerts(many(made, 2), AlertRule(notify=(broken.address, inbox.address)))
        news = ["sync_0 into http_service fails: AUTH", "sync_1 into http_service fails: QUOTA_EXHAUSTED"]
        with crowd.service:
            end_run(crowd.service, crowd.project.syncs[0], ErrorCode.AUTH)
            end_run(crowd.service, crowd.project.syncs[1], ErrorCode.QUOTA_EXHAUSTED)
            first = tick(crowd.project)
            assert first.skip_reason is not None
            reason = str(first.skip_reason.skip_message)
            assert "alerts[0].notify[0] (json) could not be told" in reason
            assert "messages that wait: 2" in reason
            assert broken.url.removeprefix("http://") not in reason
            assert len(broken.requests) == 1
            assert inbox.titles() == news
            second = tick(crowd.project, first.cursor)
            broken.broken = False
            third = tick(crowd.project, second.cursor)
            assert broken.titles() == news
            tick(crowd.project, third.cursor)
            assert (broken.titles(), inbox.titles()) == ([], [])


def test_what_ended_before_it_could_be_told_is_told_with_its_end(made: World, inbox: Inbox) -> None:
    sync = made.project.syncs[0]
    inbox.broken = True
    end_run(made.service, sync, ErrorCode.AUTH)
    tick(made.project)
    end_run(made.service, sync, None)
    tick(made.project)
    inbox.broken = False
    tick(made.project)
    [message] = inbox.messages
    assert message["title"] == "things into http_service works again: AUTH"
    assert "could not be delivered" in message["message"]
    inbox.messages.clear()
    tick(made.project)
    assert inbox.titles() == []


def test_what_lasts_is_told_again_after_a_while(made: World, inbox: Inbox) -> None:
    hasty = with_alerts(made, AlertRule(notify=(inbox.address,), repeat_after=timedelta(seconds=0)))
    with hasty.service:
        end_run(hasty.service, hasty.project.syncs[0], ErrorCode.AUTH)
        tick(hasty.project)
        tick(hasty.project)
        assert inbox.titles() == ["things into http_service fails: AUTH", "Still: things into http_service fails: AUTH"]


def test_a_number_of_dead_letters_is_told_when_it_is_reached(made: World, inbox: Inbox) -> None:
    limit = {"new_codes": False, "open": 3}
    patient = with_alerts(made, AlertRule.model_validate({"notify": [inbox.address], "dead_letters": limit}))
    with patient.service:
        made.put((1, "bad", 1), (2, "bad", 2))
        made.run()
        tick(patient.project)
        assert inbox.titles() == []
        made.put((3, "bad", 3))
        made.run()
        tick(patient.project)
        assert inbox.titles() == ["3 rows were not written to http_service: DESTINATION_VALIDATION"]
        made.put((4, "bad", 4))
        made.run()
        tick(patient.project)
        assert inbox.titles() == []


def test_each_rule_tells_what_it_is_for(made: World, inbox: Inbox) -> None:
    with Inbox() as guards, Inbox() as ends:
        split = with_alerts(
            made,
            AlertRule(notify=(inbox.address,), on=("run_failed",)),
            AlertRule(notify=(guards.address,), on=("guard_tripped",)),
            AlertRule(notify=(ends.address,), on=("recovered",)),
        )
        with split.service:
            end_run(split.service, split.project.syncs[0], ErrorCode.AUTH)
            tick(split.project)
            end_run(split.service, split.project.syncs[0], None)
            tick(split.project)
            assert inbox.titles() == ["things into http_service fails: AUTH"]
            assert guards.titles() == []
            assert ends.titles() == ["things into http_service works again: AUTH"]
            assert split.service.store.notices.all("alert/") == []


def test_old_history_is_no_flood(made: World, inbox: Inbox) -> None:
    for _ in range(30):
        end_run(made.service, made.project.syncs[0], ErrorCode.AUTH)
        end_run(made.service, made.project.syncs[0], ErrorCode.TIMEOUT)
        end_run(made.service, made.project.syncs[0], None)
    end_run(made.service, made.project.syncs[0], ErrorCode.QUOTA_EXHAUSTED)
    tick(made.project)
    assert inbox.titles() == ["things into http_service fails: QUOTA_EXHAUSTED"]


def test_the_syncs_of_another_project_in_the_store_are_none_of_its_business(made: World, inbox: Inbox) -> None:
    foreign = made.project.syncs[0].model_copy(update={"project": "another"})
    end_run(made.service, foreign, ErrorCode.AUTH)
    tick(made.project)
    assert inbox.titles() == []


def test_the_sensor_of_one_sync_tells_of_no_other(made: World, inbox: Inbox) -> None:
    other = made.project.syncs[0].model_copy(update={"name": "other", "slug": "other"})
    data = other.model_dump(mode="json", exclude_unset=True, exclude={"project", "slug"})
    stored = made.service.editor.create({**data, "sync_mode": "upsert"}, actor="ann").entry.sync
    end_run(made.service, stored, ErrorCode.AUTH)
    look(made.service, of="things")
    assert inbox.titles() == []
    look(made.service)
    assert inbox.titles() == ["other into http_service fails: AUTH"]


def test_links_lead_into_dagster(made: World, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETL_DAGSTER_URL", "http://dagster.example/")
    made.put((1, "bad", 1))
    made.run()
    tick(made.project)
    assert "[things in Dagster](http://dagster.example/assets/retl/things)" in inbox.messages[0]["message"]


def test_the_sensor_runs_unless_writes_are_off(made: World) -> None:
    on = alert_sensor(made.project, lambda: made.service)
    off = alert_sensor(made.project.model_copy(update={"writes": False}), lambda: made.service)
    assert (on.name, on.minimum_interval_seconds) == ("retl_alerts", 30)
    assert on.default_status is dg.DefaultSensorStatus.RUNNING
    assert off.default_status is dg.DefaultSensorStatus.STOPPED


def test_no_rules_open_no_store(tmp_path: Path) -> None:
    with world(tmp_path) as plain:
        tick(plain.project)
        assert not (tmp_path / "retl.db").exists()
