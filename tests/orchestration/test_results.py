"""What a run leaves on the asset page, and on its Dagster run."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest
from scene import Scene, execute, observation

from dagster_retl import Project, build_definitions
from dagster_retl.changes.diff import DiffRules, PlanTotals
from dagster_retl.engine.plan import Plan, PlannedRow
from dagster_retl.engine.reading import Reading
from dagster_retl.model.sync import SyncMode
from dagster_retl.orchestration.assets import asset_spec
from dagster_retl.orchestration.metadata import plan_markdown

KEY = dg.AssetKey(["retl", "people"])


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, dg.MetadataValue[object]]:
    [event] = result.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def with_failures(scene: Scene, instance: dg.DagsterInstance, project: Project) -> dict[str, dg.MetadataValue[object]]:
    refusing = replace(scene.service.rules, refuse=lambda row: "too | tall" if row["id"] < 2 else None)
    scene.service.rules = refusing
    return metadata(execute(project, instance))


def test_counts_plot(scene: Scene, instance: dg.DagsterInstance) -> None:
    found = with_failures(scene, instance, scene.project())
    numbers = {name for name, value in found.items() if isinstance(value, (dg.IntMetadataValue, dg.FloatMetadataValue))}
    assert numbers >= {
        *("retl/rows_read", "retl/rows_written", "retl/rows_unconfirmed", "retl/rows_failed", "retl/rows_unchanged"),
        *("retl/rows_skipped", "retl/rows_unknown", "retl/rows_removed", "retl/rows_deleted"),
        *("retl/rows_delete_failed", "retl/retries", "retl/requests", "retl/bytes", "retl/duration_s"),
        *("retl/dead_letters_open", "dagster/row_count"),
    }
    assert found["retl/dead_letters_open"].value == 2


def test_failures_are_a_table_and_lead_to_their_letters(
    scene: Scene, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = with_failures(scene, instance, scene.project())
    table = found["retl/failures"]
    assert isinstance(table, dg.TableMetadataValue)
    [first, _] = table.records
    assert first.data["message"] == "INVALID: too | tall"
    assert first.data["error_code"] == "DESTINATION_VALIDATION"
    assert found["retl/dead_letters"] == dg.MetadataValue.md("`retl dlq list people`")
    monkeypatch.setenv("RETL_API_URL", "http://127.0.0.1:3030/")
    again = metadata(execute(scene.project(), instance, config={"full_refresh": True}))
    link = again["retl/dead_letters"].value
    assert str(link).startswith("http://127.0.0.1:3030/api/reverse-etl/dlq?sync_id=retl_sync_")


def test_without_dead_letters_there_is_no_link(scene: Scene, instance: dg.DagsterInstance) -> None:
    found = metadata(execute(scene.project(), instance))
    assert found["retl/dead_letters_open"].value == 0
    assert not {"retl/dead_letters", "retl/failures"} & found.keys()


def test_a_plan_shows_keys_and_no_other_value(scene: Scene, instance: dg.DagsterInstance) -> None:
    scene.sql("UPDATE people SET name = NULL WHERE id = 1")
    plan = observation(execute(scene.project(), instance, config={"dry_run": True}))["retl/plan"]
    assert '| create | {"id": 0} |  | {"id": 0, "name": "***"} |' in plan
    assert '| create | {"id": 1} |  | {"id": 1, "name": null} |' in plan
    assert "name 0" not in plan


def test_with_writes_off_the_asset_says_so(scene: Scene) -> None:
    off = scene.project(writes=False)
    assert "off" in str(asset_spec(off, off.syncs[0]).metadata["retl/writes"])
    assert "Writes are off" in str(asset_spec(off, off.syncs[0]).description)
    on = scene.project()
    spec = asset_spec(on, on.syncs[0])
    assert "retl/writes" not in spec.metadata
    assert spec.metadata["dagster/uri"] == "http://crm/people"


def test_runs_are_tagged_with_the_project(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(project="revops")
    job = build_definitions(project).resolve_job_def("retl_syncs")
    result = job.execute_in_process(instance=instance, asset_selection=[KEY])
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["retl/project"] == "revops"


def test_a_plan_tells_which_fields_change_and_no_value() -> None:
    row = PlannedRow(
        "update",
        "7",
        {"id": 7},
        {"id": 7, "name": "Ada", "city": "Rome", "note": None},
        present={"name": "Ida", "city": "Rome"},
    )
    totals = PlanTotals(read=1, unchanged=0, send=1, added=0, changed=1)
    plan = Plan(totals, 1, DiffRules(SyncMode.UPSERT, 5), Reading("SELECT 1"), samples=[row])
    expected = (
        '| update | {"id": 7} | {"name": "*** (changes)", "city": "***"} | '
        '{"id": 7, "name": "*** (changes)", "city": "***", "note": null} |'
    )
    assert expected in plan_markdown(plan)
