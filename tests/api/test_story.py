"""Every request of the API's document, in the order of a story, with a real Dagster behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from api_desk import SYNC, Stack, build_desk, client, listening, stack_of
from programs import ROOT, eventually

from dagster_retl.model.ids import DEAD_LETTER_PREFIX, RUN_PREFIX, SYNC_PREFIX

NAME = SYNC["name"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with listening() as destination:
        desk = build_desk(tmp_path_factory.mktemp("stack"), destination)
        with stack_of(desk) as running:
            yield running


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[httpx.Client]:
    with client(stack.api, stack.key) as opened:
        yield opened


@pytest.fixture(scope="module")
def sync_id(api: httpx.Client) -> str:
    """The document's example, created."""
    created = api.post("/syncs", json=SYNC)
    assert created.status_code == 201, created.text
    return str(created.json()["data"]["id"])


@pytest.fixture(scope="module")
def first_run(api: httpx.Client, sync_id: str) -> Any:
    """What starting the example's first run answered."""
    started = api.post("/sync/run", json={"syncId": sync_id, "fullRefresh": False})
    assert started.status_code == 202, started.text
    return started.json()["data"]


@pytest.fixture(scope="module")
def delivered(api: httpx.Client, first_run: Any) -> Any:
    """The example's first run, at its end."""
    return ended(api, first_run["id"])


@pytest.fixture(scope="module")
def both(api: httpx.Client, sync_id: str, delivered: Any) -> Any:
    """The runs of the example and of the file's sync that one request started, at their end."""
    other = api.get("/syncs").json()["data"][-1]["id"]
    started = api.post("/sync/run", json={"syncIds": [sync_id, other], "fullRefresh": True})
    assert started.status_code == 202, started.text
    runs = started.json()["data"]
    assert [each["attributes"]["sync_id"] for each in runs] == [sync_id, other]
    return [ended(api, each["id"]) for each in runs]


