"""The parts of the API that need no server."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.api.app import create_app
from dagster_retl.api.bodies import in_snake_case, snake, tidy_query
from dagster_retl.api.discovery import DiscoveryCache
from dagster_retl.api.limits import RateLimiter
from dagster_retl.api.openapi import openapi_of
from dagster_retl.api.problems import ApiError
from dagster_retl.api.reloading import Reloader
from dagster_retl.errors import DestinationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import FieldMapping, Sync
from dagster_retl.service import Service
from dagster_retl.testing import LoopbackServer
from dagster_retl.testing.server import Received, Reply
from dagster_retl.webserver import Holder, Webserver
from dagster_retl.webserver.holder import best_job, find_holder


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 30)), max_size=20),
)
def test_no_more_come_in_than_rate_and_burst_allow(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock)
    admitted = 0
    for pause, asked in steps:
        clock.now += pause
        admitted += sum(limiter.take("key") == 0 for _ in range(asked))
        assert admitted <= burst + clock.now * rate + 1e-6


@given(rate=st.floats(0.5, 50), burst=st.integers(1, 20))
def test_who_waits_as_told_comes_in(rate: float, burst: int) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock)
    while (waits := limiter.take("key")) == 0:
        pass
    assert limiter.take("other") == 0
    clock.now += waits + 1e-6
    assert limiter.take("key") == 0


def test_idle_keys_are_forgotten() -> None:
    clock = Clock()
    limiter = RateLimiter(1, 2, clock)
    for number in range(1_001):
        limiter.take(f"key {number}")
    clock.now += 10
    limiter.take("last")
    assert len(limiter._buckets) == 1


def test_camel_case_is_snake_case() -> None:
    names = {
        "fieldMappings": "field_mappings",
        "syncId": "sync_id",
        "name": "name",
        "sync_id": "sync_id",
        "Name": "Name",
    }
    assert {name: snake(name) for name in names} == names
    assert in_snake_case({"aB": 1, "cD": 2}, {"a_b"}) == {"a_b": 1, "cD": 2}
    assert in_snake_case({"aB": 1, "a_b": 1}, {"a_b"}) == {"a_b": 1}
    for disagreeing in ({"aB": 1, "a_b": 2}, {"aB": 1, "a_b": True}, {"aB": 1, "a_b": 1.0}):
        with pytest.raises(ApiError):
            in_snake_case(disagreeing, {"a_b"})


@given(
    st.dictionaries(st.from_regex(r"\A[a-z_]{1,8}\Z"), st.text(st.characters(codec="utf-8", exclude_characters="\0")))
)
def test_a_query_that_is_tidy_stays_as_it_is(values: dict[str, str]) -> None:
    tidy = tidy_query(urlencode(values).encode(), values)
    assert dict(parse_qsl(tidy.decode(), keep_blank_values=True)) == values


@given(st.binary(max_size=60))
def test_any_query_string_is_read_or_refused(query: bytes) -> None:
    with contextlib.suppress(ApiError):
        tidy_query(query, {"a"})


def graphql(answers: dict[str, Any], calls: list[str]) -> LoopbackServer:
    """A server that answers each GraphQL query by the first of these words that is in it."""

    def app(request: Received) -> Reply:
        text = request.body.decode()
        word = next(word for word in answers if word in text)
        calls.append(word)
        if word == "reloadRepositoryLocation":
            time.sleep(0.2)
        return Reply.json({"data": answers[word]})

    return LoopbackServer(app)


LOADED = {"__typename": "WorkspaceLocationEntry", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
OURS = {"location": {"name": "ours"}, "jobs": [{"name": "retl_syncs", "tags": [{"key": "retl/project", "value": "p"}]}]}
FOREIGN = {"location": {"name": "foreign"}, "jobs": [{"name": "retl_syncs", "tags": []}]}
FAILED = {"name": "failed", "locationOrLoadError": {"__typename": "PythonError"}}


def locations(*nodes: Any, failed: bool = False) -> dict[str, Any]:
    entries = [FAILED] if failed else []
    return {"repositoriesOrError": {"nodes": list(nodes)}, "workspaceOrError": {"locationEntries": entries}}


def test_changes_that_come_together_share_a_reload() -> None:
    calls: list[str] = []
    answers = {"reloadRepositoryLocation": {"reloadRepositoryLocation": LOADED}, "repositoriesOrError": locations(OURS)}
    with graphql(answers, calls) as server, Webserver(server.url) as webserver, ThreadPoolExecutor(8) as pool:
        reloader = Reloader(webserver, "p")
        ready = threading.Barrier(8)

        def change(_: int) -> bool:
            ready.wait()
            return reloader.reload()

        assert list(pool.map(change, range(8))) == [True] * 8
        together = calls.count("reloadRepositoryLocation")
        assert 1 <= together <= 3
        assert reloader.reload()
        assert calls.count("reloadRepositoryLocation") == together + 1


def test_only_the_projects_location_is_reloaded_or_else_those_that_failed() -> None:
    loaded = {"reloadRepositoryLocation": LOADED}
    for found, names in (
        (locations(FOREIGN, OURS, failed=True), ["ours"]),
        (locations(FOREIGN, failed=True), ["failed"]),
        (locations(FOREIGN), []),
    ):
        answers = {"reloadRepositoryLocation": loaded, "repositoriesOrError": found}
        with graphql(answers, []) as server, Webserver(server.url) as webserver:
            assert Reloader(webserver, "p").reload() is bool(names)
            asked = [request.body.decode() for request in server.requests]
            assert [
                name for name in ("ours", "foreign", "failed") if any(f'"{name}"' in each for each in asked)
            ] == names


def test_jobs_of_one_sync_say_whose_location_it_is_where_nothing_reads_the_list() -> None:
    single = {"location": {"name": "single"}, "jobs": [{"name": "retl_a", "tags": OURS["jobs"][0]["tags"]}]}
    for found, name in ((locations(single, OURS), "ours"), (locations(FOREIGN, single), "single")):
        answers = {"reloadRepositoryLocation": {"reloadRepositoryLocation": LOADED}, "repositoriesOrError": found}
        calls: list[str] = []
        with graphql(answers, calls) as server, Webserver(server.url) as webserver:
            assert Reloader(webserver, "p").reload()
            assert calls == ["repositoriesOrError", "reloadRepositoryLocation"]
            assert f'"{name}"' in server.requests[-1].body.decode()


SYNC = Sync(
    project="p",
    name="a",
    source_query="SELECT 1 AS id",
    destination_id="d",
    object_name="o",
    field_mappings=(FieldMapping(source="id", destination="id", key=True),),
)


@pytest.mark.parametrize(
    ("names", "job"),
    [
        (["__ASSET_JOB", "nightly", "retl_syncs"], "retl_syncs"),
        (["__ASSET_JOB", "retl_a", "a_first"], "retl_a"),
        (["nightly", "retl_syncs_daily", "__ASSET_JOB"], "retl_syncs_daily"),
        (["nightly", "__ASSET_JOB"], "__ASSET_JOB"),
        (["nightly"], "nightly"),
    ],
)
def test_of_the_jobs_of_an_asset_ours_is_launched(names: list[str], job: str) -> None:
    assert best_job(names, SYNC) == best_job(names[::-1], SYNC) == job


def test_an_asset_says_which_sync_it_is_of() -> None:
    def asset(sync_id: str | None) -> dict[str, Any]:
        entries = [{"label": "dagster/uri", "text": "x"}, {"label": "retl/sync_id", "text": sync_id}]
        where = {"name": "r", "location": {"name": "first"}}
        said = entries if sync_id else entries[:1]
        return {"assetNodeOrError": {"jobNames": ["retl_a"], "repository": where, "metadataEntries": said}}

    mine = {"name": "r", **OURS, "jobs": [*OURS["jobs"], {"name": "other", "tags": []}]}
    repositories = {"repositoriesOrError": {"nodes": [{"name": "r", **FOREIGN}, mine]}}

    def holder(node: Any, in_job: Any) -> Holder | None:
        answers = {"assetNodeOrError": node, "repositoriesOrError": repositories, "assetNodes(": {"assetNodes": in_job}}

        def ask(query: str, **variables: Any) -> dict[str, Any]:
            asked.append(variables)
            return next(answer for word, answer in answers.items() if word in query)

        return find_holder(ask, SYNC)

    asked: list[dict[str, Any]] = []
    held = [{"jobNames": ["__ASSET_JOB", "retl_syncs"]}]
    assert holder(asset(SYNC.id), []) == holder(asset(None), []) == Holder("first", "r", "retl_a")
    assert holder(asset("retl_sync_x"), held) == Holder("ours", "r", "retl_syncs")
    assert asked[-1]["job"] == {"repositoryName": "r", "repositoryLocationName": "ours", "pipelineName": "retl_syncs"}
    assert holder(asset("retl_sync_x"), []) is None
    assert holder({"assetNodeOrError": {}}, held) is None


def test_a_location_that_does_not_load_leaves_definitions_stale() -> None:
    broken = {"locationOrLoadError": {"__typename": "PythonError", "message": "boom\nat line 1"}}
    answers = {
        "reloadRepositoryLocation": {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry", **broken}},
        "repositoriesOrError": locations(OURS),
    }
    with graphql(answers, []) as server, Webserver(server.url) as webserver:
        assert not Reloader(webserver, "p").reload()


def test_what_a_destination_said_is_good_until_it_answers_again(tmp_path: Path) -> None:
    database = tmp_path / "ops.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    destination = {"connector": "sql", "config": {"url": f"sqlite:///{database}"}}
    project = Project(base=tmp_path, warehouses={}, destinations={"ops": destination}, syncs=[])
    with Service(project) as service:
        forgetful, remembering = DiscoveryCache(service, kept=0), DiscoveryCache(service)
        caches = (forgetful, remembering)
        for cache in caches:
            known = cache.objects("ops")
            assert ([info.api_name for info in known.value], known.stale) == (["accounts"], False)
            assert [info.name for info in cache.fields("ops", "accounts").value] == ["id", "name"]
        database.write_bytes(b"no database, but long enough to be taken for one " * 100)
        known = forgetful.objects("ops")
        assert ([info.api_name for info in known.value], known.stale) == (["accounts"], True)
        assert not remembering.objects("ops").stale
        assert forgetful.fields("ops", "accounts").stale
        with pytest.raises(DestinationError):
            forgetful.fields("ops", "contacts")
        assert forgetful.statuses(["ops"]) == {"ops": "error"}
        for cache in caches:
            cache.close()


def test_the_document_describes_everything(tmp_path: Any) -> None:
    project = Project(base=tmp_path, warehouses={}, destinations={}, syncs=[])
    document = openapi_of(create_app(project))
    assert document["openapi"].startswith("3.")
    assert document["components"]["securitySchemes"]["key"] == {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `retl keys create`. Scopes: read, write, run.",
    }
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["security"] == [{"key": []}], where
            good = [status for status in operation["responses"] if status.startswith("2")]
            assert len(good) == 1, where
            assert operation["responses"][good[0]]["content"]["application/json"]["example"], where
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    assert response["content"]["application/json"]["schema"]["$ref"].endswith("ProblemEnvelope"), where
            assert {"401", "403", "404", "422", "429", "500"} <= set(operation["responses"]), where
    assert not [name for name in document["components"]["schemas"] if "Validation" in name]
