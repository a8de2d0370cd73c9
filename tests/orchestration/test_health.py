"""The health sensor: destinations that are down are asked, others only where somebody wants that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alert_things import Inbox, tick
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from worlds import World, world

from dagster_retl.errors import ErrorCode
from dagster_retl.model.project import AlertRule, Destination, Project
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.orchestration.build import build_definitions
from dagster_retl.orchestration.circuit import why_left_alone
from dagster_retl.orchestration.health import CHECKS, health_sensor
from dagster_retl.service import Service
from dagster_retl.testing.server import LoopbackServer, Received, Reply

NOBODY = "http://127.0.0.1:9"
TOKEN = "t0p-s3cret-t0ken"


class Vendor(LoopbackServer):
    """A service that answers checks with a status of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.checks = 0

    def handle(self, request: Received) -> Reply:
        self.checks += request.method == "GET"
        return Reply.json({"message": f"no entry for {TOKEN}"} if self.status >= 400 else {}, self.status)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with Vendor() as running:
        yield running


@pytest.fixture
def made(tmp_path: Path, vendor: Vendor) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def project(made: World, url: str, *, syncs: int = 1, **changes: Any) -> Project:
    """The same project, its destination (and others like it, one for each sync more) at this address."""
    config = {
        "url": f"{url}/v1/{{object}}",
        "check_url": f"{url}/v1/ping",
        "auth": {"type": "bearer", "token": TOKEN},
    }
    names = ["http_service", *(f"http_{number}" for number in range(1, syncs))]
    destinations = {
        name: Destination.model_validate({"id": name, "connector": "http", "config": config, **changes})
        for name in names
    }
    one = made.project.syncs[0]
    every = [one.model_copy(update={"destination_id": name, "name": name, "slug": name}) for name in names[1:]]
    return made.project.model_copy(update={"destinations": destinations, "syncs": (one, *every)})


