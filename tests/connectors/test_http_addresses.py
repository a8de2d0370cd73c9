"""Addresses that the `http` connector refuses."""

from __future__ import annotations

import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_addresses import AddressGuard, is_forbidden
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.testing import LoopbackServer, Reply, drive, make_batch


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://169.254.170.2/v2/credentials",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://100.100.100.200/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://METADATA.google.internal./",
        "http://2852039166/",  # 169.254.169.254 as the resolver also reads it
        "http://0xa9fea9fe/",
        "ftp://api.example/",
    ],
)
def test_metadata_and_link_local_addresses_are_refused(url: str) -> None:
    connector = HttpConnector(HttpConfig(url="https://api.example/{object}"))
    with pytest.raises(DestinationError) as caught:
        connector.allow(httpx.URL(url))
    assert caught.value.code is ErrorCode.CONFIGURATION


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8080/", "http://localhost/", "http://[::1]/", "http://10.0.0.8/", "https://192.168.1.4/"),
        *("https://172.16.0.1/", "http://[fd12:3456::1]/", "https://8.8.8.8/", "http://does-not-resolve.invalid/"),
    ],
)
def test_services_in_the_house_and_elsewhere_are_allowed(url: str) -> None:
    AddressGuard().require_allowed(httpx.URL(url))


@given(st.ip_addresses(network="169.254.0.0/16") | st.ip_addresses(network="fe80::/10"))
def test_all_of_link_local_is_forbidden(address: object) -> None:
    assert is_forbidden(str(address))


def test_a_verdict_is_remembered() -> None:
    guard = AddressGuard()
    guard.require_allowed(httpx.URL("http://localhost/"))
    started = time.perf_counter()
    for _ in range(1000):
        guard.require_allowed(httpx.URL("http://localhost/x"))
    assert time.perf_counter() - started < 5


def test_a_driven_request_to_a_forbidden_address_is_not_sent() -> None:
    connector = HttpConnector(HttpConfig(url="http://169.254.169.254/{object}", timeout=0.2))
    with pytest.raises(DestinationError, match=r"169\.254\.169\.254"):
        drive(connector, connector.write(make_batch([{"id": 1}])))


def test_a_redirect_is_not_followed() -> None:
    with (
        LoopbackServer(lambda request: Reply(204)) as other,
        LoopbackServer(lambda request: Reply(307, headers={"Location": other.url})) as server,
    ):
        connector = HttpConnector(
            HttpConfig.model_validate({"url": server.url + "/x", "auth": {"type": "bearer", "token": "t"}})
        )
        with pytest.raises(DestinationError, match=r"redirects \(307\) to 127\.0\.0\.1"):
            drive(connector, connector.write(make_batch([{"id": 1}])))
        assert other.requests == []
