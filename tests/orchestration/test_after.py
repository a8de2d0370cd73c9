"""`after`: syncs in one run in order, and what each hears of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError
from scene import QUIET, Scene

from dagster_retl import ReverseEtlSyncComponent, build_definitions
from dagster_retl.model.project import Project
from dagster_retl.orchestration.assets import asset_spec
from dagster_retl.orchestration.names import JOB_NAME, asset_key

ACCOUNTS, CONTACTS = dg.AssetKey(["retl", "z_accounts"]), dg.AssetKey(["retl", "a_contacts"])


def project(scene: Scene, *, accounts: Mapping[str, Any] = {}, contacts: Mapping[str, Any] = {}) -> Project:
    """Two syncs whose order in file and alphabet is not the one that they run in."""
    first = scene.sync(name="Z accounts", **accounts)
    second = scene.sync(name="a contacts", after=["Z accounts"], **contacts)
    return scene.project(second, first)


def steps(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[str]:
    return [str(event.step_key) for event in result.all_events if event.event_type is kind]


def run_all(made: Project, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    job = build_definitions(made, retry_policy=dg.RetryPolicy(max_retries=0)).resolve_job_def(JOB_NAME)
    ops = {sync.slug: {"config": config} for sync in made.syncs}
    return job.execute_in_process(instance=instance, run_config={"loggers": QUIET, "ops": ops}, raise_on_error=False)


def test_the_asset_depends_on_those_before_it(scene: Scene) -> None:
    made = project(scene)
    spec = asset_spec(made, made.syncs[0])
    assert ACCOUNTS in {dep.asset_key for dep in spec.deps}
    assert "After `Z accounts` where they are in one run." in str(spec.description)
    assert CONTACTS not in {dep.asset_key for dep in asset_spec(made, made.syncs[1]).deps}


def test_both_in_one_run_run_in_order(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = run_all(project(scene), instance)
    assert result.success
    assert steps(result, dg.DagsterEventType.STEP_SUCCESS) == ["z_accounts", "a_contacts"]


def test_alone_it_waits_for_nobody(scene: Scene, instance: dg.DagsterInstance) -> None:
    made = project(scene)
    job = build_definitions(made).resolve_job_def(JOB_NAME)
    result = job.execute_in_process(
        instance=instance, asset_selection=[asset_key(made.syncs[0])], run_config={"loggers": QUIET}
    )
    assert steps(result, dg.DagsterEventType.STEP_SUCCESS) == ["a_contacts"]


def test_after_one_that_failed_nothing_is_sent(scene: Scene, instance: dg.DagsterInstance) -> None:
    made = project(scene, accounts={"source_query": "SELECT id, name FROM nowhere"})
    result = run_all(made, instance)
    assert steps(result, dg.DagsterEventType.STEP_FAILURE) == ["z_accounts"]
    assert steps(result, dg.DagsterEventType.STEP_START) == ["z_accounts"]
    assert scene.service.records.get("people", {}) == {}


def test_a_dry_run_is_alone_in_its_run(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = run_all(project(scene), instance, dry_run=True)
    assert result.success
    assert steps(result, dg.DagsterEventType.STEP_SKIPPED) == ["a_contacts"]


def test_where_writes_are_off_all_are_planned(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = run_all(project(scene).model_copy(update={"writes": False}), instance)
    assert result.success
    assert sorted(steps(result, dg.DagsterEventType.STEP_SUCCESS)) == ["a_contacts", "z_accounts"]


def test_on_upstream_waits_for_it_as_well(scene: Scene, instance: dg.DagsterInstance) -> None:
    defs = build_definitions(project(scene, contacts={"schedule": "on_upstream"}))
    syncs = dg.AssetSelection.assets(CONTACTS)
    seen = dg.evaluate_automation_conditions(defs, instance, asset_selection=syncs)
    assert seen.get_num_requested(CONTACTS) == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(ACCOUNTS))
    seen = dg.evaluate_automation_conditions(defs, instance, asset_selection=syncs, cursor=seen.cursor)
    assert seen.get_num_requested(CONTACTS) == 1
    seen = dg.evaluate_automation_conditions(defs, instance, asset_selection=syncs, cursor=seen.cursor)
    assert seen.get_num_requested(CONTACTS) == 0


PARTS: list[Any] = [None, {"type": "daily", "start": "2025-01-01"}, ["a", "b"], ["c"]]


@pytest.mark.parametrize("accounts", PARTS)
@pytest.mark.parametrize("contacts", PARTS)
def test_however_they_are_parted_they_load(scene: Scene, accounts: Any, contacts: Any) -> None:
    made = project(scene, accounts={"partitions": accounts}, contacts={"partitions": contacts})
    dg.Definitions.validate_loadable(build_definitions(made))


@pytest.mark.parametrize("inline", [True, False])
def test_a_component_names_syncs_of_other_components(scene: Scene, inline: bool) -> None:
    data = json.loads(json.dumps(scene.data(scene.sync(name="of the file", slug="Filed"))))
    file = scene.folder / "retl.yaml"
    file.write_text(json.dumps(data))
    around = {name: each for name, each in data.items() if name != "syncs"} if inline else {"project_file": str(file)}
    attributes = {**around, **scene.sync(after=["Z accounts", "Filed"])}
    tree = dg.ComponentTree.for_test()
    model = ReverseEtlSyncComponent.get_model_cls()
    loaded = ReverseEtlSyncComponent.load(model.model_validate(attributes), tree.load_context)
    [asset] = loaded.build_defs(tree.load_context).assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    assert {ACCOUNTS, dg.AssetKey(["retl", "Filed"])} <= {dep.asset_key for spec in asset.specs for dep in spec.deps}
    with pytest.raises(ValidationError, match="after itself"):
        model.model_validate({**around, **scene.sync(after=["people"])})