def attributes(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()["data"]["attributes"]


def ended(api: httpx.Client, run_id: str) -> Any:
    def look() -> Any:
        run = attributes(api.get(f"/runs/{run_id}"))
        return run if run["status"] in ("succeeded", "failed", "cancelled") else None

    return eventually("the end of the run", look)


def run(api: httpx.Client, sync_id: str, **options: Any) -> Any:
    started = api.post("/sync/run", json={"syncId": sync_id, **options})
    assert started.status_code == 202, started.text
    return ended(api, started.json()["data"]["id"])


def is_time(text: str) -> bool:
    return text.endswith("Z") and datetime.fromisoformat(text).utcoffset() is not None


def test_create_and_get_sync(api: httpx.Client, stack: Stack, sync_id: str) -> None:
    response = api.get(f"/syncs/{sync_id}")
    found = attributes(response)
    assert sync_id.startswith(SYNC_PREFIX)
    assert response.json()["data"]["type"] == "reverse_etl_sync"
    expected = {
        "name": NAME,
        "source_query": SYNC["sourceQuery"],
        "destination_id": "conn_sf_prod",
        "object_name": "Account",
        "field_mappings": SYNC["fieldMappings"],
        "sync_mode": "upsert",
        "enabled": True,
        "schedule": {"type": "cron", "expression": "15 */4 * * *", "timezone": "UTC"},
    }
    assert {name: found[name] for name in expected} == expected
    assert is_time(found["created_at"])
    assert is_time(found["updated_at"])
    assert found["schedule_state"] == "running"
    assert stack.schedules()[NAME] == "RUNNING"


def test_list_syncs(api: httpx.Client, sync_id: str) -> None:
    document = api.get("/syncs").json()
    assert document["meta"] == {"page": {"limit": 50, "cursor": None}}
    assert [each["attributes"]["name"] for each in document["data"]] == [NAME, "in the file"]
    first = document["data"][0]
    assert (first["id"], first["type"]) == (sync_id, "reverse_etl_sync")
    assert first["attributes"]["schedule"] == {"type": "cron", "expression": "15 */4 * * *", "timezone": "UTC"}
    for filters, names in (
        ({"destination_id": "conn_sf_prod", "enabled": "true"}, 2),
        ({"destination_id": "conn_nowhere"}, 0),
        ({"enabled": "false"}, 0),
        ({"limit": 1}, 1),
    ):
        assert len(api.get("/syncs", params=filters).json()["data"]) == names


def test_a_run_goes_from_queued_to_succeeded_with_its_rows_counted(
    stack: Stack, sync_id: str, first_run: Any, delivered: Any
) -> None:
    assert (first_run["type"], first_run["attributes"]["status"]) == ("reverse_etl_run", "queued")
    assert (first_run["attributes"]["sync_id"], first_run["attributes"]["full_refresh"]) == (sync_id, False)
    assert first_run["id"].startswith(RUN_PREFIX)
    done = delivered
    assert (done["status"], done["rows_read"], done["rows_written"], done["rows_failed"]) == ("succeeded", 3, 2, 1)
    assert (done["trigger"], done["error"]) == ("api", None)
    assert is_time(done["started_at"])
    assert is_time(done["finished_at"])
    assert set(stack.desk.destination.records["Account"]) == {"acc_0", "acc_1"}
    tags = stack.graphql(
        "query ($id: ID!) {runOrError(runId: $id) {... on Run {status jobName tags {key value}}}}",
        id=done["dagster_run_id"],
    )["runOrError"]
    assert tags["jobName"] == "retl_syncs"
    assert {"key": "retl/trigger", "value": "api"} in tags["tags"]
    assert {"key": "retl/sync", "value": NAME} in tags["tags"]


def test_list_sync_runs(api: httpx.Client, sync_id: str, delivered: Any) -> None:
    document = api.get("/runs", params={"sync_id": sync_id, "status": "succeeded"}).json()
    assert document["meta"]["page"]["limit"] == 50
    newest = document["data"][0]
    assert newest["type"] == "reverse_etl_run"
    assert newest["attributes"]["sync_id"] == sync_id == delivered["sync_id"]
    assert api.get("/runs", params={"status": "failed"}).json()["data"] == []


def test_several_syncs_run_with_one_request(both: Any) -> None:
    for done in both:
        assert (done["status"], done["full_refresh"], done["rows_read"]) == ("succeeded", True, 3)


@pytest.mark.usefixtures("delivered")
def test_dead_letters_are_listed_counted_and_replayed(api: httpx.Client, stack: Stack, sync_id: str) -> None:
    letters = api.get("/dlq", params={"sync_id": sync_id}).json()
    assert letters["meta"]["page"] == {"limit": 50, "cursor": None}
    [letter] = letters["data"]
    assert (letter["type"], letter["id"][: len(DEAD_LETTER_PREFIX)]) == ("reverse_etl_dlq_entry", DEAD_LETTER_PREFIX)
    said = letter["attributes"]
    assert (said["error_code"], said["record_keys"]) == ("DESTINATION_VALIDATION", {"External_Id__c": "acc_2"})
    assert "bad format" in said["message"]
    assert said["attempts"] >= 1
    assert (said["resolved"], is_time(said["first_seen_at"])) == (False, True)
    assert attributes(api.get(f"/dlq/{letter['id']}")) == said
    counts = attributes(api.get("/dlq/stats", params={"sync_id": sync_id, "since": "2025-03-27T12:00:00Z"}))
    assert (counts["open_count"], counts["by_error_code"]) == (1, {"DESTINATION_VALIDATION": 1})
    assert is_time(counts["computed_at"])

    stack.desk.sql("UPDATE analytics.dim_crm_account SET name = 'good' WHERE account_id = 'acc_2'")
    body = {"entryIds": [letter["id"]], "resolution": "fixed_upstream", "replay": True}
    resolved = attributes(api.post("/dlq/resolve", json=body))
    assert resolved["resolved_ids"] == [letter["id"]]
    assert resolved["replay_run_ids"] == [resolved["replay_run_id"]]
    done = ended(api, resolved["replay_run_id"])
    assert (done["status"], done["trigger"], done["rows_written"]) == ("succeeded", "replay", 1)
    assert stack.desk.destination.records["Account"]["acc_2"]["Name"] == "good"
    now = attributes(api.get(f"/dlq/{letter['id']}"))
    assert (now["resolved"], now["replaying"]) == (True, False)
    history = api.get("/dlq", params={"sync_id": sync_id, "resolved": "true"}).json()["data"]
    assert [each["id"] for each in history] == [letter["id"]]
    again = attributes(api.post("/dlq/resolve", json={**body, "replay": False}))
    assert (again["resolved_ids"], again["replay_run_id"]) == ([], None)


@pytest.mark.usefixtures("delivered")
def test_a_plan_tells_what_a_run_would_write_and_masks_values(api: httpx.Client, stack: Stack, sync_id: str) -> None:
    stack.desk.sql("UPDATE analytics.dim_crm_account SET name = 'planned' WHERE account_id = 'acc_0'")
    before = len(stack.desk.destination.applied)
    response = api.post(f"/syncs/{sync_id}/plan")
    plan = attributes(response)
    assert (plan["rows_read"], plan["rows_sent"]) == (3, 1)
    [sample] = plan["samples"]
    assert sample["record_keys"] == {"External_Id__c": "acc_0"}
    assert set(sample["values"].values()) == {"***"}
    assert "planned" not in response.text
    assert len(stack.desk.destination.applied) == before


@pytest.mark.usefixtures("delivered")
def test_update_sync(api: httpx.Client, stack: Stack, sync_id: str) -> None:
    schedule = {"type": "cron", "expression": "0 */2 * * *", "timezone": "UTC"}
    response = api.put(f"/syncs/{sync_id}", json={"schedule": schedule})
    assert attributes(response)["schedule"] == schedule
    meta = response.json()["meta"]
    assert (meta["definitions_stale"], meta["next_run"]["sends"], meta["warnings"]) == (False, "changed", [])
    assert api.get(f"/syncs/{sync_id}").headers["ETag"] == response.headers["ETag"]
    moved = api.put(f"/syncs/{sync_id}", json={"objectName": "Contact", "schedule": None}).json()
    assert moved["meta"]["next_run"]["sends"] == "all"
    assert moved["data"]["attributes"]["schedule"] == {"type": "manual"}
    assert NAME not in stack.schedules()
    api.put(f"/syncs/{sync_id}", json={"objectName": "Account", "schedule": SYNC["schedule"]})
    assert stack.schedules()[NAME] == "RUNNING"


def test_toggle_sync(api: httpx.Client, stack: Stack, sync_id: str) -> None:
    off = attributes(api.post("/sync/toggle", json={"syncId": sync_id, "enabled": False}))
    assert (off["enabled"], off["schedule_state"], is_time(off["updated_at"])) == (False, "disabled", True)
    refused = api.post("/sync/run", json={"syncId": sync_id})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "CONFLICT")
    assert [each["id"] for each in api.get("/syncs", params={"enabled": "false"}).json()["data"]] == [sync_id]
    state = stack.graphql(
        """query ($selector: ScheduleSelector!) {scheduleOrError(scheduleSelector: $selector) {
            ... on Schedule {scheduleState {id}}}}""",
        selector={
            "repositoryLocationName": "dagster_retl.definitions",
            "repositoryName": "__repository__",
            "scheduleName": NAME,
        },
    )["scheduleOrError"]["scheduleState"]
    stack.graphql("mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}", id=state["id"])
    api.post("/sync/toggle", json={"syncId": sync_id, "enabled": False})
    assert stack.schedules()[NAME] == "STOPPED"
    on = attributes(api.post("/sync/toggle", json={"sync_id": sync_id, "enabled": True}))
    assert (on["enabled"], on["schedule_state"]) == (True, "running")
    assert stack.schedules()[NAME] == "RUNNING"


