"""The testing kit itself: the loopback server and the fake service do what tests rely on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from dagster_retl.connectors.base import Exchange, Request
from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import WireForm
from dagster_retl.testing import (
    FakeHttpService,
    LoopbackServer,
    Received,
    Reply,
    Rules,
    Trouble,
    converse,
    deliver,
    make_batch,
    make_row,
)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False, trust_env=False, timeout=5) as made:
        yield made


@pytest.fixture
def echo() -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda request: Reply.json({"got": request.body.decode()})) as server:
        yield server


class TestServer:
    def test_logs_what_it_receives(self, echo: LoopbackServer, client: httpx.Client) -> None:
        client.put(f"{echo.url}/a%20b?x=1", content=b'{"k":1}', headers={"X-Thing": "v"})
        (request,) = echo.requests
        assert (request.method, request.path, request.query, request.json()) == ("PUT", "/a%20b", "x=1", {"k": 1})
        assert request.headers["x-thing"] == "v"
        assert 0 <= time.monotonic() - request.at < 5

    def test_keeps_connections_alive(self, echo: LoopbackServer, client: httpx.Client) -> None:
        for _ in range(3):
            client.post(echo.url, content=b"x")
        assert len({request.connection for request in echo.requests}) == 1

    def test_reads_chunks(self, echo: LoopbackServer, client: httpx.Client) -> None:
        assert client.post(echo.url, content=iter([b"ab", b"", b"cd"])).json() == {"got": "abcd"}

    def test_reads_large_bodies_in_both_directions(self, echo: LoopbackServer, client: httpx.Client) -> None:
        text = "x" * 3_000_000
        assert client.post(echo.url, content=text).json() == {"got": text}

    def test_answers_without_body(self, client: httpx.Client) -> None:
        with LoopbackServer(lambda request: Reply(204)) as server:
            assert [client.delete(server.url).status_code for _ in range(2)] == [204, 204]
            assert client.head(server.url).content == b""

    def test_troubles_come_in_order_and_end(self, echo: LoopbackServer, client: httpx.Client) -> None:
        echo.disturb(Trouble(status=503, headers={"Retry-After": "2"}), times=2)
        echo.disturb(Trouble(status=429), where=lambda request: request.path == "/b")
        answers = [client.get(echo.url + path) for path in ("/a", "/a", "/a", "/b", "/b")]
        assert [answer.status_code for answer in answers] == [503, 503, 200, 429, 200]
        assert answers[0].headers["Retry-After"] == "2"

    @pytest.mark.parametrize(
        ("trouble", "applied", "error"),
        [
            (Trouble(reset="before"), 0, httpx.ReadError),
            (Trouble(reset="after"), 1, httpx.ReadError),
            (Trouble(truncate=True), 1, httpx.RemoteProtocolError),
            (Trouble(delay=0.6), 1, httpx.ReadTimeout),
            (Trouble(status=500), 0, None),
            (Trouble(status=500, apply=True), 1, None),
            (Trouble(body=b"{"), 1, None),
        ],
    )
    def test_what_is_applied_in_trouble(self, trouble: Trouble, applied: int, error: type[Exception] | None) -> None:
        with FakeHttpService() as service:
            service.disturb(trouble)
            with httpx.Client(verify=False, trust_env=False, timeout=0.3) as client:
                if error:
                    with pytest.raises(error):
                        client.post(service.url + "/v1/contacts", json=[{"id": 1}])
                else:
                    client.post(service.url + "/v1/contacts", json=[{"id": 1}])
            assert len(service.applied) == applied

    def test_closes_promptly_with_open_connections_and_waiting_requests(self) -> None:
        server = LoopbackServer(lambda request: Reply(204), latency=30).start()
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            deadline = time.monotonic() + 5
            while not server.requests and time.monotonic() < deadline:
                time.sleep(0.01)
            started = time.monotonic()
            server.close()
        assert time.monotonic() - started < 20

    def test_errors_of_a_handler_reach_the_test(self, client: httpx.Client) -> None:
        def broken(request: Received) -> Reply:
            raise KeyError("a bug in the fake")

        server = LoopbackServer(broken).start()
        assert client.get(server.url).status_code == 500
        with pytest.raises(KeyError, match="a bug in the fake"):
            server.close()


class TestFakeService:
    def test_enforces_its_rate(self, client: httpx.Client) -> None:
        with FakeHttpService(Rules(rate=20, burst=2)) as service:
            answers = [client.get(service.url + "/v1/ping") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [204, 204, 429]
            time.sleep(float(answers[-1].headers["Retry-After"]))
            assert client.get(service.url + "/v1/ping").status_code == 204
            assert service.refused_by_rate == 1

    def test_honours_idempotency_keys(self, client: httpx.Client) -> None:
        with FakeHttpService(Rules(idempotency_header="Idempotency-Key", operations={"POST": "insert"})) as service:
            url, key = service.url + "/v1/contacts", {"Idempotency-Key": "k1"}
            first, again = (client.post(url, json=[{"id": 1}], headers=key) for _ in range(2))
            assert first.json() == again.json() == {"records": [{"index": 0, "record_id": "rec_1"}], "errors": []}
            assert client.post(url, json=[{"id": 2}], headers=key).status_code == 422
            assert client.post(url, json=[{"id": 1}]).json()["errors"][0]["code"] == "DUPLICATE"
            assert service.applications() == {("contacts", "1"): 1}

    def test_verifies_signatures(self) -> None:
        with FakeHttpService(Rules(signing_secret="right")) as service:
            for secret, applied in (("wrong", 0), ("right", 1)):
                settings = {"url": service.url + "/v1/{object}", "signing_secret": secret}
                connector = HttpConnector(HttpConfig.model_validate(settings))
                if applied:
                    deliver(connector, make_batch([{"id": 1}]))
                else:
                    with pytest.raises(DestinationError) as caught:
                        deliver(connector, make_batch([{"id": 1}]))
                    assert caught.value.code is ErrorCode.AUTH
                assert len(service.applied) == applied

    def test_deletes_and_updates(self, client: httpx.Client) -> None:
        with FakeHttpService() as service:
            settings = {
                "url": service.url + "/v1/{object}",
                "method": {"upsert": "POST", "update": "PATCH"},
                "results": {"codes": {"NOT_FOUND": "NOT_FOUND"}},
                "delete": {"url": service.url + "/v1/{object}/{id}"},
            }
            connector = HttpConnector(HttpConfig.model_validate(settings))
            deliver(connector, make_batch([{"id": "a/b", "x": 1}, {"id": "c", "x": 1}]))
            results = deliver(connector, make_batch([{"id": "c", "y": 2}, {"id": "new", "y": 2}], operation="update"))
            assert [result.fault and result.fault.code for result in results] == [None, ErrorCode.NOT_FOUND]
            gone = deliver(connector, make_batch([{"id": "a/b"}, {"id": "never"}], operation="delete"))
            assert [result.fault for result in gone] == [None, None]
            assert service.records["contacts"] == {"c": {"id": "c", "x": 1, "y": 2}}

    def test_deletes_by_body(self) -> None:
        with FakeHttpService() as service:
            settings = {
                "url": service.url + "/v1/{object}",
                "results": {"codes": {"NOT_FOUND": "NOT_FOUND"}},
                "delete": {"url": service.url + "/v1/{object}/delete", "method": "POST", "body": "array"},
            }
            connector = HttpConnector(HttpConfig.model_validate(settings))
            deliver(connector, make_batch([{"id": 1}, {"id": 2}]))
            assert not [
                result
                for result in deliver(connector, make_batch([{"id": 1}, {"id": 9}], operation="delete"))
                if result.fault
            ]
            assert set(service.records["contacts"]) == {"2"}

    def test_is_safe_for_threads(self) -> None:
        with FakeHttpService() as service:

            def work(start: int) -> None:
                with httpx.Client(verify=False, trust_env=False) as own:
                    for number in range(start, start + 25):
                        own.post(service.url + "/v1/contacts", json=[{"id": number}])

            threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 100, 25)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(service.records["contacts"]) == 100
            assert set(service.applications().values()) == {1}


class TestConverse:
    def two_requests(self) -> Exchange[int]:
        first = yield Request("GET", "/a")
        second = yield Request("GET", "/b")
        return first.status_code + second.status_code

    def test_returns_requests_and_result(self) -> None:
        requests, result = converse(self.two_requests(), httpx.Response(200), httpx.Response(204))
        assert ([request.url for request in requests], result) == (["/a", "/b"], 404)

    def test_complains_of_too_few_responses(self) -> None:
        with pytest.raises(AssertionError, match="request 2: GET /b"):
            converse(self.two_requests(), httpx.Response(200))

    def test_complains_of_too_many_responses(self) -> None:
        with pytest.raises(AssertionError, match="1 responses unused"):
            converse(self.two_requests(), *[httpx.Response(200)] * 3)


class TestRows:
    VALUES: Any = (
        (datetime(2025, 3, 27, 17, 0, tzinfo=UTC), b'"2025-03-27T17:00:00Z"'),
        (datetime(2025, 3, 27, 17, 0, 0, 120), b'"2025-03-27T17:00:00.000120Z"'),  # noqa: DTZ001  # taken as UTC
        (date(2025, 3, 27), b'"2025-03-27"'),
        (Decimal("10.50"), b"10.50"),
        ([Decimal("0.1"), None], b"[0.1,null]"),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (b"\x00\xff", b'"AP8="'),
        ({"a": True}, b'{"a":true}'),
    )

    @pytest.mark.parametrize(("value", "json"), VALUES)
    def test_are_serialised_in_the_wire_form(self, value: Any, json: bytes) -> None:
        assert orjson.dumps(make_row({"id": 1, "v": value}).json) == b'{"id":1,"v":' + json + b"}"

    def test_other_forms(self) -> None:
        form = WireForm(timestamp="epoch_ms", decimal="string", nest=False)
        row = make_row({"id": 1, "a.b": Decimal("1.0"), "t": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}, wire=form)
        assert orjson.dumps(row.json) == b'{"id":1,"a.b":"1.0","t":1000}'

    def test_several_key_fields(self) -> None:
        row = make_row({"a": 1, "b": "x"}, key=("a", "b"))
        assert (row.key, row.key_values) == ('[1,"x"]', {"a": 1, "b": "x"})
