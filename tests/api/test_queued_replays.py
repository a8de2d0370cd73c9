"""`resolve` with `replay`, where the replay cannot begin at once: it is on record, and not refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from api_desk import Desk, client, serving
from fake_dagster import FakeDagster

from dagster_retl import Service
from dagster_retl.model.runs import RunStatus

SYNC = "in_the_file"


@pytest.fixture
def service(own: Desk) -> Iterator[Service]:
    """With one dead letter."""
    own.destination.latency = 0
    with Service.open(own.project()) as service:
        service.run(SYNC)
        yield service


def resolve(api: httpx.Client, service: Service, **body: Any) -> Any:
    ids = [letter.id for letter in service.dead_letters()]
    assert len(ids) == 1
    answer = api.post("/dlq/resolve", json={"entryIds": ids, "resolution": "fixed_upstream", "replay": True, **body})
    assert answer.status_code == 200, answer.text
    done = answer.json()["data"]["attributes"]
    assert done["resolved_ids"] == ids
    assert done["replay_run_ids"] == [done["replay_run_id"]]
    run = api.get(f"/runs/{done['replay_run_id']}").json()["data"]["attributes"]
    assert (run["status"], run["trigger"]) == ("queued", "replay")
    assert all(letter.replaying for letter in service.dead_letters())
    return done


def test_while_the_sync_is_running_it_is_queued(own: Desk, service: Service) -> None:
    sync = service.find(SYNC)
    run = service.queue(SYNC)
    lease = service.store.leases.acquire(sync.id, run.id)
    with service.store.begin() as conn:
        service.store.runs.start(conn, run.id, lease.token)
    with ExitStack() as stack:
        dagster = stack.enter_context(FakeDagster())
        url = stack.enter_context(serving(own.project(), dagster_url=dagster.url))
        api = stack.enter_context(client(url, own.key()))
        assert resolve(api, service) | {"resolved_at": ""} == resolve(api, service) | {"resolved_at": ""}
        assert dagster.launched == {}


def test_while_dagster_cannot_be_reached_it_is_queued_and_can_be_cancelled(own: Desk, service: Service) -> None:
    with serving(own.project()) as url, client(url, own.key()) as api:
        done = resolve(api, service)
        assert [run.id for run in service.runs(status=RunStatus.QUEUED)] == [done["replay_run_id"]]
        assert api.post(f"/runs/{done['replay_run_id']}/cancel").status_code == 202
    assert not any(letter.replaying for letter in service.dead_letters())


def test_it_is_launched_at_once_where_nothing_is_in_the_way(own: Desk, service: Service) -> None:
    with ExitStack() as stack:
        dagster = stack.enter_context(FakeDagster())
        url = stack.enter_context(serving(own.project(), dagster_url=dagster.url))
        done = resolve(stack.enter_context(client(url, own.key())), service)
        assert list(dagster.launched.values()) == [done["replay_run_id"]]


def test_the_replay_of_a_disabled_sync_is_refused(own: Desk, service: Service) -> None:
    service.set_enabled(SYNC, False, actor="test")
    ids = [letter.id for letter in service.dead_letters()]
    with serving(own.project()) as url, client(url, own.key()) as api:
        answer = api.post("/dlq/resolve", json={"entryIds": ids, "resolution": "fixed_upstream", "replay": True})
    assert answer.status_code == 409
    assert not any(letter.replaying for letter in service.dead_letters())
