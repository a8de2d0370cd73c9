"""What answers say about rate limits: headers as vendors and drafts have them."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.connectors.limits import LimitState, limits_of, retry_after

NOON = datetime(2025, 3, 27, 12, 0, 0, tzinfo=UTC)
NOW = NOON.timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("Thu, 27 Mar 2025 12:00:30 GMT", 30.0),
        ("Thu, 27 Mar 2025 11:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=NOON) == seconds


GOLDEN = {
    "draft-10": (
        {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
        LimitState(50, 30.0, 100, 60.0),
    ),
    "draft-10, no policy": ({"RateLimit": '"default";r=0;t=7'}, LimitState(0, 7.0)),
    "draft-10, no reset": ({"RateLimit": '"default";r=999;pk=:dHJpYWwxMjEzMjM=:'}, LimitState(999)),
    "draft-10, several": (
        {
            "RateLimit": '"burst";r=9;t=1, "daily";r=2;t=36000',
            "RateLimit-Policy": '"burst";q=10;w=1,"daily";q=9;w=86400',
        },
        LimitState(2, 36000.0, 9, 86400.0),
    ),
    "draft-10, bytes are no requests": (
        {"RateLimit": '"peruser";r=0;t=5', "RateLimit-Policy": '"peruser";q=65535;qu="content-bytes";w=10'},
        None,
    ),
    "draft-10, a comma in a name": ({"RateLimit": '"a, b;c";r=4;t=2'}, LimitState(4, 2.0)),
    "draft-07": (
        {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"},
        LimitState(50, 5.0, 100, 60.0),
    ),
    "draft-03": (
        {"RateLimit-Limit": "100, 100;w=60;comment", "RateLimit-Remaining": "3", "RateLimit-Reset": "12"},
        LimitState(3, 12.0, 100, 60.0),
    ),
    "klaviyo": (
        {"RateLimit-Limit": "700, 75;w=1, 700;w=60", "RateLimit-Remaining": "699", "RateLimit-Reset": "60"},
        LimitState(699, 60.0, 700, 60.0),
    ),
    "intercom": (
        {"X-RateLimit-Limit": "167", "X-RateLimit-Remaining": "160", "X-RateLimit-Reset": f"{NOW + 8:.0f}"},
        LimitState(160, 8.0, 167),
    ),
    "epoch milliseconds": (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{(NOW + 2.5) * 1000:.0f}"},
        LimitState(0, 2.5),
    ),
    "an epoch that is over": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1617220942"}, LimitState(0, 0.0)),
    "pipedrive": (
        {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"},
        LimitState(0, 2.0, 20),
    ),
    "zendesk": ({"X-Rate-Limit": "700", "X-Rate-Limit-Remaining": "690"}, LimitState(690, None, 700)),
    "hubspot": (
        {
            "X-HubSpot-RateLimit-Daily": "250000",
            "X-HubSpot-RateLimit-Daily-Remaining": "249862",
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
            "X-HubSpot-RateLimit-Max": "100",
            "X-HubSpot-RateLimit-Remaining": "99",
            "X-HubSpot-RateLimit-Secondly": "10",
            "X-HubSpot-RateLimit-Secondly-Remaining": "0",
        },
        LimitState(99, 10.0, 100, 10.0),
    ),
    "hubspot search": ({"X-HubSpot-RateLimit-Daily": "250000"}, None),
    "salesforce": ({"Sforce-Limit-Info": "api-usage=4143/15000"}, None),
    "nothing": ({"Content-Type": "application/json"}, None),
    "nonsense": ({"RateLimit": "soon", "X-RateLimit-Remaining": "some", "X-RateLimit-Reset": "later"}, None),
    "a lonely separator": ({"RateLimit": ";", "RateLimit-Policy": ",;"}, None),
    "the closest of two families": (
        {"X-RateLimit-Remaining": "90", "X-RateLimit-Reset": "1", "RateLimit": '"m";r=3;t=9'},
        LimitState(3, 9.0),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_headers(name: str) -> None:
    headers, state = GOLDEN[name]
    assert limits_of(httpx.Headers(headers), now=NOW) == state


def test_a_moment_counts_by_the_servers_clock() -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 3600 + 5:.0f}"}
    assert limits_of(httpx.Headers(headers | {"Date": "Thu, 27 Mar 2025 13:00:00 GMT"}), now=NOW) == LimitState(0, 5.0)


@pytest.mark.parametrize(("limit", "window", "rate"), [(100, 10.0, 10.0), (100, None, None), (0, 10.0, None)])
def test_a_rate_needs_a_window(limit: int, window: float | None, rate: float | None) -> None:
    assert LimitState(1, 1.0, limit, window).rate == rate


NAMES = ["RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-RateLimit-Limit", "Date"]
PIECES = ['"a"', ";", ",", "=", "r", "t", "q=1", "w=0", "-7", "99999999999999999999", "limit=", "remaining=3", '"', " "]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(PIECES), max_size=8).map("".join)))
def test_no_header_breaks_anything(headers: dict[str, str]) -> None:
    state = limits_of(httpx.Headers(headers), now=NOW)
    assert state is None or state.remaining is None or state.remaining >= 0
    assert state is None or state.reset is None or state.reset >= 0
