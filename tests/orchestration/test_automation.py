"""`on_upstream`: a sync is asked for when an asset that it reads was materialized, and by nothing else."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from scene import QUIET, Scene

from dagster_retl import Project, Service, build_definitions, link_upstreams
from dagster_retl.engine.phase import Phase
from dagster_retl.model.rows import Counters
from dagster_retl.orchestration.names import JOB_NAME

KEY = dg.AssetKey(["retl", "people"])
UPSTREAM = dg.AssetKey(["dbt", "people"])


@dg.asset(key=UPSTREAM, metadata={"dagster/table_name": "warehouse.main.people"})
def upstream() -> None:
    """Stands for the table."""


def project(scene: Scene, **changes: Any) -> Project:
    return scene.project(scene.sync(schedule="on_upstream"), scene.sync(name="by hand"), **changes)


def definitions(scene: Scene) -> dg.Definitions:
    return link_upstreams(dg.Definitions.merge(build_definitions(project(scene)), dg.Definitions(assets=[upstream])))


class Ticks:
    """The automation's ticks, one after the other."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._defs, self._instance = defs, instance
        self._cursor: Any = None

    def next(self) -> int:
        syncs = dg.AssetSelection.assets(KEY)
        seen = dg.evaluate_automation_conditions(self._defs, self._instance, asset_selection=syncs, cursor=self._cursor)
        self._cursor = seen.cursor
        return seen.get_num_requested(KEY)


def test_a_materialization_asks_for_the_sync_once(scene: Scene, instance: dg.DagsterInstance) -> None:
    ticks = Ticks(definitions(scene), instance)
    assert ticks.next() == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(UPSTREAM))
    assert ticks.next() == 1
    assert ticks.next() == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey("somewhere")))
    assert ticks.next() == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(UPSTREAM))
    assert ticks.next() == 1


def test_what_is_materialized_during_a_run_asks_for_another(scene: Scene, instance: dg.DagsterInstance) -> None:
    during: list[int] = []

    def look(phase: Phase, counters: Counters) -> None:
        if phase is Phase.DELIVER:
            instance.report_runless_asset_event(dg.AssetMaterialization(UPSTREAM))
            during.append(ticks.next())

    synced = build_definitions(project(scene), on_phase=look)
    defs = link_upstreams(dg.Definitions.merge(synced, dg.Definitions(assets=[upstream])))
    ticks = Ticks(defs, instance)
    assert ticks.next() == 0
    job = defs.resolve_job_def(JOB_NAME)
    assert job.execute_in_process(instance=instance, asset_selection=[KEY], run_config={"loggers": QUIET}).success
    assert during == [0]
    assert ticks.next() == 1
    assert ticks.next() == 0


def test_a_table_that_nobody_defines_can_be_reported(scene: Scene, instance: dg.DagsterInstance) -> None:
    ticks = Ticks(build_definitions(project(scene)), instance)
    assert ticks.next() == 0
    instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey("people")))
    assert ticks.next() == 1


def test_upstreams_that_nobody_reports_on_are_named(scene: Scene) -> None:
    with pytest.warns(UserWarning, match="retl/people runs `on_upstream`, but no asset here is people"):
        link_upstreams(build_definitions(project(scene)))


@pytest.mark.parametrize(("writes", "status"), [(True, "RUNNING"), (False, "STOPPED")])
def test_the_sensor_runs_unless_writes_are_off(scene: Scene, writes: bool, status: str) -> None:
    sensors = {sensor.name: sensor for sensor in build_definitions(project(scene, writes=writes)).sensors or []}
    assert sensors["retl_automation"].default_status is dg.DefaultSensorStatus[status]
    assert "retl_automation" not in {each.name for each in build_definitions(scene.project()).sensors or []}


def test_a_disabled_sync_does_not_run_by_itself(scene: Scene, instance: dg.DagsterInstance) -> None:
    chosen = project(scene)
    with Service.open(chosen) as service:
        service.set_enabled("people", False, actor="test")
    job = build_definitions(chosen).resolve_job_def(JOB_NAME)

    def run(**tags: str) -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance, asset_selection=[KEY], tags=tags, run_config={"loggers": QUIET}
        )

    skipped = run(**{"dagster/from_automation_condition": "true"})
    assert skipped.success
    assert skipped.get_asset_materialization_events() == []
    assert scene.service.requests == []
    assert len(run().get_asset_materialization_events()) == 1
