"""Checks that a sync asks for, run alone as the UI does."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from scene import QUIET, Scene, execute

from dagster_retl import Project, Service, build_definitions
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.names import JOB_NAME

KEY = dg.AssetKey(["retl", "people"])
ALL = {"dead_letters": {"open": 1, "age": "1h"}, "unique_keys": True, "destination_contract": True}


def check(project: Project, instance: dg.DagsterInstance, name: str) -> dg.AssetCheckEvaluation:
    """Run one check, and nothing else."""
    wanted = dg.AssetSelection.checks(dg.AssetCheckKey(KEY, name))
    alone = dg.Definitions(jobs=[dg.define_asset_job("alone", selection=wanted)])
    job = dg.Definitions.merge(build_definitions(project), alone).resolve_job_def("alone")
    result = job.execute_in_process(instance=instance, run_config={"loggers": QUIET})
    assert result.get_asset_materialization_events() == []
    [evaluation] = result.get_asset_check_evaluations()
    return evaluation


def fields(**types: str) -> list[dict[str, Any]]:
    return [{"name": name, "label": name, "data_type": kind} for name, kind in types.items()]


def project(scene: Scene, catalogue: list[dict[str, Any]] | None = None, **changes: Any) -> Project:
    data = scene.data(scene.sync(checks=ALL, **changes))
    data["destinations"]["crm"]["config"] |= {"fields": catalogue or []}
    return Project(base=scene.folder, **data)


def test_checks_are_there_for_who_asks(scene: Scene) -> None:
    asked = build_definitions(project(scene)).resolve_asset_graph()
    names = {key.name for key in asked.asset_check_keys}
    assert names == {"row_balance", "failure_rate", *ALL}
    assert Sync.model_validate(scene.sync()).checks.names == []
    assert list(build_definitions(scene.project()).asset_checks or []) == []


def test_a_run_evaluates_them_all(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(project(scene), instance)
    assert {each.check_name: each.passed for each in result.get_asset_check_evaluations()} == dict.fromkeys(
        ("row_balance", "failure_rate", *ALL), True
    )


def test_dead_letters_are_counted_and_grow_old(scene: Scene, instance: dg.DagsterInstance) -> None:
    chosen = project(scene)
    assert check(chosen, instance, "dead_letters").description == "none is open"
    scene.service.rules = replace(scene.service.rules, refuse=lambda row: "too tall" if row["id"] == 3 else None)
    execute(chosen, instance)
    assert check(chosen, instance, "dead_letters").passed
    with sqlite3.connect(scene.folder / ".retl" / "retl.db") as store:
        store.execute("UPDATE dead_letters SET first_seen_at = '2020' || substr(first_seen_at, 5)")
    old = check(chosen, instance, "dead_letters")
    assert (old.passed, old.severity) == (False, dg.AssetCheckSeverity.WARN)
    scene.service.rules = replace(scene.service.rules, refuse=lambda row: "too tall" if row["id"] < 2 else None)
    many = project(scene, source_query="SELECT id, name FROM people WHERE id < 2")
    execute(many, instance, config={"full_refresh": True, "overrides": ["failures", "shrink"]})
    with sqlite3.connect(scene.folder / ".retl" / "retl.db") as store:
        store.execute("UPDATE dead_letters SET first_seen_at = last_seen_at")
    assert not check(many, instance, "dead_letters").passed


@pytest.mark.parametrize(
    ("query", "passed", "said"),
    [
        ("SELECT id, name FROM people", True, "of 10 rows, 0 have a key that is not theirs alone and 0 have none"),
        ("SELECT id // 2 * 2 AS id, name FROM people", False, "of 10 rows, 10 have a key that is not theirs alone"),
        ("SELECT nullif(id, 4) AS id, name FROM people", False, "and 1 have none"),
    ],
)
def test_keys_have_to_be_unique(
    scene: Scene, instance: dg.DagsterInstance, query: str, passed: bool, said: str
) -> None:
    found = check(project(scene, source_query=query), instance, "unique_keys")
    assert found.passed is passed
    assert said in str(found.description)
    assert passed or found.severity is dg.AssetCheckSeverity.ERROR
    assert scene.service.applied == []


@pytest.mark.parametrize(
    ("catalogue", "said"),
    [
        (fields(id="number"), "there is no field 'name'"),
        ([*fields(id="number", name="text"), fields(age="number")[0] | {"required": True}], "age"),
    ],
)
def test_a_contract_that_the_mapping_does_not_meet_is_an_error(
    scene: Scene, instance: dg.DagsterInstance, catalogue: list[dict[str, Any]], said: str
) -> None:
    assert check(project(scene, fields(id="number", name="text")), instance, "destination_contract").passed
    found = check(project(scene, catalogue), instance, "destination_contract")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert said in str(found.description)


def test_a_changed_type_is_told_until_rows_were_delivered_to_it(scene: Scene, instance: dg.DagsterInstance) -> None:
    before, after = fields(id="number", name="text"), fields(id="number", name="picklist", other="date")
    execute(project(scene, before), instance)
    for _ in range(2):
        changed = check(project(scene, after), instance, "destination_contract")
        assert (changed.passed, changed.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert changed.description == "name was text and is picklist"
    execute(project(scene, after), instance, config={"full_refresh": True})
    assert check(project(scene, after), instance, "destination_contract").passed
    assert not check(project(scene, before), instance, "destination_contract").passed


def test_who_does_not_answer_is_named(scene: Scene, instance: dg.DagsterInstance) -> None:
    (scene.folder / "warehouse.duckdb").rename(scene.folder / "elsewhere.duckdb")
    found = check(project(scene), instance, "unique_keys")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(found.description).startswith("SOURCE_UNAVAILABLE: ")


def test_checks_in_a_file_may_come_from_the_environment(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data(scene.sync(checks={"unique_keys": "${UNIQUE}"}))))
    assert Project.load(path, environ={"UNIQUE": "on"}).syncs[0].checks.names == ["unique_keys"]
    with Service.open(Project.load(path, environ={"UNIQUE": "off"})) as service:
        assert service.project.syncs[0].checks.names == []


def test_the_job_runs_them_too(scene: Scene) -> None:
    job = build_definitions(project(scene)).resolve_job_def(JOB_NAME)
    assert {node.name for node in job.nodes} == {"people", "people_checks"}


def test_a_sync_cannot_be_called_as_the_checks_of_another(scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="slug 'people_checks'"):
        build_definitions(scene.project(scene.sync(checks=ALL), scene.sync(name="people checks")))
