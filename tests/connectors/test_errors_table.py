"""The table from code to action, and from HTTP status to code."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.connectors.statuses import code_of_status
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode

EXPECTED = {
    Action.RETRY: {"RATE_LIMIT", "DESTINATION_UNAVAILABLE", "DESTINATION_LOCKED", "TIMEOUT"},
    Action.REJECT: {
        *("DESTINATION_VALIDATION", "MISSING_REQUIRED_FIELD", "NOT_FOUND", "CONFLICT", "MAPPING_ERROR"),
        *("TYPE_COERCION", "MISSING_KEY", "DUPLICATE_SOURCE_KEY", "UNKNOWN"),
    },
    Action.SPLIT: {"BATCH_REJECTED", "PAYLOAD_TOO_LARGE"},
    Action.SUSPECT: {"UNKNOWN_OUTCOME"},
}


def test_every_code_has_one_action() -> None:
    assert set(ACTIONS) == set(ErrorCode)
    assert all(isinstance(action, Action) for action in ACTIONS.values())


@pytest.mark.parametrize("action", EXPECTED)
def test_codes_about_rows_have_the_action_of_the_table(action: Action) -> None:
    assert {code.value for code in ErrorCode if ACTIONS[code] is action} == EXPECTED[action]


def test_all_other_codes_abort() -> None:
    about_rows = set().union(*EXPECTED.values())
    assert {code.value for code in ErrorCode if ACTIONS[code] is Action.ABORT} == {*ErrorCode} - about_rows


def test_codes_are_their_own_names() -> None:
    assert all(code.name == code.value for code in ErrorCode)


@given(st.integers(300, 599))
def test_a_status_has_a_code_that_fits_its_class(status: int) -> None:
    action = ACTIONS[code_of_status(status)]
    if status < 400:
        assert action is Action.ABORT, "nobody follows a redirect"
    elif status >= 500:
        assert action is Action.RETRY, "the server failed, not the rows"
    assert action is not Action.SUSPECT


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BATCH_REJECTED"),
        (401, "AUTH"),
        (402, "QUOTA_EXHAUSTED"),
        (403, "PERMISSION"),
        (404, "NOT_FOUND"),
        (405, "CONFIGURATION"),
        (408, "TIMEOUT"),
        (409, "CONFLICT"),
        (410, "NOT_FOUND"),
        (413, "PAYLOAD_TOO_LARGE"),
        (415, "CONFIGURATION"),
        (422, "BATCH_REJECTED"),
        (423, "DESTINATION_LOCKED"),
        (429, "RATE_LIMIT"),
        (500, "DESTINATION_UNAVAILABLE"),
        (503, "DESTINATION_UNAVAILABLE"),
    ],
)
def test_known_statuses(status: int, code: str) -> None:
    assert code_of_status(status) == code


@given(st.integers(300, 599))
def test_only_server_errors_and_request_timeouts_are_ambiguous(status: int) -> None:
    connector = HttpConnector(HttpConfig(url="https://api.example/v1/{object}"))
    with pytest.raises(DestinationError) as caught:
        connector.require_success(httpx.Response(status))
    assert caught.value.ambiguous == (status >= 500 or status == 408)
