"""What the wire does to a conversation, on real sockets."""

from __future__ import annotations

import gzip
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from dagster_retl.connectors.base import Connector, ConnectorConfig, ConnectorSpec, Exchange, Request
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.transport import ATTEMPTS, Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.errors import CancelledError, DestinationError, ErrorCode
from dagster_retl.model.rows import Account, Batch, FieldInfo, ObjectInfo, RowResult
from dagster_retl.testing.server import LoopbackServer, Reply, Trouble


class Echo(Connector):
    """Asks one question, and hands back the answer's status."""

    spec = ConnectorSpec("echo", "Echo", frozenset({"upsert"}))
    Config = ConnectorConfig

    def __init__(self, config: ConnectorConfig, *, idempotent: bool = True) -> None:
        super().__init__(config)
        self.asks_idempotently = idempotent

    def ask(self) -> Exchange[int]:
        response = yield Request("POST", "/x", content=b"{}", idempotent=self.asks_idempotently)
        return response.status_code

    def check(self) -> Exchange[Account]:
        yield Request("GET", "/")
        return Account("", "")

    def objects(self) -> Exchange[list[ObjectInfo]]:
        yield Request("GET", "/")
        return []

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        yield Request("GET", "/")
        return []

    def write(self, batch: Batch) -> Exchange[list[RowResult]]:
        yield Request("POST", "/")
        return []


class Tokens(httpx.Auth):
    """Fetches a token from another place before each request."""

    def __init__(self, url: str) -> None:
        self._url = url

    def auth_flow(self, request: httpx.Request) -> Any:
        yield httpx.Request("POST", self._url)
        yield request


def alone(stop: threading.Event | None = None) -> Turns:
    return Turns(Pacer(None), stop or threading.Event(), Gate(1))


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda request: Reply(200)) as running:
        yield running


Made = Callable[..., tuple[Transport, Echo]]


@pytest.fixture
def transport() -> Iterator[Made]:
    made: list[Transport] = []

    def make(url: str, *, idempotent: bool = True, auth: httpx.Auth | None = None, timeout: float = 2.0) -> Any:
        connector = Echo(ConnectorConfig(base_url=url, timeout=timeout), idempotent=idempotent)
        made.append(Transport(connector, auth=auth, turns=alone()))
        return made[-1], connector

    yield make
    for wire in made:
        wire.close()


def test_an_answer_is_handed_to_the_conversation(server: LoopbackServer, transport: Made) -> None:
    wire, echo = transport(server.url)
    assert wire.run(echo.ask()) == 200
    assert (wire.traffic.requests, wire.traffic.retries, wire.traffic.bytes_sent, wire.ambiguous) == (1, 0, 2, False)
    wire.close()


@pytest.mark.parametrize("trouble", [Trouble(status=503), Trouble(reset="after")])
def test_an_idempotent_request_is_sent_again_and_remembered_as_ambiguous(
    server: LoopbackServer, transport: Made, trouble: Trouble
) -> None:
    server.disturb(trouble, times=1)
    wire, echo = transport(server.url)
    assert wire.run(echo.ask()) == 200
    assert (wire.traffic.retries, wire.ambiguous) == (1, True)
    wire.close()


@pytest.mark.parametrize("trouble", [Trouble(status=500), Trouble(reset="after")])
def test_a_request_that_must_not_be_repeated_is_not(server: LoopbackServer, transport: Made, trouble: Trouble) -> None:
    """PROTOCOL 19."""
    server.disturb(trouble, times=1)
    wire, echo = transport(server.url, idempotent=False)
    with pytest.raises(DestinationError) as caught:
        wire.run(echo.ask())
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.UNKNOWN_OUTCOME, True)
    assert len(server.requests) == 1


def test_a_rate_limit_applies_nothing_so_anything_is_sent_again(server: LoopbackServer, transport: Made) -> None:
    server.disturb(Trouble(status=429, headers={"Retry-After": "0"}), times=6)
    wire, echo = transport(server.url, idempotent=False)
    assert wire.run(echo.ask()) == 200
    assert (wire.traffic.retries, wire.ambiguous) == (0, False)


def test_an_outage_ends_after_a_few_attempts(server: LoopbackServer, transport: Made) -> None:
    server.disturb(Trouble(status=502), times=50)
    wire, echo = transport(server.url)
    with pytest.raises(DestinationError) as caught:
        wire.run(echo.ask())
    assert caught.value.code is ErrorCode.DESTINATION_UNAVAILABLE
    assert len(server.requests) == ATTEMPTS


def test_a_refused_connection_is_not_ambiguous(server: LoopbackServer, transport: Made) -> None:
    url = server.url
    server.close()
    wire, echo = transport(url, idempotent=False)
    with pytest.raises(DestinationError) as caught:
        wire.run(echo.ask())
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, False)


def test_a_timeout_is_ambiguous(server: LoopbackServer, transport: Made) -> None:
    server.disturb(Trouble(delay=1.0), times=1)
    wire, echo = transport(server.url, idempotent=False, timeout=0.1)
    with pytest.raises(DestinationError, match=r"no answer within 0\.1 s") as caught:
        wire.run(echo.ask())
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.UNKNOWN_OUTCOME, True)


