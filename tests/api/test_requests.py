"""What clients get wrong, and what they get for it: always the envelope, never a crash."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from api_desk import BASE, SYNC, Desk, client, serving

from dagster_retl import Service
from dagster_retl.store.api_keys import Scope

UNKNOWN = "retl_sync_0000000000000000000000000"


@pytest.fixture(scope="module")
def sync_id(api: httpx.Client) -> Iterator[str]:
    created = api.post("/syncs", json=SYNC)
    assert created.status_code == 201, created.text
    yield created.json()["data"]["id"]
    api.delete(f"/syncs/{created.json()['data']['id']}")


def refused(response: httpx.Response, status: int) -> Any:
    """The error of a response, which has the envelope's form."""
    assert response.status_code == status, response.text
    document = response.json()
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["message"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert all({"field", "code", "message"} <= set(detail) for detail in error["details"])
    return error


def fields(error: Any) -> set[str]:
    return {detail["field"] for detail in error["details"]}


def test_what_is_not_there(api: httpx.Client, url: str) -> None:
    for path in (
        "/nothing",
        "/syncs/",
        "//syncs",
        "/syncs/%00",
        f"/syncs/{UNKNOWN}",
        "/runs/x",
        "/dlq/x",
        "/docs/x.js",
    ):
        assert refused(api.get(path), 404)["code"] == "NOT_FOUND"
    assert refused(httpx.get(f"{url}/"), 404)
    for method, path, body in (
        ("PUT", f"/syncs/{UNKNOWN}", {}),
        ("DELETE", f"/syncs/{UNKNOWN}", None),
        ("POST", f"/syncs/{UNKNOWN}/plan", {}),
        ("GET", f"/syncs/{UNKNOWN}/versions", None),
        ("POST", "/sync/run", {"syncId": UNKNOWN}),
        ("POST", "/sync/toggle", {"syncId": UNKNOWN, "enabled": True}),
        ("POST", "/runs/retl_run_x/cancel", None),
        ("POST", "/dlq/resolve", {"entryIds": ["retl_dlq_x", "retl_dlq_y"], "resolution": "skipped"}),
        ("GET", "/objects?destination_id=nope", None),
        ("GET", "/fields?destination_id=conn_sf_prod&object_name=Nope", None),
        ("GET", f"/runs?sync_id={UNKNOWN}", None),
        ("GET", f"/dlq?sync_id={UNKNOWN}", None),
        ("GET", f"/dlq/stats?sync_id={UNKNOWN}", None),
    ):
        refused(api.request(method, path, json=body), 404)


def test_ids_of_another_kind_and_names_are_no_ids(api: httpx.Client, sync_id: str) -> None:
    for path in (f"/runs/{sync_id}", f"/dlq/{sync_id}", f"/syncs/{SYNC['name']}", f"/syncs/{sync_id.upper()}"):
        refused(api.get(path), 404)
    error = refused(api.post("/dlq/resolve", json={"entryIds": [sync_id], "resolution": "x"}), 404)
    assert error["details"][0]["id"] == sync_id


def test_methods_that_are_not_possible(api: httpx.Client) -> None:
    for method, path, allowed in (
        ("PATCH", "/syncs", "GET, POST"),
        ("POST", "/syncs/x", "DELETE, GET, PUT"),
        ("DELETE", "/sync/run", "POST"),
        ("OPTIONS", "/runs", "GET"),
    ):
        response = api.request(method, path)
        assert refused(response, 405)["code"] == "METHOD_NOT_ALLOWED"
        assert response.headers["Allow"] == allowed


BODIES = [
    b"", b"{", b"[1,", b"nonsense", b"\xff\xfe{}", b'{"a": NaN}', b'{"a": Infinity}', b'{"name": "x", "name": "y"}',
    b"[" * 100_000, b"1" * 5_000, b'{"a": "\xed\xa0\x80"}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_what_is_not_json(api: httpx.Client, body: bytes) -> None:
    for method, path in (("POST", "/syncs"), ("POST", "/sync/run"), ("POST", "/dlq/resolve"), ("PUT", "/syncs/x")):
        response = api.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert refused(response, 400)["code"] == "MALFORMED_JSON"


@pytest.mark.parametrize("body", [[], "text", 1, None, True])
def test_what_is_no_object(api: httpx.Client, body: Any) -> None:
    for path in ("/syncs", "/sync/run", "/sync/toggle", "/dlq/resolve"):
        refused(api.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"}), 422)


@pytest.mark.parametrize(
    "text", ['{"name": "a\\u0000b"}', '{"name": "\\ud800"}', '{"a\\u0000": 1}', '{"maxAttempts": 1e999}',
             '{"maxAttempts": 99999999999999999999999}', '{"tags": {"\\udfff": "x"}}']
)  # fmt: skip
def test_what_no_database_can_keep(api: httpx.Client, text: str) -> None:
    error = refused(api.post("/syncs", content=text, headers={"Content-Type": "application/json"}), 422)
    assert {detail["code"] for detail in error["details"]} <= {"text", "number"}


def test_only_json_is_read(api: httpx.Client) -> None:
    good = json.dumps({"syncId": UNKNOWN})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", ""):
        refused(api.post("/sync/run", content=good, headers={"Content-Type": kind}), 415)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    refused(api.post("/sync/run", content=good, headers=headers), 415)
    for kind in ("application/json", "application/json; charset=utf-8", 'APPLICATION/JSON;charset="UTF-8"'):
        refused(api.post("/sync/run", content=good, headers={"Content-Type": kind}), 404)


def test_bodies_are_limited(api: httpx.Client, url: str) -> None:
    large = b'{"name": "' + b"x" * 1_000_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    assert refused(api.post("/syncs", content=large, headers=headers), 413)["code"] == "PAYLOAD_TOO_LARGE"

    def pieces() -> Iterator[bytes]:
        yield b'{"name": "'
        for _ in range(30):
            yield b"x" * 50_000

    refused(api.post("/syncs", content=pieces(), headers=headers), 413)
    refused(api.post("/syncs", content=large, headers={**headers, "Idempotency-Key": "large"}), 413)
    assert api.get("/syncs").status_code == 200


@pytest.mark.parametrize(("path", "body", "where"), [
    ("/sync/toggle", {}, {"sync_id", "enabled"}),
    ("/sync/toggle", {"syncId": "x", "enabled": "true"}, {"enabled"}),
    ("/sync/toggle", {"syncId": 1, "enabled": True}, {"sync_id"}),
    ("/sync/toggle", {"syncId": "x", "enabled": True, "force": 1}, {"force"}),
    ("/sync/toggle", {"syncId": "x", "sync_id": "y", "enabled": True}, {"sync_id"}),
    ("/sync/run", {}, {""}),
    ("/sync/run", {"syncId": "x", "syncIds": ["y"]}, {""}),
    ("/sync/run", {"syncIds": []}, {"sync_ids"}),
    ("/sync/run", {"syncIds": ["x"] * 101}, {"sync_ids"}),
    ("/sync/run", {"syncIds": ["x", "x"]}, {""}),
    ("/sync/run", {"syncIds": [None]}, {"sync_ids[0]"}),
    ("/sync/run", {"syncId": "x", "fullRefresh": 1}, {"full_refresh"}),
    ("/sync/run", {"syncId": "x", "fullrefresh": True}, {"fullrefresh"}),
    ("/sync/run", {"syncId": "x", "overrides": ["nothing"]}, {"overrides[0]"}),
    ("/dlq/resolve", {"entryIds": [], "resolution": "x"}, {"entry_ids"}),
    ("/dlq/resolve", {"entryIds": ["x"] * 1001, "resolution": "x"}, {"entry_ids"}),
    ("/dlq/resolve", {"entryIds": "x", "resolution": "x"}, {"entry_ids"}),
    ("/dlq/resolve", {"entryIds": ["x"], "resolution": "No Way"}, {"resolution"}),
    ("/dlq/resolve", {"entryIds": ["x"], "resolution": "a" * 65}, {"resolution"}),
    ("/dlq/resolve", {"entryIds": ["x"], "resolution": "skipped\n"}, {"resolution"}),
    ("/dlq/resolve", {"entryIds": ["x"], "resolution": "skipped", "replay": True}, {""}),
])  # fmt: skip
def test_bodies_that_cannot_be(api: httpx.Client, path: str, body: Any, where: set[str]) -> None:
    error = refused(api.post(path, json=body), 422)
    assert error["code"] == "VALIDATION"
    assert fields(error) == where


@pytest.mark.parametrize(("changes", "where"), [
    ({"name": None}, {"name"}),
    ({"sourceQuery": ""}, {"source_query"}),
    ({"sourceQuery": "DROP TABLE analytics.dim_crm_account"}, {"source_query"}),
    ({"sourceQuery": "WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x"}, {"source_query"}),
    ({"sourceQuery": "SELECT 1; DROP TABLE t"}, {"source_query"}),
    ({"sourceQuery": "COPY t TO '/tmp/x'"}, {"source_query"}),
    ({"sourceQuery": "SELECT * FROM read_text('/etc/passwd')"}, {"source_query"}),
    ({"sourceQuery": "file:/etc/passwd"}, {"source_query"}),
    ({"destinationId": "conn_sf_prd"}, {"destination_id"}),
    ({"objectName": "Acount"}, {"object_name"}),
    ({"fieldMappings": []}, {"field_mappings"}),
    ({"fieldMappings": [{"source": "name", "destination": "Name"}]}, {"sync_mode"}),
    ({"fieldMappings": [{"source": "name"}]}, {"field_mappings[0].destination"}),
    ({"fieldMappings": [{"source": "nope", "destination": "External_Id__c", "key": True},
                        {"source": "name", "destination": "Name"}]}, {"field_mappings"}),
    ({"fieldMappings": [{"source": "account_id", "destination": "External_Id__c", "key": True},
                        {"source": "name", "destination": "Nmae"}]}, {"field_mappings"}),
    ({"fieldMappings": "all"}, {"field_mappings"}),
    ({"fieldMappings": [1]}, {"field_mappings[0]"}),
    ({"syncMode": "replace"}, {"sync_mode"}),
    ({"schedule": {"type": "cron"}}, {"schedule"}),
    ({"schedule": {"type": "cron", "expression": "61 * * * *"}}, {"schedule.expression"}),
    ({"schedule": {"type": "cron", "expression": "0 * * * *", "timezone": "Nowhere"}}, {"schedule.timezone"}),
    ({"schedule": 5}, {"schedule"}),
    ({"syncmode": "upsert"}, {"syncmode"}),
    ({"source_query": "SELECT 2 AS other"}, {"source_query"}),
    ({"enabled": "perhaps"}, {"enabled"}),
    ({"maxAttempts": 0}, {"max_attempts"}),
    ({"name": "x" * 1000}, {"name"}),
    ({"slug": "x" * 1000}, {"slug"}),
])  # fmt: skip
def test_syncs_that_cannot_be(api: httpx.Client, changes: dict[str, Any], where: set[str]) -> None:
    error = refused(api.post("/syncs", json={**SYNC, "name": "impossible", **changes}), 422)
    assert fields(error) == where, error
    assert api.get("/syncs").json()["data"][-1]["attributes"]["name"] == "in the file"


def test_what_was_said_in_two_spellings_must_agree(api: httpx.Client) -> None:
    agreeing = {**SYNC, "name": "agreeing", "sync_mode": SYNC["syncMode"], "field_mappings": SYNC["fieldMappings"]}
    created = api.post("/syncs", json=agreeing)
    assert created.status_code == 201, created.text
    api.delete(f"/syncs/{created.json()['data']['id']}")
    error = refused(api.post("/syncs", json={**SYNC, "name": "x", "sync_mode": "insert"}), 422)
    assert fields(error) == {"sync_mode"}
    refused(api.get("/runs?sync_id=a&syncId=b"), 422)
    refused(api.get("/runs?limit=1&limit=2"), 422)
    assert api.get("/runs?limit=1&limit=1").status_code == 200


@pytest.mark.parametrize(("path", "where"), [
    ("/syncs?limit=0", "limit"), ("/syncs?limit=201", "limit"), ("/runs?limit=-1", "limit"), ("/dlq?limit=x", "limit"),
    ("/runs?limit=", "limit"), ("/runs?limit=1e2", "limit"), ("/runs?limit=" + "9" * 400, "limit"),
    ("/syncs?enabled=perhaps", "enabled"), ("/dlq?resolved=perhaps", "resolved"), ("/runs?status=done", "status"),
    ("/objects", "destination_id"), ("/fields?destination_id=conn_sf_prod", "object_name"),
    ("/dlq/stats?since=yesterday", "since"), ("/dlq/stats?since=", "since"), ("/dlq/stats?since=2025-02-30", "since"),
    ("/dlq/stats?since=0001-01-01T00:00:00%2B14:00", "since"), ("/dlq/stats?since=1700000000", "since"),
    ("/runs?sync_id=%00", "query"), ("/runs?destination_id=x", "destination_id"), ("/syncs?=x", ""),
    ("/syncs/x?version=1", "version"),
])  # fmt: skip
def test_queries_that_cannot_be(api: httpx.Client, path: str, where: str) -> None:
    assert where in fields(refused(api.get(path), 422))


@pytest.mark.parametrize("since", [
    "2025-03-27T17:00:00Z", "2025-03-27T17:00:00", "2025-03-27", "2025-03-27T17:00:00%2B02:00",
    "2025-03-27T17:00:00+02:00", "2025-03-27T17:00:00.123456-08:00", "9999-12-31T23:59:59Z",
])  # fmt: skip
def test_times_with_and_without_a_zone(api: httpx.Client, since: str) -> None:
    assert api.get(f"/dlq/stats?since={since}").status_code == 200


@pytest.mark.parametrize("cursor", [
    "x", "", "=====", "bm8", "W10", "WyJhIiwiYiIsImMiXQ", "%F0%9F%98%80", "../../etc/passwd", "A" * 5_000,
    "WyIyMDI1LTAxLTAxVDAwOjAwOjAwIiwgInJldGxfcnVuX3giLCAieCJd", "W251bGwsbnVsbCxudWxsXQ", "IjEi", "bnVsbA",
])  # fmt: skip
def test_cursors_that_are_none(api: httpx.Client, cursor: str) -> None:
    for path in ("/syncs", "/runs", "/dlq"):
        error = refused(api.get(f"{path}?cursor={cursor}"), 400)
        assert error["code"] == "MALFORMED_CURSOR"


def test_a_cursor_is_good_for_its_own_list_only(desk: Desk, api: httpx.Client, sync_id: str) -> None:
    with Service.open(desk.project()) as service:
        for _ in range(3):
            service.store.runs.create(sync_id, "x")
    cursor = api.get("/runs", params={"limit": 1}).json()["meta"]["page"]["cursor"]
    assert api.get("/runs", params={"limit": 2, "cursor": cursor}).status_code == 200
    for path, filters in (
        ("/runs", {"sync_id": sync_id}),
        ("/runs", {"status": "queued"}),
        ("/dlq", {}),
        ("/syncs", {}),
    ):
        refused(api.get(path, params={"limit": 1, "cursor": cursor, **filters}), 400)


def test_who_has_no_key_comes_nowhere(url: str, api: httpx.Client, desk: Desk) -> None:
    text = api.headers["Authorization"].removeprefix("Bearer ")
    wrong = [
        "",
        "Bearer",
        "Bearer x y",
        f"Basic {text}",
        text,
        f"Bearer {text}x",
        f"Bearer {text[:-1]}",
        "Bearer retl_key_x",
    ]
    for header in wrong:
        response = httpx.get(f"{url}{BASE}/syncs", headers={"Authorization": header})
        assert refused(response, 401)["code"] == "UNAUTHENTICATED"
        assert response.headers["WWW-Authenticate"] == "Bearer"
    refused(httpx.get(f"{url}{BASE}/syncs"), 401)
    refused(httpx.post(f"{url}{BASE}/syncs", content=b"{", headers={"Content-Type": "application/json"}), 401)
    refused(httpx.get(f"{url}/metrics"), 401)
    for path in ("/healthz", "/readyz", f"{BASE}/openapi.json", f"{BASE}/docs", f"/v1{BASE}/docs"):
        assert httpx.get(f"{url}{path}").status_code == 200
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}


def test_a_revoked_key_opens_nothing_at_once(url: str, desk: Desk) -> None:
    text = desk.key(Scope.READ)
    with client(url, text) as reader:
        assert reader.get("/syncs").status_code == 200
        with Service.open(desk.project()) as service:
            service.store.api_keys.revoke(text[: len("retl_key_") + 26], "test")
        refused(reader.get("/syncs"), 401)


REQUESTS = [
    ("GET", "/syncs", Scope.READ), ("POST", "/syncs", Scope.WRITE), ("GET", "/syncs/x", Scope.READ),
    ("PUT", "/syncs/x", Scope.WRITE), ("DELETE", "/syncs/x", Scope.WRITE), ("POST", "/sync/toggle", Scope.WRITE),
    ("POST", "/syncs/x/plan", Scope.RUN), ("GET", "/syncs/x/versions", Scope.READ),
    ("GET", "/retired-syncs", Scope.READ), ("POST", "/sync/run", Scope.RUN),
    ("GET", "/runs", Scope.READ), ("GET", "/runs/x", Scope.READ), ("POST", "/runs/x/cancel", Scope.RUN),
    ("GET", "/destinations", Scope.READ), ("GET", "/objects?destination_id=x", Scope.READ),
    ("GET", "/fields?destination_id=x&object_name=y", Scope.READ), ("GET", "/dlq", Scope.READ),
    ("GET", "/dlq/stats", Scope.READ), ("GET", "/dlq/x", Scope.READ), ("POST", "/dlq/resolve", Scope.WRITE),
]  # fmt: skip


def test_a_key_may_do_what_its_scopes_say(url: str, desk: Desk) -> None:
    for scope in Scope:
        with client(url, desk.key(scope)) as limited:
            for method, path, needed in REQUESTS:
                response = limited.request(method, path, json={} if method in ("POST", "PUT") else None)
                if needed is not scope:
                    assert refused(response, 403)["code"] == "FORBIDDEN", (method, path, scope)
                else:
                    assert response.status_code not in (401, 403), (method, path, scope)


def test_the_list_of_requests_is_whole(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    there = {(method.upper(), path.removeprefix(BASE)) for path, item in document["paths"].items() for method in item}
    assert len(there) == len(REQUESTS)


def test_a_key_of_some_destinations_sees_nothing_of_others(
    url: str, desk: Desk, api: httpx.Client, sync_id: str
) -> None:
    with Service.open(desk.project()) as service:
        run_id = service.store.runs.create(sync_id, "x").id
    with client(url, desk.key(destinations=["conn_nowhere"])) as limited:
        assert limited.get("/syncs").json()["data"] == []
        assert [each["id"] for each in limited.get("/destinations").json()["data"]] == ["conn_nowhere"]
        assert limited.get("/runs").json()["data"] == []
        assert limited.get("/dlq").json()["data"] == []
        for path in (
            f"/syncs/{sync_id}", f"/syncs/{sync_id}/versions", f"/runs/{run_id}", f"/runs?sync_id={sync_id}",
            f"/dlq/stats?sync_id={sync_id}", "/objects?destination_id=conn_sf_prod",
        ):  # fmt: skip
            refused(limited.get(path), 404)
        refused(limited.delete(f"/syncs/{sync_id}"), 404)
        refused(limited.post("/sync/run", json={"syncId": sync_id}), 404)
        refused(limited.post(f"/runs/{run_id}/cancel"), 404)
        assert fields(refused(limited.post("/syncs", json={**SYNC, "name": "mine"}), 403)) == {"destination_id"}
    with client(url, desk.key(destinations=["conn_sf_prod"])) as limited:
        assert limited.get(f"/syncs/{sync_id}").status_code == 200
        refused(limited.put(f"/syncs/{sync_id}", json={"destinationId": "conn_nowhere"}), 403)


def test_what_is_gone_is_listed_as_retired(url: str, desk: Desk, api: httpx.Client) -> None:
    sync_id = api.post("/syncs", json={**SYNC, "name": "short lived"}).json()["data"]["id"]
    assert sync_id not in {each["id"] for each in api.get("/retired-syncs").json()["data"]}
    api.delete(f"/syncs/{sync_id}")
    [gone] = [each for each in api.get("/retired-syncs").json()["data"] if each["id"] == sync_id]
    assert gone["type"] == "reverse_etl_retired_sync"
    assert (gone["attributes"]["name"], gone["attributes"]["open_dead_letters"]) == ("short lived", 0)
    assert gone["attributes"]["deleted_at"].endswith("Z")
    for destination, seen in (("conn_sf_prod", True), ("conn_nowhere", False)):
        with client(url, desk.key(destinations=[destination])) as limited:
            found = {each["id"] for each in limited.get("/retired-syncs").json()["data"]}
            assert (sync_id in found) is seen


def test_a_key_that_asks_too_often_has_to_wait(own: Desk) -> None:
    with serving(own.project(), rate_limit=1) as url, client(url, own.key()) as first, client(url, own.key()) as second:
        answers = [first.get("/runs") for _ in range(5)]
        assert [each.status_code for each in answers[:2]] == [200, 200]
        assert refused(answers[-1], 429)["code"] == "RATE_LIMITED"
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert second.get("/runs").status_code == 200


def test_request_ids_are_kept_where_they_are_ids(api: httpx.Client, url: str) -> None:
    assert api.get("/syncs", headers={"X-Request-Id": "my-id.42"}).headers["X-Request-Id"] == "my-id.42"
    for odd in ("a b", "x" * 129, "é".encode(), b"\xff", '"', "a;b"):
        answer = api.get("/syncs", headers={"X-Request-Id": odd})
        assert answer.headers["X-Request-Id"].startswith("req_")
    host, port = str(urlsplit(url).hostname), int(urlsplit(url).port or 0)
    with closing(socket.create_connection((host, port))) as raw:
        raw.sendall(
            f"GET {BASE}/syncs?x=%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\n b\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := raw.recv(65_536):
            answer += piece
    assert b"Set-Cookie" not in answer.partition(b"\r\n\r\n")[0]
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))


def test_a_repeated_request_is_done_once(api: httpx.Client) -> None:
    body, headers = {**SYNC, "name": "once"}, {"Idempotency-Key": "create-once"}
    first = api.post("/syncs", json=body, headers=headers)
    again = api.post("/syncs", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (
        refused(api.post("/syncs", json={**body, "name": "other"}, headers=headers), 422)["details"][0]["code"]
        == "reused"
    )
    refused(api.post("/syncs", json=body), 409)
    api.delete(f"/syncs/{first.json()['data']['id']}")
    for odd in ("", "a b", "x" * 256):
        refused(api.post("/syncs", json=body, headers={"Idempotency-Key": odd}), 400)


def test_a_request_that_failed_may_come_again_with_its_key(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "second-try"}
    refused(api.post("/syncs", json={**SYNC, "name": "retried", "objectName": "Nope"}, headers=headers), 422)
    created = api.post("/syncs", json={**SYNC, "name": "retried"}, headers=headers)
    assert created.status_code == 201
    api.delete(f"/syncs/{created.json()['data']['id']}")


def test_keys_of_requests_belong_to_their_caller(url: str, desk: Desk, api: httpx.Client) -> None:
    body, headers = {**SYNC, "name": "shared key"}, {"Idempotency-Key": "the-same"}
    first = api.post("/syncs", json=body, headers=headers)
    with client(url, desk.key()) as other:
        refused(other.post("/syncs", json=body, headers=headers), 409)
    api.delete(f"/syncs/{first.json()['data']['id']}")


def test_only_the_version_that_was_read_is_changed(api: httpx.Client, sync_id: str) -> None:
    read = api.get(f"/syncs/{sync_id}").headers["ETag"]
    changed = api.put(f"/syncs/{sync_id}", json={"description": "one"}, headers={"If-Match": read})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != read
    for stale in (read, '"999"', "nonsense", '"a"'):
        refused(api.put(f"/syncs/{sync_id}", json={"description": "two"}, headers={"If-Match": stale}), 412)
        refused(api.delete(f"/syncs/{sync_id}", headers={"If-Match": stale}), 412)
    assert api.get(f"/syncs/{sync_id}").json()["data"]["attributes"]["description"] == "one"
    assert api.put(f"/syncs/{sync_id}", json={"description": None}, headers={"If-Match": "*"}).status_code == 200
    versions = api.get(f"/syncs/{sync_id}/versions").json()["data"]
    assert [each["attributes"]["version"] for each in versions] == list(range(len(versions), 0, -1))
    assert all(each["attributes"]["actor"].startswith("api:test (retl_key_") for each in versions)


def test_a_taken_name_is_a_conflict_that_names_who_has_it(api: httpx.Client, sync_id: str) -> None:
    error = refused(api.post("/syncs", json=SYNC), 409)
    assert error["details"][0]["id"] == sync_id


def test_everything_that_retl_yaml_can_say_can_be_said_here(api: httpx.Client) -> None:
    said = {
        "name": "all of it",
        "description": "x",
        "source_query": "table:analytics.dim_crm_account",
        "destination_id": "conn_sf_prod",
        "object_name": "Account",
        "key": "External_Id__c",
        "field_mappings": {
            "External_Id__c": "account_id",
            "Name": {"source": "upper(name)", "onNull": "omit"},
            "AnnualRevenue": {"source": "annual_revenue", "default": 0},
            "Last_Activity__c": {"value": "2025-01-01T00:00:00Z"},
        },
        "sync_mode": "upsert",
        "schedule": "0 6 * * *",
        "changeDetection": {"watermark": "last_activity_at", "lookback": "1h"},
        "guards": {"deletes": "5%", "shrink": 0.3},
        "maxAttempts": 3,
        "owners": ["team:revops"],
        "group": "sales",
        "tags": {"domain": "crm"},
        "enabled": False,
    }
    created = api.post("/syncs", json=said)
    assert created.status_code == 201, created.text
    got = created.json()["data"]["attributes"]
    assert got["enabled"] is False
    assert got["guards"] == {"deletes": 0.05, "shrink": 0.3, "failures": 0.05}
    assert got["change_detection"] == {"watermark": "last_activity_at", "lookback": "1h"}
    assert got["field_mappings"][1] == {"destination": "Name", "source": "upper(name)", "on_null": "omit"}
    settings = {name: got[name] for name in ("name", "source_query", "field_mappings", "guards", "change_detection")}
    again = api.put(f"/syncs/{created.json()['data']['id']}", json=settings)
    assert again.status_code == 200, again.text
    api.delete(f"/syncs/{created.json()['data']['id']}")


def test_without_dagster_a_run_is_closed_and_the_client_is_told(desk: Desk, api: httpx.Client) -> None:
    created = api.post("/syncs", json={**SYNC, "name": "no dagster"})
    assert created.json()["meta"]["definitions_stale"] is True
    sync_id = created.json()["data"]["id"]
    assert api.get(f"/syncs/{sync_id}").json()["data"]["attributes"]["schedule_state"] == "unknown"
    error = refused(api.post("/sync/run", json={"syncId": sync_id}), 503)
    assert error["code"] == "UNAVAILABLE"
    run = api.get(f"/runs/{error['details'][0]['id']}").json()["data"]["attributes"]
    assert (run["status"], run["error"]["code"]) == ("failed", "INTERRUPTED")
    assert "cannot be reached" in run["error"]["message"]
    refused(api.post("/sync/run", json={"syncId": sync_id}), 503)
    assert api.post("/sync/toggle", json={"syncId": sync_id, "enabled": True}).status_code == 200
    assert api.delete(f"/syncs/{sync_id}").status_code == 200


def test_a_destination_that_does_not_answer(api: httpx.Client) -> None:
    created = api.post("/syncs", json={**SYNC, "name": "to nowhere", "destinationId": "conn_nowhere"})
    assert created.status_code == 201, created.text
    api.delete(f"/syncs/{created.json()['data']['id']}")


def test_writes_are_audited_with_their_key(desk: Desk, api: httpx.Client) -> None:
    created = api.post("/syncs", json={**SYNC, "name": "audited"}).json()["data"]["id"]
    api.post("/sync/toggle", json={"syncId": created, "enabled": False})
    api.delete(f"/syncs/{created}")
    with Service.open(desk.project()) as service:
        entries = [entry for _, entry in service.store.audit.list(limit=10) if entry.subject == created]
    assert {"sync.create", "sync.disable", "sync.delete"} <= {entry.action for entry in entries}
    assert all(entry.actor.startswith("api:test (retl_key_") for entry in entries)


def test_metrics_count_requests_by_route(url: str, api: httpx.Client) -> None:
    api.get(f"/syncs/{UNKNOWN}")
    text = httpx.get(f"{url}/metrics", headers=api.headers).text
    assert 'retl_api_requests_total{method="GET",route="/syncs/{sync_id}",status="404"}' in text
    assert UNKNOWN not in text
    assert "retl_dead_letters_open" in text
    assert 'retl_sync_enabled{sync="in_the_file"} 1.0' in text


def test_a_crash_of_the_store_tells_nothing_of_it(own: Desk) -> None:
    with serving(own.project()) as url, client(url, own.key()) as api:
        assert api.get("/syncs").status_code == 200
        with Service.open(own.project()) as service, service.store.begin() as conn:
            conn.exec_driver_sql("ALTER TABLE dead_letters RENAME TO elsewhere")
        error = refused(api.get("/dlq"), 500)
        assert (error["code"], "dead_letters" in error["message"]) == ("INTERNAL", False)
