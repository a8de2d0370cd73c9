"""Syncs as assets: what they look like, and what a run of one leaves behind."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest
from pydantic import ValidationError
from scene import QUIET, Scene, execute, observation

from dagster_retl import Service, build_definitions
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.runs import RunOptions, RunStatus
from dagster_retl.orchestration.names import JOB_NAME, asset_key

KEY = dg.AssetKey(["retl", "people"])


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    [event] = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def failures(result: dg.ExecuteInProcessResult) -> list[dg.TableRecord]:
    [event] = result.get_asset_materialization_events()
    table = event.materialization.metadata["retl/failures"]
    assert isinstance(table, dg.TableMetadataValue)
    return list(table.records)


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_assets_describe_their_syncs(scene: Scene) -> None:
    sync = scene.sync(owners=["team:revops"], group="sales", tags={"tier": "gold"}, description="All the people.")
    spec = build_definitions(scene.project(sync)).get_assets_def(KEY).get_asset_spec(KEY)
    assert (spec.group_name, list(spec.owners), spec.kinds) == ("sales", ["team:revops"], {"http", "duckdb"})
    assert spec.tags["tier"] == "gold"
    assert spec.description is not None
    for part in ("All the people.", "Team CRM", "`crm`", "SELECT id, name FROM people", "| name | name |", "upsert"):
        assert part in spec.description


def test_loading_touches_nothing(scene: Scene) -> None:
    before = sorted(scene.folder.rglob("*"))
    project = scene.project(scene.sync(schedule="0 * * * *"))
    dg.Definitions.validate_loadable(build_definitions(project))
    assert sorted(scene.folder.rglob("*")) == before
    assert scene.service.requests == []


def test_loads_without_any_sync(scene: Scene) -> None:
    dg.Definitions.validate_loadable(build_definitions(scene.project(syncs=[])))


def test_a_run_materializes_with_its_counts(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project()
    result = execute(project, instance, tags={"retl/trigger": "cli"})
    assert result.success
    metadata = materialized(result)
    assert metadata["dagster/row_count"] == 10
    assert (metadata["retl/rows_read"], metadata["retl/rows_written"], metadata["retl/rows_failed"]) == (10, 10, 0)
    assert metadata["retl/requests"] == 1
    schema = metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert [(column.name, column.constraints.nullable) for column in schema.columns] == [("id", False), ("name", True)]
    assert all(evaluation.passed for evaluation in evaluations(result).values())
    assert len(scene.service.records["people"]) == 10
    with Service.open(project) as service:
        run = service.store.runs.find(result.run_id, "people")
    assert run is not None
    assert (run.id, run.trigger, run.status) == (metadata["retl/run_id"], "cli", RunStatus.SUCCEEDED)


def test_the_log_says_what_the_run_is_doing(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(scene.project(), instance)
    said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    words = [words for words in said if words in ("reading the query", "sending 10 rows", "closing the run")]
    assert words == ["reading the query", "sending 10 rows", "closing the run"]


def test_a_second_run_has_nothing_to_write(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project()
    execute(project, instance)
    metadata = materialized(execute(project, instance))
    assert (metadata["dagster/row_count"], metadata["retl/rows_unchanged"]) == (0, 10)
    assert materialized(execute(project, instance, config={"full_refresh": True}))["dagster/row_count"] == 10


@pytest.mark.parametrize(("threshold", "severity"), [("20%", "WARN"), ("5%", "ERROR")])
def test_failed_rows_are_shown_and_judged(
    scene: Scene, instance: dg.DagsterInstance, threshold: str, severity: str
) -> None:
    scene.service.rules = replace(scene.service.rules, refuse=lambda row: "too tall" if row["id"] == 3 else None)
    result = execute(scene.project(scene.sync(guards={"failures": threshold})), instance)
    assert result.success
    metadata = materialized(result)
    assert (metadata["retl/rows_written"], metadata["retl/rows_failed"]) == (9, 1)
    [record] = failures(result)
    assert record.data["message"] == "INVALID: too tall"
    assert record.data["keys"] == '{"id": 3}'
    checks = evaluations(result)
    assert checks["row_balance"].passed
    assert not checks["failure_rate"].passed
    assert checks["failure_rate"].severity is dg.AssetCheckSeverity[severity]
    assert checks["failure_rate"].metadata["rows_failed"].value == 1


def test_an_error_nobody_can_wait_out_is_not_retried(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(scene.project(scene.sync(source_query="SELECT id, name FROM nowhere")), instance)
    assert not result.success
    assert "STEP_UP_FOR_RETRY" not in [event.event_type_value for event in result.all_events]
    failure = result.failure_data_for_node("people")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description is not None
    assert failure.user_failure_data.description.startswith("SOURCE_QUERY: ")
    assert observation(result)["retl/error_code"] == "SOURCE_QUERY"
    assert observation(result)["retl/status"] == "failed"
    assert result.get_asset_materialization_events() == []


@pytest.mark.parametrize(("config", "attempts"), [({}, 2), ({"retry_outages": False}, 1)])
def test_an_outage_is_retried_and_stays_one_run(
    scene: Scene, instance: dg.DagsterInstance, config: dict[str, bool], attempts: int
) -> None:
    project = scene.project()
    scene.folder.joinpath("warehouse.duckdb").rename(scene.folder / "elsewhere.duckdb")
    result = execute(project, instance, config=config, retry_policy=dg.RetryPolicy(max_retries=1))
    assert not result.success
    kinds = [event.event_type_value for event in result.all_events]
    assert kinds.count("ASSET_OBSERVATION") == attempts
    assert kinds.count("STEP_UP_FOR_RETRY") == attempts - 1
    with Service.open(project) as service:
        [run] = service.runs("people")
    assert (run.status, run.error_code) == (RunStatus.FAILED, "SOURCE_UNAVAILABLE")


def test_a_dry_run_observes_and_writes_nothing(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(scene.project(), instance, config={"dry_run": True})
    assert result.success
    assert result.get_asset_materialization_events() == []
    assert result.get_asset_check_evaluations() == []
    assert "**10** of 10 rows would be sent" in observation(result)["retl/plan"]
    assert scene.service.applied == []


def test_with_writes_off_every_run_is_dry(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(scene.project(writes=False), instance)
    assert result.success
    assert "retl/plan" in observation(result)
    assert scene.service.applied == []


def test_options_reach_the_run(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project()
    assert materialized(execute(project, instance, config={"limit": 3}))["dagster/row_count"] == 3
    keyed = materialized(execute(project, instance, config={"keys": [{"id": 7}]}))
    assert keyed["dagster/row_count"] == 1
    assert set(scene.service.records["people"]) == {"0", "1", "2", "7"}


def test_an_unknown_guard_is_named(scene: Scene, instance: dg.DagsterInstance) -> None:
    result = execute(scene.project(), instance, config={"overrides": ["everything"]})
    failure = result.failure_data_for_node("people")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "there is no guard 'everything'" in str(failure.user_failure_data.description)


def test_a_queued_run_is_executed_with_its_own_options(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project()
    with Service.open(project) as service:
        queued = service.queue("people", RunOptions(limit=2), trigger="api")
        first = execute(project, instance, config={"run_id": queued.id})
        assert materialized(first)["retl/run_id"] == queued.id
        assert materialized(first)["dagster/row_count"] == 2
        again = execute(project, instance, config={"run_id": queued.id})
        assert materialized(again)["retl/run_id"] != queued.id
        assert materialized(again)["dagster/row_count"] == 2
        assert service.run_of(queued.id).dagster_run_id == first.run_id


def test_replayed_dead_letters(scene: Scene, instance: dg.DagsterInstance) -> None:
    project, rules = scene.project(), scene.service.rules
    scene.service.rules = replace(rules, refuse=lambda row: "too tall" if row["id"] == 3 else None)
    execute(project, instance)
    scene.service.rules = rules
    with Service.open(project) as service:
        [letter] = service.dead_letters("people")
        result = execute(project, instance, config={"replay": [letter.id]})
        assert materialized(result)["dagster/row_count"] == 1
        assert service.dead_letter(letter.id).resolved


def test_checks_alone_contact_nobody(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project()
    checks = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(KEY))
    definitions = dg.Definitions.merge(build_definitions(project), dg.Definitions(jobs=[checks]))

    def judge() -> dict[str, dg.AssetCheckEvaluation]:
        result = definitions.resolve_job_def("checks").execute_in_process(instance=instance)
        assert result.get_asset_materialization_events() == []
        return evaluations(result)

    assert judge()["failure_rate"].description == "The sync has not run yet."
    scene.service.rules = replace(scene.service.rules, refuse=lambda row: "too tall" if row["id"] < 2 else None)
    execute(project, instance)
    requests = len(scene.service.requests)
    judged = judge()
    assert judged["row_balance"].passed
    assert not judged["failure_rate"].passed
    assert judged["failure_rate"].metadata["rows_failed"].value == 2
    assert len(scene.service.requests) == requests


def test_two_syncs_with_one_slug_are_refused(scene: Scene) -> None:
    with pytest.raises(ValidationError, match="has the same slug"):
        scene.project(scene.sync(name="crm people"), scene.sync(name="CRM People"))


def test_a_slug_that_dagster_keeps_for_itself_is_refused(scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="sync 'input' cannot be a Dagster asset"):
        build_definitions(scene.project(scene.sync(name="input")))
    with pytest.raises(ConfigurationError, match="slug 'retl_syncs'"):
        build_definitions(scene.project(scene.sync(name=JOB_NAME)))


def test_an_owner_that_dagster_refuses_is_named(scene: Scene) -> None:
    with pytest.raises(ConfigurationError, match="sync 'people' cannot be a Dagster asset"):
        build_definitions(scene.project(scene.sync(owners=["somebody"])))


def test_a_sync_that_was_deleted_meanwhile_is_told_by_name(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project()
    with Service.open(project) as service:
        made = service.editor.create(scene.sync(name="short lived"), actor="ann").entry.sync
        job = build_definitions(project).resolve_job_def(JOB_NAME)
        service.editor.delete(made.id, actor="ann")
    asked = len(scene.service.requests)
    result = job.execute_in_process(
        instance=instance, asset_selection=[asset_key(made)], run_config={"loggers": QUIET}, raise_on_error=False
    )
    [failure] = result.get_step_failure_events()
    told = str(failure.step_failure_data.user_failure_data)
    assert f"there is no sync '{made.id}' any more: 'short lived' was deleted" in told
    assert len(scene.service.requests) == asked
