"""How the `http` connector authorises itself, against real servers."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.testing import (
    FakeHttpService,
    LoopbackServer,
    Reply,
    Rules,
    Trouble,
    drive,
    make_batch,
    open_client,
)

CLIENT = ("the id", "s&cr=t+/%")


def connector_to(server: LoopbackServer, **auth: Any) -> HttpConnector:
    return HttpConnector(HttpConfig.model_validate({"url": server.url + "/v1/{object}", "auth": auth}))


def oauth_to(server: LoopbackServer, **settings: Any) -> HttpConnector:
    auth = {"client_id": CLIENT[0], "client_secret": CLIENT[1], "token_url": server.url + "/oauth/token"}
    return connector_to(server, type="oauth2", **(auth | settings))


def write(connector: HttpConnector, *keys: str) -> int:
    return len(drive(connector, connector.write(make_batch([{"id": key} for key in keys]))))


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "token": "t"}, "authorization", "Bearer t"),
        ({"type": "basic", "username": "u", "password": "p"}, "authorization", "Basic dTpw"),
        ({"type": "header", "name": "X-Api-Key", "value": "k"}, "x-api-key", "k"),
    ],
)
def test_static_credentials(auth: dict[str, str], header: str, value: str) -> None:
    with LoopbackServer(lambda request: Reply(204)) as server:
        write(connector_to(server, **auth), "a")
        assert server.requests[0].headers[header] == value


class TestClientCredentials:
    @pytest.mark.parametrize("way", ["basic", "body"])
    def test_a_token_is_fetched_once(self, way: str) -> None:
        with FakeHttpService(Rules(client=CLIENT)) as service:
            connector = oauth_to(service, client_auth=way, scope="rows:write")
            assert [write(connector, "a"), write(connector, "b")] == [1, 1]
            assert [request.path for request in service.requests].count("/oauth/token") == 1
            assert b"scope=rows%3Awrite" in service.requests[0].body
            assert set(service.records["contacts"]) == {"a", "b"}

    def test_a_revoked_token_is_renewed_once(self) -> None:
        with FakeHttpService(Rules(client=CLIENT)) as service:
            connector = oauth_to(service)
            write(connector, "a")
            service.revoke_tokens()
            assert write(connector, "b") == 1
            assert service.applications() == {("contacts", "a"): 1, ("contacts", "b"): 1}

    def test_a_refused_new_token_is_the_end(self) -> None:
        def answer(request: Any) -> Reply:
            return Reply.json({"access_token": "t-123456"}) if request.path == "/oauth/token" else Reply(401)

        with LoopbackServer(answer) as server:
            with pytest.raises(DestinationError) as caught:
                write(oauth_to(server), "a")
            assert caught.value.code is ErrorCode.AUTH
            assert len(server.requests) == 4

    def test_threads_share_one_token(self) -> None:
        with FakeHttpService(Rules(client=CLIENT)) as service:
            connector = oauth_to(service)
            threads = [threading.Thread(target=write, args=(connector, str(number))) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [request.path for request in service.requests].count("/oauth/token") == 1
            assert len(service.records["contacts"]) == 8

    def test_wrong_credentials_are_said_to_be_wrong(self) -> None:
        with FakeHttpService(Rules(client=("other", "secret"))) as service:
            with pytest.raises(DestinationError, match="invalid_client") as caught:
                write(oauth_to(service), "a")
            assert caught.value.code is ErrorCode.AUTH
            assert CLIENT[1] not in str(caught.value)

    @pytest.mark.parametrize(
        ("trouble", "code"),
        [
            (Trouble(status=503), ErrorCode.DESTINATION_UNAVAILABLE),
            (Trouble(status=429), ErrorCode.RATE_LIMIT),
            (Trouble(body=b"<html>"), ErrorCode.DESTINATION_UNAVAILABLE),
            (Trouble(body=b"{}"), ErrorCode.AUTH),
        ],
    )
    def test_an_outage_of_the_token_endpoint_is_an_outage(self, trouble: Trouble, code: ErrorCode) -> None:
        with FakeHttpService(Rules(client=CLIENT)) as service:
            connector = oauth_to(service)
            service.disturb(trouble)
            with pytest.raises(DestinationError) as caught:
                write(connector, "a")
            assert (caught.value.code, caught.value.ambiguous) == (code, False)
            assert write(connector, "a") == 1, "the lock is free again"

    def test_a_forbidden_token_address_is_not_asked(self) -> None:
        with LoopbackServer(lambda request: Reply(204)) as server:
            connector = oauth_to(server, token_url="http://169.254.169.254/token")
            with (
                httpx.Client(auth=connector.auth(), verify=False, timeout=0.5) as client,
                pytest.raises(DestinationError) as caught,
            ):
                client.get(server.url)
            assert caught.value.code is ErrorCode.CONFIGURATION
            assert server.requests == []

    def test_the_token_is_redacted(self) -> None:
        def answer(request: Any) -> Reply:
            if request.path == "/oauth/token":
                return Reply.json({"access_token": "granted-token-1"})
            return Reply.json({"message": f"you said {request.headers['authorization']}"}, 400)

        with LoopbackServer(answer) as server:
            connector = oauth_to(server)
            with open_client(connector) as client:
                (result,) = drive(connector, connector.write(make_batch([{"id": 1}])), client)
            assert result.fault
            assert result.fault.message == "you said Bearer ***"
