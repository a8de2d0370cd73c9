"""Schedules of syncs: declared running, and asking the store at each tick."""

from __future__ import annotations

import dagster as dg
import pytest
from scene import Scene

from dagster_retl import Project, Service, build_definitions

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