def test_a_timeout_is_for_the_whole_answer(server: LoopbackServer, transport: Made) -> None:
    """Bytes that come one by one are an answer each, as httpx counts."""
    server.disturb(Trouble(body=b"x" * 100, drip=0.2))
    wire, echo = transport(server.url, idempotent=False, timeout=1.0)
    with pytest.raises(DestinationError, match="no answer within 1 s") as caught:
        wire.run(echo.ask())
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.UNKNOWN_OUTCOME, True)
    assert len(server.requests) == 1


def test_so_it_is_for_that_to_a_request_for_a_token(server: LoopbackServer, transport: Made) -> None:
    server.disturb(Trouble(body=b"x" * 100, drip=0.2))
    wire, echo = transport(server.url, idempotent=False, auth=Tokens(f"{server.url}/token"), timeout=1.0)
    assert wire.run(echo.ask()) == 200
    assert (wire.traffic.retries, wire.ambiguous) == (1, False)
    assert [request.path for request in server.requests] == ["/token", "/token", "/x"]


def test_a_drip_that_ends_in_time_is_an_answer(server: LoopbackServer, transport: Made) -> None:
    server.disturb(Trouble(body=b"x" * 20, drip=0.001), times=1)
    wire, echo = transport(server.url, idempotent=False, timeout=30.0)
    assert wire.run(echo.ask()) == 200
    assert len(server.requests) == 1


def test_a_lost_token_request_says_nothing_of_the_row(server: LoopbackServer, transport: Made) -> None:
    with LoopbackServer(lambda request: Reply(200)) as tokens:
        tokens.disturb(Trouble(delay=1.0), times=ATTEMPTS)
        wire, echo = transport(server.url, idempotent=False, auth=Tokens(f"{tokens.url}/token"), timeout=0.1)
        with pytest.raises(DestinationError) as caught:
            wire.run(echo.ask())
        assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, False)
        assert server.requests == []


def test_an_address_that_is_not_allowed_is_not_reached_by_auth_either(server: LoopbackServer, transport: Made) -> None:
    class Guarded(Echo):
        def allow(self, url: httpx.URL) -> None:
            if url.path == "/token":
                raise DestinationError("not there", code=ErrorCode.CONFIGURATION)

    guarded = Guarded(ConnectorConfig(base_url=server.url))
    wire = Transport(guarded, auth=Tokens(f"{server.url}/token"), turns=alone())
    with pytest.raises(DestinationError, match="not there"):
        wire.run(guarded.ask())
    assert server.requests == []
    wire.close()


class Asks(Echo):
    """Asks what it is told to, and hands back the answer's body."""

    def ask_for(self, request: Request) -> Exchange[bytes]:
        response = yield request
        return response.content


def asking(url: str, auth: httpx.Auth | None = None, **config: Any) -> tuple[Transport, Asks]:
    connector = Asks(ConnectorConfig(base_url=url, **config))
    return Transport(connector, auth=auth, turns=alone()), connector


def test_a_request_arrives_as_it_was_meant(server: LoopbackServer) -> None:
    wire, asks = asking(f"{server.url}/api/v1")
    headers = {"accept": "text/csv", "X-Team": "dätä", "user-agent": "mine"}
    wire.run(asks.ask_for(Request("PATCH", "/rows?a=1", headers, content="ü".encode())))
    wire.run(asks.ask_for(Request("GET", f"{server.url}/else", params={"q": "a b&c"})))
    wire.close()
    first, second = server.requests
    assert (first.method, first.path, first.query, first.body) == ("PATCH", "/api/v1/rows", "a=1", "ü".encode())
    assert (first.headers["accept"], first.headers["user-agent"], first.headers["content-length"]) == (
        "text/csv", "mine", "2",
    )  # fmt: skip
    assert first.headers["x-team"].encode("latin-1").decode() == "dätä"
    assert first.headers["host"] == server.url.removeprefix("http://")
    assert (second.method, second.path, second.query) == ("GET", "/else", "q=a+b%26c")
    assert (second.headers["accept"], second.headers["user-agent"]) == ("*/*", "dagster-retl")
    assert "content-length" not in second.headers


def test_requests_of_one_thread_share_a_connection(server: LoopbackServer) -> None:
    wire, asks = asking(server.url)
    for _ in range(3):
        wire.run(asks.ask())
    wire.close()
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read(encoding: str) -> None:
    body = gzip.compress(b"hello") if encoding == "gzip" else zlib.compress(b"hello")
    with LoopbackServer(lambda request: Reply(200, body, {"Content-Encoding": encoding})) as server:
        wire, asks = asking(server.url)
        assert wire.run(asks.ask_for(Request("GET", "/"))) == b"hello"
        wire.close()
        assert encoding in server.requests[0].headers["accept-encoding"]