def test_a_schedule_stopped_in_the_ui_stays_so_and_is_shown(api: httpx.Client, stack: Stack) -> None:
    body = {**SYNC, "name": "watched", "objectName": "Contact"}
    watched = api.post("/syncs", json=body).json()["data"]["id"]
    selector = {"repositoryLocationName": "dagster_retl.definitions", "repositoryName": "__repository__"}
    state = stack.graphql(
        "query ($s: ScheduleSelector!) {scheduleOrError(scheduleSelector: $s) {... on Schedule {scheduleState {id}}}}",
        s={**selector, "scheduleName": "watched"},
    )["scheduleOrError"]["scheduleState"]
    stack.graphql("mutation ($id: String!) {stopRunningSchedule(id: $id) {__typename}}", id=state["id"])
    assert attributes(api.get(f"/syncs/{watched}"))["schedule_state"] == "stopped_in_dagster"
    api.put(f"/syncs/{watched}", json={"description": "still stopped"})
    assert attributes(api.get(f"/syncs/{watched}"))["schedule_state"] == "stopped_in_dagster"
    api.delete(f"/syncs/{watched}")


def test_destinations_objects_and_fields(api: httpx.Client) -> None:
    found = {each["id"]: each for each in api.get("/destinations", params={"connector": "http"}).json()["data"]}
    assert found["conn_sf_prod"]["type"] == "reverse_etl_destination"
    assert found["conn_sf_prod"]["attributes"] == {
        "name": "Salesforce Production",
        "connector": "http",
        "status": "connected",
        "objects_discoverable": True,
    }
    assert found["conn_nowhere"]["attributes"]["status"] == "error"
    assert api.get("/destinations", params={"connector": "salesforce"}).json()["data"] == []
    objects = api.get("/objects", params={"destination_id": "conn_sf_prod", "search": "ACC"}).json()
    assert objects["data"] == [
        {
            "id": "Account",
            "type": "destination_object",
            "attributes": {"label": "Account", "api_name": "Account", "supports_upsert": True, "writable": True},
        }
    ]
    assert objects["meta"]["stale"] is False
    fields = api.get("/fields", params={"destination_id": "conn_sf_prod", "object_name": "Account"}).json()["data"]
    assert [each["id"] for each in fields[:2]] == ["Name", "External_Id__c"]
    assert fields[0]["type"] == "destination_field"
    expected = {
        "label": "Account Name",
        "data_type": "string",
        "required": True,
        "updateable": True,
        "external_id": False,
    }
    assert {name: fields[0]["attributes"][name] for name in expected} == expected
    assert fields[1]["attributes"]["external_id"] is True


