"""Two API processes on one Postgres store, asked by many at once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_desk import SYNC, Desk, build_desk, client, listening
from fake_dagster import FakeDagster
from programs import ROOT, eventually, free_port

from dagster_retl import Service
from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import Operation
from dagster_retl.model.runs import RunStatus
from dagster_retl.store.dead_letters import Failure


@contextmanager
def process(desk: Desk, dagster: FakeDagster) -> Iterator[str]:
    port = free_port()
    environment = {
        **os.environ,
        "RETL_PROJECT": str(desk.path),
        "RETL_DAGSTER_URL": dagster.url,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "dagster_retl.api", "--port", str(port), "--rate-limit", "10000"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as running:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            errors = running.communicate()[1].decode()
        assert "Traceback" not in errors, errors


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


class Pair:
    """Both processes, and the store behind them."""

    def __init__(self, service: Service, dagster: FakeDagster, apis: list[httpx.Client]) -> None:
        self.service = service
        self.dagster = dagster
        self.apis = apis

    def at_once(self, count: int, ask: Callable[[httpx.Client, int], httpx.Response]) -> list[httpx.Response]:
        """Ask both processes in turn, all at the same time; nothing may crash."""
        with ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda number: ask(self.apis[number % 2], number), range(count)))
        assert [answer.text for answer in answers if answer.status_code >= 500] == []
        return answers

    def create(self, name: str) -> str:
        created = self.apis[0].post("/syncs", json={**SYNC, "name": name})
        assert created.status_code == 201, created.text
        return str(created.json()["data"]["id"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, _postgres_server: Any) -> Iterator[Pair]:
    url = _postgres_server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    with ExitStack() as stack:
        destination, dagster = stack.enter_context(listening()), stack.enter_context(FakeDagster())
        folder: Path = tmp_path_factory.mktemp("pair")
        desk = build_desk(folder, destination, store=url)
        service = stack.enter_context(Service.open(desk.project()))
        key = desk.key()
        addresses = [stack.enter_context(process(desk, dagster)) for _ in range(2)]
        eventually("both APIs", lambda: all(map(_ready, addresses)))
        yield Pair(service, dagster, [stack.enter_context(client(address, key)) for address in addresses])


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def test_one_of_many_gets_a_name(pair: Pair) -> None:
    answers = pair.at_once(8, lambda api, _: api.post("/syncs", json={**SYNC, "name": "contested"}))
    assert statuses(answers) == {201: 1, 409: 7}
    [winner] = [answer.json()["data"]["id"] for answer in answers if answer.status_code == 201]
    losers = [answer.json()["error"]["details"][0]["id"] for answer in answers if answer.status_code == 409]
    assert set(losers) == {winner}


def test_one_of_many_changes_a_version(pair: Pair) -> None:
    sync_id = pair.create("versioned")
    answers = pair.at_once(
        8,
        lambda api, number: api.put(
            f"/syncs/{sync_id}", json={"description": f"by {number}"}, headers={"If-Match": '"1"'}
        ),
    )
    assert statuses(answers) == {200: 1, 412: 7}
    assert [each.version for each in pair.service.store.syncs.versions(sync_id)] == [2, 1]


def test_one_of_many_starts_a_run_and_the_others_are_told_which(pair: Pair) -> None:
    sync_id = pair.create("run by many")
    answers = pair.at_once(8, lambda api, _: api.post("/sync/run", json={"syncId": sync_id}))
    assert statuses(answers) == {202: 1, 409: 7}
    [run_id] = [answer.json()["data"]["id"] for answer in answers if answer.status_code == 202]
    assert {answer.json()["error"]["details"][0]["id"] for answer in answers if answer.status_code == 409} == {run_id}
    assert list(pair.dagster.launched.values()).count(run_id) == 1


def test_runs_of_several_syncs_start_all_or_none(pair: Pair) -> None:
    ids = [pair.create(f"several {number}") for number in range(3)]

    def ask(api: httpx.Client, number: int) -> httpx.Response:
        order = random.Random(number).sample(ids, 3)
        return api.post("/sync/run", json={"syncIds": order})

    assert statuses(pair.at_once(8, ask)) == {202: 1, 409: 7}
    assert all(len(pair.service.store.runs.list(sync_id)) == 1 for sync_id in ids)


def test_a_repeated_request_is_done_once_by_both(pair: Pair) -> None:
    body, headers = {**SYNC, "name": "idempotent"}, {"Idempotency-Key": "both"}
    answers = pair.at_once(8, lambda api, _: api.post("/syncs", json=body, headers=headers))
    assert set(statuses(answers)) <= {201, 409}
    made = {answer.json()["data"]["id"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    again = pair.apis[1].post("/syncs", json=body, headers=headers)
    assert again.json()["data"]["id"] in made


def letters(pair: Pair, sync_id: str, count: int) -> list[str]:
    failures = [
        Failure(
            key=f"k{number}",
            record_keys=f'{{"External_Id__c": "k{number}"}}',
            code=ErrorCode.DESTINATION_VALIDATION,
            message="x",
            operation=Operation.UPSERT,
            rejection=True,
        )
        for number in range(count)
    ]
    with pair.service.store.begin() as conn:
        pair.service.store.dead_letters.fail(conn, sync_id, "e", "retl_run_x", failures)
    return [letter.id for letter in pair.service.store.dead_letters.list(sync_id, limit=200)]


def test_an_entry_is_resolved_by_one(pair: Pair) -> None:
    ids = letters(pair, pair.create("with letters"), 20)

    def ask(api: httpx.Client, number: int) -> httpx.Response:
        chosen = random.Random(number).sample(ids, 20)
        return api.post("/dlq/resolve", json={"entryIds": chosen, "resolution": f"by_{number}"})

    answers = pair.at_once(8, ask)
    assert statuses(answers) == {200: 8}
    taken = [each for answer in answers for each in answer.json()["data"]["attributes"]["resolved_ids"]]
    assert sorted(taken) == sorted(ids)


def test_entries_are_replayed_by_one_run(pair: Pair) -> None:
    sync_id = pair.create("with replays")
    ids = letters(pair, sync_id, 5)
    body = {"entryIds": ids, "resolution": "fixed_upstream", "replay": True}
    answers = pair.at_once(8, lambda api, _: api.post("/dlq/resolve", json=body))
    assert statuses(answers) == {200: 8}
    found = [answer.json()["data"]["attributes"] for answer in answers]
    assert all(sorted(done["resolved_ids"]) == sorted(ids) for done in found)
    [run_id] = {done["replay_run_id"] for done in found}
    assert list(pair.dagster.launched.values()).count(run_id) == 1
    assert all(letter.replaying for letter in pair.service.store.dead_letters.list(sync_id, limit=200))
    cancelled = pair.apis[1].post(f"/runs/{run_id}/cancel")
    assert cancelled.json()["data"]["attributes"]["status"] == "cancelled"
    assert not any(letter.replaying for letter in pair.service.store.dead_letters.list(sync_id, limit=200))


def test_entries_of_one_sync_that_many_replay_are_all_taken(pair: Pair) -> None:
    sync_id = pair.create("with many replays")
    ids = letters(pair, sync_id, 16)

    def ask(api: httpx.Client, number: int) -> httpx.Response:
        body = {"entryIds": ids[2 * number : 2 * number + 3], "resolution": "fixed_upstream", "replay": True}
        return api.post("/dlq/resolve", json=body)

    assert statuses(pair.at_once(8, ask)) == {200: 8}
    store = pair.service.store
    runs = store.runs.list(sync_id)
    marked = [letter.id for run in runs for letter in store.replays.entries(run.id)]
    assert sorted(marked) == sorted(ids)
    ours = [run.id for run in runs]
    assert sum(each in ours for each in pair.dagster.launched.values()) == 1


def test_deleting_and_running_do_not_cross(pair: Pair) -> None:
    for round_number in range(3):
        sync_id = pair.create(f"doomed {round_number}")

        def ask(api: httpx.Client, number: int, sync_id: str = sync_id) -> httpx.Response:
            if number == 3:
                return api.delete(f"/syncs/{sync_id}")
            return api.post("/sync/run", json={"syncId": sync_id})

        answers = pair.at_once(8, ask)
        assert answers[3].status_code == 200
        assert set(statuses(answers)) <= {200, 202, 404, 409}
        assert [run.status for run in pair.service.store.runs.list(sync_id)] in ([], [RunStatus.CANCELLED])


def test_a_queued_run_that_dagster_lost_is_closed_when_somebody_looks(pair: Pair) -> None:
    sync_id = pair.create("lost")
    run_id = pair.apis[0].post("/sync/run", json={"syncId": sync_id}).json()["data"]["id"]
    [dagster_run_id] = [theirs for theirs, ours in pair.dagster.launched.items() if ours == run_id]
    pair.dagster.states[dagster_run_id] = "FAILURE"
    run = pair.apis[1].get(f"/runs/{run_id}").json()["data"]["attributes"]
    assert (run["status"], run["error"]["code"]) == ("failed", "INTERRUPTED")
    assert "ended as FAILURE" in run["error"]["message"]
    second = pair.apis[0].post("/sync/run", json={"syncId": sync_id})
    [dagster_run_id] = [theirs for theirs, ours in pair.dagster.launched.items() if ours == second.json()["data"]["id"]]
    pair.dagster.states[dagster_run_id] = "CANCELED"
    assert pair.apis[1].post("/sync/run", json={"syncId": sync_id}).status_code == 202


def anything(api: httpx.Client, number: int) -> httpx.Response:
    """One request of any kind, about one of four names."""
    chance = random.Random(number)
    name = f"any {chance.randrange(4)}"
    listed = api.get("/syncs", params={"limit": 200}).json()["data"]
    sync_id = {each["attributes"]["name"]: each["id"] for each in listed}.get(name, "retl_sync_none")
    queued = api.get("/runs", params={"status": "queued"}).json()["data"]
    ask: list[Callable[[], httpx.Response]] = [
        lambda: api.post("/syncs", json={**SYNC, "name": name}),
        lambda: api.post("/sync/toggle", json={"syncId": sync_id, "enabled": chance.random() < 0.7}),
        lambda: api.post("/sync/run", json={"syncId": sync_id}),
        lambda: api.put(f"/syncs/{sync_id}", json={"description": str(number)}),
        lambda: api.post(f"/runs/{queued[0]['id'] if queued else 'x'}/cancel"),
        lambda: api.delete(f"/syncs/{sync_id}"),
    ]
    return chance.choice(ask)()


@pytest.mark.long
def test_anything_at_any_time(pair: Pair) -> None:
    for wave in range(20):
        pair.at_once(16, lambda api, number, wave=wave: anything(api, wave * 16 + number))  # type: ignore[misc]
        queued = Counter(run.sync_id for run in pair.service.store.runs.list(None, RunStatus.QUEUED, limit=1000))
        assert all(count == 1 for count in queued.values())
        live_names = Counter(each.name for each in pair.service.store.syncs.live("default"))
        assert all(count == 1 for count in live_names.values())
    for stored in [*pair.service.store.syncs.live("default"), *pair.service.store.syncs.deleted("default")]:
        versions = [each.version for each in pair.service.store.syncs.versions(stored.id)]
        assert versions == list(range(stored.version, 0, -1))
        if stored.deleted_at is not None:
            assert all(run.status.ended for run in pair.service.store.runs.list(stored.id, limit=200))