def test_an_answer_that_cannot_be_decoded_leaves_the_outcome_open() -> None:
    with LoopbackServer(lambda request: Reply(200, b"no gzip", {"Content-Encoding": "gzip"})) as server:
        wire, asks = asking(server.url)
        with pytest.raises(DestinationError, match="cannot be decoded") as caught:
            wire.run(asks.ask_for(Request("POST", "/", content=b"{}", idempotent=False)))
        wire.close()
        assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.UNKNOWN_OUTCOME, True)


def test_a_truncated_answer_leaves_the_outcome_open(server: LoopbackServer) -> None:
    server.disturb(Trouble(body=b"0123456789", truncate=True))
    wire, asks = asking(server.url)
    with pytest.raises(DestinationError) as caught:
        wire.run(asks.ask_for(Request("POST", "/", content=b"{}", idempotent=False)))
    wire.close()
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.UNKNOWN_OUTCOME, True)


def test_no_cookie_is_sent_back() -> None:
    with LoopbackServer(lambda request: Reply(200, headers={"Set-Cookie": "a=1"})) as server:
        wire, asks = asking(server.url)
        for _ in range(2):
            wire.run(asks.ask())
        wire.close()
        assert all("cookie" not in request.headers for request in server.requests)


def test_a_proxy_is_asked_and_told_its_password() -> None:
    with LoopbackServer(lambda request: Reply(200, request.path.encode())) as proxy:
        wire, asks = asking("http://crm.invalid", proxy=proxy.url.replace("//", "//ann:s3cret@"))
        assert wire.run(asks.ask_for(Request("GET", "/rows"))) == b"http://crm.invalid/rows"
        wire.close()
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic " + b64encode(b"ann:s3cret").decode()


def test_a_host_that_nobody_knows_was_never_reached() -> None:
    wire, asks = asking("http://no.such.host.invalid")
    with pytest.raises(DestinationError) as caught:
        wire.run(asks.ask_for(Request("POST", "/", content=b"{}", idempotent=False)))
    wire.close()
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, False)


def test_an_auth_that_answers_a_refusal_sends_the_request_again(server: LoopbackServer) -> None:
    class Twice(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request: httpx.Request) -> Any:
            request.headers["Authorization"] = "old"
            response = yield request
            assert response.json() == {"why": "expired"}
            request.headers["Authorization"] = "new"
            yield request

    server.disturb(Trouble(status=401, body=b'{"why": "expired"}'))
    wire, asks = asking(server.url, Twice())
    assert wire.run(asks.ask()) == 200
    wire.close()
    assert [request.headers["authorization"] for request in server.requests] == ["old", "new"]
    assert [request.body for request in server.requests] == [b"{}", b"{}"]


class TestLimits:
    def test_a_window_of_the_vendors_is_waited_for_without_retry_after(self, server: LoopbackServer) -> None:
        server.disturb(Trouble(status=429, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0.3"}))
        wire, asks = asking(server.url)
        assert wire.run(asks.ask()) == 200
        wire.close()
        first, second = (request.at for request in server.requests)
        assert second - first >= 0.3

    def test_a_refusal_slows_all_workers_down_and_an_answer_does_not(self, server: LoopbackServer) -> None:
        turns = Turns(Pacer(None), threading.Event(), Gate(8))
        connector = Echo(ConnectorConfig(base_url=server.url))
        wire = Transport(connector, auth=None, turns=turns)
        wire.run(connector.ask())
        assert turns.gate.size == 8
        server.disturb(Trouble(status=429, headers={"Retry-After": "0"}))
        wire.run(connector.ask())
        assert turns.gate.size == 4
        server.disturb(Trouble(status=503, headers={"Retry-After": "0"}))
        wire.run(connector.ask())
        assert turns.gate.size == 2
        server.disturb(Trouble(status=500))
        wire.run(connector.ask())
        assert turns.gate.size == 2 + 1
        wire.close()

    def test_nothing_is_sent_once_the_run_is_stopped(self, server: LoopbackServer) -> None:
        stop = threading.Event()
        stop.set()
        connector = Echo(ConnectorConfig(base_url=server.url))
        wire = Transport(connector, auth=None, turns=alone(stop))
        with pytest.raises(CancelledError):
            wire.run(connector.ask())
        wire.close()
        assert server.requests == []

    @pytest.mark.parametrize(("first", "ambiguous"), [("GET", False), ("POST", True)])
    def test_a_conversation_that_is_cut_short_may_have_written(
        self, server: LoopbackServer, first: str, ambiguous: bool
    ) -> None:
        stop = threading.Event()

        class TwoRequests(Echo):
            def ask(self) -> Exchange[int]:
                yield Request(first, "/one")
                stop.set()
                yield Request("POST", "/two")
                return 0

        connector = TwoRequests(ConnectorConfig(base_url=server.url))
        wire = Transport(connector, auth=None, turns=alone(stop))
        with pytest.raises(CancelledError):
            wire.run(connector.ask())
        wire.close()
        assert wire.ambiguous is ambiguous
        assert [request.path for request in server.requests] == ["/one"]
