"""Schedules of syncs: declared running, and asking the store at each tick."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
from scene import Scene, execute, observation

from dagster_retl import Project, Service, build_definitions
from dagster_retl.orchestration.assets import asset_spec
from dagster_retl.orchestration.circuit import open_circuit

RUNNING, STOPPED = dg.DefaultScheduleStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED


def schedule(project: Project) -> dg.ScheduleDefinition:
    [found] = build_definitions(project).schedules or []
    assert isinstance(found, dg.ScheduleDefinition)
    return found


def tick(project: Project, instance: dg.DagsterInstance) -> object:
    return schedule(project)(dg.build_schedule_context(instance=instance))


def test_cron_and_zone_are_the_syncs(scene: Scene) -> None:
    cron = {"type": "cron", "expression": "15 */4 * * *", "timezone": "Europe/Madrid"}
    found = schedule(scene.project(scene.sync(schedule=cron)))
    assert (found.name, found.cron_schedule, found.execution_timezone) == ("people", "15 */4 * * *", "Europe/Madrid")


def test_a_sync_without_cron_has_no_schedule(scene: Scene) -> None:
    assert list(build_definitions(scene.project()).schedules or []) == []


@pytest.mark.parametrize(
    ("writes", "enabled", "status"), [(True, True, RUNNING), (True, False, RUNNING), (False, True, STOPPED)]
)
def test_default_status(scene: Scene, writes: bool, enabled: bool, status: dg.DefaultScheduleStatus) -> None:
    project = scene.project(scene.sync(schedule="0 * * * *", enabled=enabled), writes=writes)
    assert schedule(project).default_status is status
    assert ("Writes are off" in str(schedule(project).description)) is not writes


def test_a_tick_requests_a_run_of_its_sync_only(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(scene.sync(schedule="0 * * * *"), scene.sync(name="others"))
    request = tick(project, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection == [dg.AssetKey(["retl", "people"])]
    expected = {"retl/sync": "people", "retl/destination": "crm", "retl/mode": "upsert"}
    assert expected.items() <= dict(request.tags).items()


def test_what_people_decided_counts_at_the_next_tick(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(scene.sync(schedule="0 * * * *"))
    with Service.open(project) as service:
        service.set_enabled("people", False, actor="test")
        skipped = tick(project, instance)
        assert isinstance(skipped, dg.SkipReason)
        assert "'people' is disabled" in str(skipped.skip_message)
        service.set_enabled("people", True, actor="test")
    assert isinstance(tick(project, instance), dg.RunRequest)


def test_a_tick_is_skipped_while_the_sync_is_running(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = scene.project(scene.sync(schedule="0 * * * *"))
    with Service.open(project) as service:
        lease = service.store.leases.acquire(project.syncs[0].id, "retl_run_busy")
        skipped = tick(project, instance)
        assert isinstance(skipped, dg.SkipReason)
        assert "retl_run_busy" in str(skipped.skip_message)
        service.store.leases.release(lease)
    assert isinstance(tick(project, instance), dg.RunRequest)


def down(scene: Scene) -> dict[str, object]:
    """A project whose destination nobody listens at; two syncs share it."""
    data = scene.data(scene.sync(schedule="0 * * * *"), scene.sync(name="others"))
    data["destinations"]["crm"]["config"] |= {"url": "http://127.0.0.1:9/v1/{object}"}
    return data


def test_a_tick_leaves_a_destination_alone_that_was_down_a_moment_ago(
    scene: Scene, instance: dg.DagsterInstance
) -> None:
    broken = Project(base=scene.folder, **down(scene))
    assert isinstance(tick(broken, instance), dg.RunRequest)
    result = execute(broken, instance, slug="others")
    assert observation(result)["retl/error_code"] == "DESTINATION_DOWN"
    skipped = tick(broken, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "destination crm is down, says retl_run_" in str(skipped.skip_message)
    mended = scene.project(scene.sync(schedule="0 * * * *"), scene.sync(name="others"))
    execute(mended, instance, slug="others")
    assert isinstance(tick(mended, instance), dg.RunRequest)


def test_an_outage_of_long_ago_keeps_nobody_waiting(scene: Scene, instance: dg.DagsterInstance) -> None:
    broken = Project(base=scene.folder, **down(scene))
    execute(broken, instance, slug="others")
    with Service.open(broken) as service:
        now = service.store.now()
        assert open_circuit(service.outages(), broken.syncs[0], now + timedelta(minutes=4)) is not None
        assert open_circuit(service.outages(), broken.syncs[0], now + timedelta(minutes=6)) is None


@pytest.mark.parametrize(
    ("expression", "hours"), [("*/15 * * * *", 0.5), ("15 */4 * * *", 4.4), ("0 6 * * 1-5", 79.2), ("30 2 * * *", 26.4)]
)
def test_a_schedule_says_how_fresh_its_asset_is_to_be(scene: Scene, expression: str, hours: float) -> None:
    project = scene.project(scene.sync(schedule=expression))
    policy = asset_spec(project, project.syncs[0]).freshness_policy
    assert policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours))


@pytest.mark.parametrize("changes", [{"enabled": False}, {"schedule": "manual"}, {"writes": False}])
def test_what_nothing_runs_is_never_overdue(scene: Scene, changes: dict[str, object]) -> None:
    sync = scene.sync(schedule="0 * * * *") | {name: each for name, each in changes.items() if name != "writes"}
    project = scene.project(sync, writes=changes.get("writes", True))
    assert asset_spec(project, project.syncs[0]).freshness_policy is None
