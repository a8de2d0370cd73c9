"""What the wire does to a conversation, on real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from dagster_retl.connectors.base import Connector, ConnectorConfig, ConnectorSpec, Exchange, Request
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.transport import ATTEMPTS, Transport
from dagster_retl.errors import DestinationError, ErrorCode
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
        made.append(Transport(connector, auth=auth, pacer=Pacer(None), stop=threading.Event()))
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
    wire = Transport(guarded, auth=Tokens(f"{server.url}/token"), pacer=Pacer(None), stop=threading.Event())
    with pytest.raises(DestinationError, match="not there"):
        wire.run(guarded.ask())
    assert server.requests == []
    wire.close()
