"""Partitioned syncs in Dagster: runs of one key and of many, schedules, backfills, failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from scene import QUIET, Scene
from sqlalchemy import update

from dagster_retl import Project, Service, build_definitions
from dagster_retl.model.dagster_names import job_name
from dagster_retl.model.runs import Run, RunOptions
from dagster_retl.orchestration.launch import launch
from dagster_retl.orchestration.partitions import RANGE_END, RANGE_START
from dagster_retl.store.schema import runs as runs_table

KEY = dg.AssetKey(["retl", "people"])
TENANTS: Mapping[str, Any] = {
    "source_query": "SELECT id, name FROM people WHERE id % 3 = :partition::INT",
    "partitions": ["0", "1", "2"],
}
DAYS: Mapping[str, Any] = {
    "source_query": "SELECT id, name FROM people WHERE changed >= :partition_start AND changed < :partition_end",
    "partitions": {"type": "daily", "start": "2026-01-01"},
}


def execute(
    project: Project, instance: dg.DagsterInstance, *, partition: str | None = None, tags: Mapping[str, str] = {}
) -> dg.ExecuteInProcessResult:
    job = build_definitions(project, retry_policy=dg.RetryPolicy(max_retries=0)).resolve_job_def(
        job_name(project.syncs[0])
    )
    return job.execute_in_process(
        instance=instance, asset_selection=[KEY], partition_key=partition, tags=dict(tags),
        run_config={"loggers": QUIET}, raise_on_error=False,
    )  # fmt: skip


def span(first: str, last: str) -> Mapping[str, str]:
    return {RANGE_START: first, RANGE_END: last}


def runs(project: Project) -> list[Run]:
    with Service(project) as service:
        return service.runs("people")


def written(result: dg.ExecuteInProcessResult) -> dict[str | None, Any]:
    return {
        event.partition: event.materialization.metadata["retl/rows_written"].value
        for event in result.get_asset_materialization_events()
    }


def test_a_run_is_of_one_partition(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(scene.sync(**TENANTS))
    result = execute(project, instance, partition="1")
    assert result.success
    assert written(result) == {"1": 3}
    assert instance.get_materialized_partitions(KEY) == {"1"}
    [run] = runs(project)
    assert (run.partition, run.dagster_run_id) == ("1", result.run_id)
    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {"row_balance": True, "failure_rate": True}


def test_a_range_is_run_one_after_the_other_in_one_run(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(scene.sync(**TENANTS))
    result = execute(project, instance, tags=span("0", "2"))
    assert result.success
    assert written(result) == {"0": 4, "1": 3, "2": 3}
    assert sorted(run.partition or "" for run in runs(project)) == ["0", "1", "2"]
    assert {run.dagster_run_id for run in runs(project)} == {result.run_id}
    balance = next(each for each in result.get_asset_check_evaluations() if each.check_name == "row_balance")
    assert balance.metadata["rows_read"].value == 10


def test_what_was_done_before_one_fails_is_materialized(scene: Scene, instance: dg.DagsterInstance) -> None:
    query = "SELECT id, name FROM people WHERE id % 3 = if(:partition = '1', error('broken'), :partition::INT)"
    result = execute(scene.project(scene.sync(**{**TENANTS, "source_query": query})), instance, tags=span("0", "2"))
    assert not result.success
    assert written(result) == {"0": 4}
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "SOURCE_QUERY" in str(failure.step_failure_data.user_failure_data)
    observed = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    assert [each.partition for each in observed] == ["1"]
    assert len(scene.service.records["people"]) == 4


def test_without_a_partition_it_says_so(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(scene.project(scene.sync(**TENANTS)), instance)
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    said = failure.step_failure_data.user_failure_data
    assert said is not None
    assert "nothing says which one" in str(said.description)


def test_checks_alone_need_no_partition(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(scene.sync(**TENANTS))
    execute(project, instance, partition="1")
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(KEY))
    definitions = dg.Definitions.merge(build_definitions(project), dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("checks").execute_in_process(instance=instance, run_config={"loggers": QUIET})
    assert [each.passed for each in result.get_asset_check_evaluations()] == [True, True]


def test_syncs_that_are_parted_differently_share_no_job(scene: Scene) -> None:
    days = {**DAYS, "source_query": DAYS["source_query"]}
    project = scene.project(
        scene.sync(), scene.sync(name="a", **TENANTS), scene.sync(name="b", **days), scene.sync(name="c", **days)
    )
    definitions = build_definitions(project)
    names = {job_name(sync) for sync in project.syncs}
    assert len(names) == 3
    found = {name: set(definitions.resolve_job_def(name).asset_layer.executable_asset_keys) for name in names}
    assert sorted(len(keys) for keys in found.values()) == [1, 1, 2]


def tick(project: Project, at: datetime) -> list[dg.RunRequest]:
    definitions = build_definitions(project)
    [schedule] = definitions.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, repository_def=definitions.get_repository_def()
        )
        return list(schedule.evaluate_tick(context).run_requests or [])


def test_a_tick_asks_for_the_last_window(scene: Scene) -> None:
    project = scene.project(scene.sync(**DAYS, schedule="5 0 * * *"))
    [request] = tick(project, datetime(2026, 3, 2, 0, 5, tzinfo=UTC))
    assert request.partition_key == "2026-03-01"
    assert request.asset_selection == [KEY]
    assert tick(project, datetime(2026, 1, 1, 0, 5, tzinfo=UTC)) == []


@pytest.mark.parametrize(("backfill", "count"), [("single_run", 1), ("run_per_partition", 3)])
def test_a_tick_asks_for_all_fixed_keys(scene: Scene, instance: dg.DagsterInstance, backfill: str, count: int) -> None:
    parted = {**TENANTS, "partitions": {"type": "static", "keys": ["0", "1", "2"], "backfill": backfill}}
    project = scene.project(scene.sync(**parted, schedule="5 0 * * *"))
    requests = tick(project, datetime(2026, 3, 2, 0, 5, tzinfo=UTC))
    assert len(requests) == count
    for request in requests:
        assert execute(project, instance, partition=request.partition_key, tags=request.tags).success
    assert instance.get_materialized_partitions(KEY) == {"0", "1", "2"}
    assert len(scene.service.records["people"]) == 10


def test_windows_are_read_by_their_edges(scene: Scene, instance: dg.DagsterInstance) -> None:
    scene.sql("ALTER TABLE people ADD COLUMN changed TIMESTAMP")
    scene.sql("UPDATE people SET changed = TIMESTAMP '2026-01-01 00:00:00' + to_hours(id * 6)")
    project = scene.project(scene.sync(**DAYS))
    assert written(execute(project, instance, tags=span("2026-01-01", "2026-01-02"))) == {
        "2026-01-01": 4,
        "2026-01-02": 4,
    }


def test_a_run_from_the_command_line(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    project = scene.project(scene.sync(**TENANTS))
    with Service(project) as service:
        chosen = RunOptions(partition=service.partition("people", "2"))
    run = launch(project, "people", chosen)
    assert (run.status.value, run.partition, run.counters.written) == ("succeeded", "2", 3)


def test_replays_that_wait_are_launched_for_their_partitions(scene: Scene, instance: dg.DagsterInstance) -> None:
    scene.service.rules = replace(scene.service.rules, refuse=lambda record: "bad" if record["name"] == "bad" else None)
    scene.sql("UPDATE people SET name = 'bad' WHERE id < 2")
    project = scene.project(scene.sync(**TENANTS))
    execute(project, instance, tags=span("0", "2"))
    scene.sql("UPDATE people SET name = 'good' WHERE id < 2")
    with Service(project) as service:
        letters = [letter.id for letter in service.dead_letters("people")]
        assert len(letters) == 2
        replays = service.queue_replays(letters, actor="me")
        assert sorted(replay.run.partition or "" for replay in replays) == ["0", "1"]
        assert all(replay.mine for replay in replays)
        assert service.queue_replays(letters, actor="me") == [replace(each, mine=False) for each in replays]
        with service.store.begin() as conn:
            conn.execute(update(runs_table).values(created_at="2026-01-01T00:00:00.000000Z"))
    definitions = build_definitions(project)
    context = dg.build_sensor_context(instance=instance, repository_def=definitions.get_repository_def())
    sensor = next(each for each in definitions.sensors or [] if each.name == "retl_replays")
    result = sensor.evaluate_tick(context)
    requests = sorted(result.run_requests or [], key=lambda request: request.partition_key or "")
    assert [request.partition_key for request in requests] == ["0", "1"]
    assert {request.job_name for request in requests} == {job_name(project.syncs[0])}
    for request in requests:
        ran = definitions.resolve_job_def(str(request.job_name)).execute_in_process(
            instance=instance, asset_selection=[KEY], partition_key=request.partition_key, tags=request.tags,
            run_config={**request.run_config, "loggers": QUIET},
        )  # fmt: skip
        assert written(ran) == {request.partition_key: 1}
    with Service(project) as service:
        assert service.dead_letters("people") == []
