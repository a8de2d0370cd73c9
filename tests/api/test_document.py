"""The API against its own OpenAPI document: schemathesis asks, and looks at each answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from api_desk import BASE, Desk
from hypothesis import HealthCheck, settings

schema = schemathesis.pytest.from_fixture("document")

_HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
BRIEF = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=_HEALTH)
THOROUGH = settings(max_examples=200, deadline=None, suppress_health_check=_HEALTH)


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}{BASE}/openapi.json")


@pytest.fixture(scope="module")
def headers(api: httpx.Client, desk: Desk) -> dict[str, str]:
    return {"Authorization": api.headers["Authorization"]}


@schema.parametrize()
@BRIEF
def test_the_api_answers_as_its_document_says(case: Any, headers: dict[str, str]) -> None:
    case.call_and_validate(headers=headers)


@pytest.mark.long
@schema.parametrize()
@THOROUGH
def test_the_api_answers_as_its_document_says_at_length(case: Any, headers: dict[str, str]) -> None:
    case.call_and_validate(headers=headers)
