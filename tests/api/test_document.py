"""The API against its own OpenAPI document: schemathesis asks, and looks at each answer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode

from dagster_retl.api.app import create_app
from dagster_retl.api.openapi import openapi_of
from dagster_retl.model.project import Project

_NOTHING = Project(base=Path(tempfile.gettempdir()), warehouses={}, destinations={}, syncs=[])
schema = schemathesis.openapi.from_dict(openapi_of(create_app(_NOTHING)))
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])

# What the document cannot say is refused as well: a text that is no cursor, no time, no query; a field twice.
UNSAYABLE = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]

_HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
BRIEF = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=_HEALTH)
THOROUGH = settings(max_examples=200, deadline=None, suppress_health_check=_HEALTH)


@pytest.fixture(scope="module")
def headers(api: httpx.Client) -> dict[str, str]:
    return {"Authorization": api.headers["Authorization"]}


@schema.parametrize()
@BRIEF
def test_the_api_answers_as_its_document_says(case: Any, url: str, headers: dict[str, str]) -> None:
    case.call_and_validate(base_url=url, headers=headers, excluded_checks=UNSAYABLE)


@pytest.mark.long
@schema.parametrize()
@THOROUGH
def test_the_api_answers_as_its_document_says_at_length(case: Any, url: str, headers: dict[str, str]) -> None:
    case.call_and_validate(base_url=url, headers=headers, excluded_checks=UNSAYABLE)
