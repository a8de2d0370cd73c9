"""The page about the API says what is so: its paths exist, its bodies are JSON, its program runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_desk import BASE

import dagster_retl
from dagster_retl.api.bodies import Body, in_snake_case
from dagster_retl.api.routes.dlq import ResolveBody
from dagster_retl.api.routes.runs import RunBody
from dagster_retl.api.routes.syncs import Toggle

PAGE = (Path(dagster_retl.__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
CURL = re.compile(r"curl -s(?: -X ([A-Z]+))?.*?\"\$API([^\"]*)\"(?: -d '(.*?)')?$", re.MULTILINE | re.DOTALL)
MODELS: dict[str, type[Body]] = {"/sync/run": RunBody, "/sync/toggle": Toggle, "/dlq/resolve": ResolveBody}

REQUESTS = [(method or "GET", path, body) for method, path, body in CURL.findall(PAGE)]


@pytest.fixture(scope="module")
def paths(api: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()["paths"]
    return found


def test_the_page_has_requests() -> None:
    assert len(REQUESTS) == PAGE.count("curl -s") > 10


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_requests_of_the_page_can_be_made(paths: dict[str, Any], method: str, path: str, body: str) -> None:
    pattern = re.sub(r"/(syncs|runs)/\$(SYNC|RUN)", lambda match: f"/{match[1]}/{{{match[2].lower()}_id}}", path)
    route, _, query = pattern.partition("?")
    operation = paths[BASE + route][method.lower()]
    known = {parameter["name"] for parameter in operation["parameters"]}
    assert {pair.partition("=")[0] for pair in query.split("&") if pair} <= known
    if route in MODELS:
        MODELS[route].model_validate(in_snake_case(json.loads(body), MODELS[route].model_fields))
    elif body:
        json.loads(body)


def test_the_table_of_endpoints_is_whole(paths: dict[str, Any]) -> None:
    table = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (\w+) \|", PAGE, re.MULTILINE))
    there = {f"{method.upper()} {path.removeprefix(BASE)}" for path, item in paths.items() for method in item}
    assert {request for request, _ in table} == {re.sub(r"\{.*?\}", "{id}", request) for request in there}