def evaluate(asked: Project) -> str:
    """One tick of a fresh sensor; what it says."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = health_sensor(asked, lambda: Service.open(asked))(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SkipReason)
        return str(result.skip_message)


def run_down(made: World, sync_id: str | None = None) -> Run:
    """A run that found its destination down, as the engine leaves it."""
    store, sync = made.service.store, made.project.syncs[0]
    run = store.runs.create(sync_id or sync.id, sync.slug)
    with store.begin() as conn:
        store.runs.finish(
            conn, run.id, RunStatus.FAILED, run.counters, error_code=ErrorCode.DESTINATION_DOWN, error_message="gone"
        )
    return store.runs.get(run.id)


def a_while_passes(made: World, minutes: float = 2) -> None:
    """All that was seen was seen so much earlier."""
    for table, column in (
        ("destination_health", "checked_at"),
        ("destination_health", "since"),
        ("runs", "finished_at"),
    ):
        made.store(
            f"UPDATE {table} SET {column} = strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '-{minutes * 60} seconds')"
        )


def left_alone(asked: Project, after: timedelta = timedelta()) -> str | None:
    with Service.open(asked) as service:
        return why_left_alone(service.outages(), asked.syncs[0], service.store.now() + after)


def test_nobody_is_asked_while_all_is_well(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url)
    assert evaluate(asked) == "no destination is to be asked"
    assert vendor.checks == 0


def test_a_destination_that_answers_again_gets_its_schedules_back(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url)
    run = run_down(made)
    assert f"is down, says {run.id}: DESTINATION_DOWN gone" in str(left_alone(asked))
    assert evaluate(asked) == "http_service answers again"
    assert left_alone(asked) is None
    assert evaluate(asked) == "no destination is to be asked"
    assert vendor.checks == 1


def test_one_that_does_not_is_left_alone_as_long_as_that_is_so(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url)
    run_down(made)
    vendor.status = 401
    assert "http_service is down: AUTH" in evaluate(asked)
    for _ in range(4):
        a_while_passes(made)
        assert "http_service is down: AUTH" in evaluate(asked)
    said = str(left_alone(asked))
    assert "is down, says the check at" in said
    with Service.open(asked) as service:
        outage = service.outages()["http_service"]
        assert service.store.now() - outage.since > timedelta(minutes=8)
    assert left_alone(asked, timedelta(minutes=6)) is None
    vendor.status = 200
    a_while_passes(made)
    assert evaluate(asked) == "http_service answers again"
    assert left_alone(asked) is None


def test_one_that_is_down_is_not_asked_all_the_time(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url)
    run_down(made)
    vendor.status = 401
    evaluate(asked)
    before = vendor.checks
    assert evaluate(asked) == "no destination is to be asked"
    assert vendor.checks == before


def test_a_destination_that_nobody_listens_at_takes_little_time(made: World) -> None:
    run_down(made)
    assert "http_service is down: DESTINATION_UNAVAILABLE" in evaluate(project(made, NOBODY))


def test_a_destination_that_takes_its_time_is_down(made: World, vendor: Vendor) -> None:
    vendor.latency = 2
    with Service.open(project(made, vendor.url)) as service:
        found = service.probe("http_service", timeout=0.3)
    assert found is not None
    assert found.down
    vendor.latency = 0


def test_what_is_kept_and_said_holds_no_secret(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url)
    run_down(made)
    vendor.status = 403
    said = evaluate(asked)
    assert "no entry for" in said
    [(kept,)] = made.store("SELECT message FROM destination_health")
    assert TOKEN not in said + kept + str(left_alone(asked))


def test_a_connector_that_cannot_ask_says_nothing(made: World) -> None:
    config = {"url": f"{NOBODY}/v1/{{object}}"}
    asked = made.project.model_copy(
        update={"destinations": {"http_service": Destination(id="http_service", connector="http", config=config)}}
    )
    run_down(made)
    assert "http_service cannot be asked" in evaluate(asked)
    assert left_alone(asked) is not None
    assert left_alone(asked, timedelta(minutes=6)) is None


def test_check_every_asks_what_nobody_has_heard_of_for_so_long(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url, check_every="15m")
    assert evaluate(asked) == "http_service answers"
    assert evaluate(asked) == "no destination is to be asked"
    a_while_passes(made, 14)
    assert evaluate(asked) == "no destination is to be asked"
    a_while_passes(made, 1)
    vendor.status = 401
    assert "http_service is down: AUTH" in evaluate(asked)
    assert left_alone(asked) is not None


def test_a_run_that_was_answered_is_as_good_as_a_check(made: World) -> None:
    made.put((1, "a", 1))
    made.run()
    watched = made.project.destinations["http_service"].model_copy(update={"check_every": timedelta(minutes=15)})
    assert (
        evaluate(made.project.model_copy(update={"destinations": {"http_service": watched}}))
        == "no destination is to be asked"
    )


def test_those_that_wait_longest_are_asked_first_and_a_few_at_a_time(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url, syncs=CHECKS + 2, check_every="1m")
    first = evaluate(asked)
    assert first.endswith("others wait for the next tick")
    assert vendor.checks == CHECKS
    second = evaluate(asked)
    assert vendor.checks == CHECKS + 2
    told = [part.partition(" ")[0] for part in first.split("; ")[:-1] + second.split("; ")]
    assert sorted(told) == sorted(asked.destinations)


def test_another_project_of_the_store_has_its_own_health(made: World, vendor: Vendor) -> None:
    asked = project(made, vendor.url)
    vendor.status = 401
    made.service.store.health.record("another", "http_service", error_code="AUTH", message="x")
    assert left_alone(asked) is None
    assert evaluate(asked) == "no destination is to be asked"


def test_a_schedule_and_the_offline_check_say_why(made: World, vendor: Vendor) -> None:
    plain = project(made, vendor.url, check_every="1m")
    cron = plain.syncs[0].model_validate(plain.syncs[0].model_dump(exclude_unset=True) | {"schedule": "0 * * * *"})
    asked = plain.model_copy(update={"syncs": (cron,)})
    vendor.status = 401
    evaluate(asked)
    [schedule] = build_definitions(asked).schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    with dg.DagsterInstance.ephemeral() as instance:
        skipped = schedule(dg.build_schedule_context(instance=instance))
    assert isinstance(skipped, dg.SkipReason)
    assert "http_service is down, says the check at" in str(skipped.skip_message)
    with Service.open(asked) as service:
        [finding] = [each for each in service.check(offline=True) if each.subject == "destination http_service"]
    assert "; down since " in finding.detail


def alerted(asked: Project, *rules: AlertRule) -> Project:
    return asked.model_copy(update={"alerts": rules})


def test_an_outage_is_one_message_and_its_end_another(made: World, vendor: Vendor) -> None:
    with Inbox() as inbox:
        asked = alerted(project(made, vendor.url, syncs=1), AlertRule(notify=(inbox.address,)))
        run_down(made)
        tick(asked)
        [message] = inbox.messages
        assert message["title"] == "http_service is down"
        assert "DESTINATION_DOWN: gone" in message["message"]
        assert "`things` waits until it answers" in message["message"]
        assert inbox.titles()
        vendor.status = 401
        evaluate(asked)
        run_down(made)
        for _ in range(2):
            tick(asked)
        assert inbox.titles() == []
        vendor.status = 200
        a_while_passes(made)
        assert evaluate(asked) == "http_service answers again"
        for _ in range(2):
            tick(asked)
        assert inbox.titles() == ["http_service answers again"]


@pytest.mark.parametrize(
    ("on", "titles"),
    [
        (("destination_down",), ["http_service is down"]),
        (("run_failed",), ["http_service is down"]),
        (("recovered",), ["http_service answers again"]),
        (("guard_tripped",), []),
    ],
)
def test_each_rule_hears_what_it_is_for(made: World, vendor: Vendor, on: Any, titles: list[str]) -> None:
    with Inbox() as inbox:
        asked = alerted(project(made, vendor.url), AlertRule(notify=(inbox.address,), on=on))
        run_down(made)
        tick(asked)
        evaluate(asked)
        tick(asked)
        assert inbox.titles() == titles


def test_a_destination_that_is_down_without_a_run_is_told_where_it_is_watched(made: World, vendor: Vendor) -> None:
    with Inbox() as inbox:
        asked = alerted(project(made, vendor.url, check_every="1m"), AlertRule(notify=(inbox.address,)))
        evaluate(asked)
        tick(asked)
        assert inbox.titles() == []
        vendor.status = 401
        a_while_passes(made)
        evaluate(asked)
        tick(asked)
        assert inbox.titles() == ["http_service is down"]


WORDS = st.lists(st.sampled_from(["run up", "run down", "check up", "check down"]), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS)
@example(words=["run down", "check up", "check down"])
def test_the_last_word_counts_and_an_outage_begins_with_its_first(
    words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with world(tmp_path_factory.mktemp("words")) as made:
        since: datetime | None = None
        for number, word in enumerate(words):
            at = said(made, word, number)
            since = None if word.endswith("up") else since or at
            known = made.service.outages().get("http_service")
            assert (known and known.since) == since
            attempts = made.service.store.runs.last_attempts([made.project.syncs[0].id]).values()
            assert bool(made.service.outages(attempts)) == (since is not None)


def said(made: World, word: str, number: int) -> datetime:
    """A run or a check that finds the destination up or down; when."""
    if word.startswith("check"):
        outage = made.service.outages().get("http_service")
        began = outage.since if outage else None
        error = {"error_code": "AUTH", "message": "x"} if word.endswith("down") else {}
        return made.service.store.health.record(
            "default", "http_service", since=began if error else None, **error
        ).checked_at
    if word.endswith("up"):
        made.put((1, f"name {number}", 1))
        run = made.run().run
    else:
        run = run_down(made)
    assert run.finished_at is not None
    return run.finished_at


def test_the_sensor_runs_unless_writes_are_off(made: World) -> None:
    on = health_sensor(made.project, lambda: made.service)
    off = health_sensor(made.project.model_copy(update={"writes": False}), lambda: made.service)
    assert (on.name, on.minimum_interval_seconds) == ("retl_destination_health", 30)
    assert on.default_status is dg.DefaultSensorStatus.RUNNING
    assert off.default_status is dg.DefaultSensorStatus.STOPPED