def test_a_running_run_is_in_the_way_of_another_and_can_be_cancelled(
    api: httpx.Client, stack: Stack, sync_id: str
) -> None:
    stack.desk.sql(
        "INSERT INTO analytics.dim_crm_account SELECT 'slow_' || i, 'Slow ' || i, 1, NULL, true FROM range(2000) r(i)"
    )
    stack.desk.destination.latency = 0.5
    first = api.post("/sync/run", json={"syncId": sync_id}).json()["data"]["id"]
    second = api.post("/sync/run", json={"syncId": sync_id})
    assert second.status_code == 409
    assert second.json()["error"]["details"][0]["id"] == first
    assert first in second.json()["error"]["message"]
    eventually("a write", lambda: attributes(api.get(f"/runs/{first}"))["rows_written"])
    cancelled = api.post(f"/runs/{first}/cancel")
    assert cancelled.status_code == 202, cancelled.text
    done = ended(api, first)
    stack.desk.destination.latency = 0.0
    assert done["status"] == "cancelled"
    outcomes = ("written", "failed", "unchanged", "skipped", "unknown")
    assert done["rows_read"] == sum(done[f"rows_{name}"] for name in outcomes)
    over = api.post(f"/runs/{first}/cancel")
    assert (over.status_code, over.json()["error"]["details"][0]["id"]) == (409, first)
    stack.desk.sql("DELETE FROM analytics.dim_crm_account WHERE account_id LIKE 'slow_%'")


def test_delete_sync(api: httpx.Client, stack: Stack, sync_id: str) -> None:
    doomed = api.post("/syncs", json={**SYNC, "name": "doomed"}).json()["data"]["id"]
    assert "doomed" in stack.schedules()
    done = run(api, doomed)
    gone = attributes(api.delete(f"/syncs/{doomed}"))
    assert gone["deleted"] is True
    assert is_time(gone["deleted_at"])
    assert "doomed" not in stack.schedules()
    assert api.get(f"/syncs/{doomed}").status_code == 404
    assert api.post("/sync/run", json={"syncId": doomed}).status_code == 404
    runs = api.get("/runs", params={"sync_id": doomed}).json()["data"]
    assert [each["attributes"]["rows_read"] for each in runs] == [done["rows_read"]]
    assert api.get("/dlq", params={"sync_id": doomed}).status_code == 200


def test_both_base_paths_are_the_same(stack: Stack, api: httpx.Client, sync_id: str) -> None:
    with client(stack.api, stack.key, base="/v1/api/reverse-etl") as versioned:
        for path in ("/syncs", f"/syncs/{sync_id}", "/runs", "/dlq", f"/syncs/{sync_id}/versions", "/openapi.json"):
            assert versioned.get(path).json() == api.get(path).json()


def test_syncs_of_the_file_run_and_toggle_but_do_not_change(stack: Stack, api: httpx.Client, both: Any) -> None:
    [own] = [each for each in api.get("/syncs").json()["data"] if each["attributes"]["owner"] == "file"]
    assert (both[1]["sync_id"], both[1]["status"]) == (own["id"], "succeeded")
    for response in (api.put(f"/syncs/{own['id']}", json={"description": "x"}), api.delete(f"/syncs/{own['id']}")):
        assert response.status_code == 409
        assert str(stack.desk.path) in response.json()["error"]["message"]
    assert attributes(api.post("/sync/toggle", json={"syncId": own["id"], "enabled": False}))["enabled"] is False
    assert attributes(api.post("/sync/toggle", json={"syncId": own["id"], "enabled": True}))["enabled"] is True


def test_the_program_of_the_page_runs(stack: Stack, api: httpx.Client, sync_id: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    variables = {"RETL_API_URL": stack.api, "RETL_API_KEY": stack.key}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"succeeded \d+ rows written", done.stdout), done.stdout


def test_the_docs_page_asks_nobody_else(stack: Stack) -> None:
    with client(stack.api) as anybody:
        page = anybody.get("/docs").text
        addresses = [part.split('"')[0] for mark in ('src="', 'href="') for part in page.split(mark)[1:]]
        assert addresses
        for address in addresses:
            assert address.startswith(("/api/reverse-etl/docs/", "data:")), address
        for name, kind in (("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")):
            answer = anybody.get(f"/docs/{name}")
            assert answer.headers["content-type"].startswith(kind)
            assert len(answer.content) > 10_000
        assert anybody.get("/docs/../app.py").status_code == 404
