"""A project with a DuckDB warehouse and a service on loopback, for tests of what Dagster sees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from dagster_retl import Project, build_definitions
from dagster_retl.orchestration.names import JOB_NAME
from dagster_retl.testing import FakeHttpService

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


class Scene:
    """`people` is a table of `rows` people: id, name. The sync `people` sends them to `service`."""

    def __init__(self, folder: Path, service: FakeHttpService, *, rows: int = 10) -> None:
        self.folder = folder
        self.service = service
        self.sql(f"CREATE TABLE people AS SELECT i AS id, 'name ' || i AS name FROM range({rows}) r(i)")

    def sql(self, statement: str) -> None:
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    def sync(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": "people",
            "source_query": "SELECT id, name FROM people",
            "destination_id": "crm",
            "object_name": "people",
            "key": "id",
            "field_mappings": {"id": "id", "name": "name"},
        } | changes

    def data(self, *syncs: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The project as plain data: what retl.yaml would say."""
        errors = {"errors_path": "errors", "index_field": "index", "code_field": "code", "message_field": "message"}
        config = {"url": f"{self.service.url}/v1/{{object}}", "results": errors, "timeout": 2}
        return {
            "warehouses": {"default": {"url": "duckdb:///warehouse.duckdb"}},
            "destinations": {"crm": {"name": "Team CRM", "connector": "http", "config": config}},
            "syncs": list(syncs) or [self.sync()],
        } | changes

    def project(self, *syncs: Mapping[str, Any], **changes: Any) -> Project:
        return Project(base=self.folder, **self.data(*syncs, **changes))


def execute(
    project: Project,
    instance: dg.DagsterInstance,
    *,
    slug: str = "people",
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
) -> dg.ExecuteInProcessResult:
    """One run of `retl_syncs` for one sync."""
    run_config: dict[str, Any] = {"loggers": QUIET}
    if config is not None:
        run_config["ops"] = {slug: {"config": dict(config)}}
    return (
        build_definitions(project, retry_policy=retry_policy or dg.RetryPolicy(max_retries=0))
        .resolve_job_def(JOB_NAME)
        .execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["retl", slug])],
            run_config=run_config,
            tags=dict(tags or {}),
            raise_on_error=False,
        )
    )


def observation(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata values of the only observation of a run."""
    [event] = [event for event in result.all_events if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION]
    metadata = event.asset_observation_data.asset_observation.metadata
    return {name: value.value for name, value in metadata.items()}
