"""What `dg scaffold defs` writes for our components, from what it asks for.

https://docs.dagster.io/guides/build/components/creating-new-components/component-customization
"""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

from dagster_retl.orchestration.component_schema import PROJECT_FILE


class ProjectParams(BaseModel):
    """What a whole project is made from."""

    project_file: str = Field("", description="Path of a retl.yaml; without it, its settings go into this file.")
    warehouse_url: str = Field("duckdb:///warehouse.duckdb", description="SQLAlchemy URL that rows come from.")
    connector: str = Field("http", description="Kind of destination: `retl connectors` lists them.")


class SyncParams(ProjectParams):
    """What one sync is made from."""

    name: str = Field("my_sync", description="What people call the sync; its id follows from it.")
    query: str = Field("SELECT id, name FROM my_table", description="SELECT, or table:schema.name, or dbt:model.")
    destination: str = Field("my_destination", description="Id of the destination.")
    object_name: str = Field("things", description="The object, table or path to write.")
    key: str = Field("id", description="The destination's field that tells rows apart.")


class ProjectScaffolder(dg.Scaffolder[ProjectParams]):
    """A defs.yaml with a whole project."""

    @classmethod
    def get_scaffold_params(cls) -> type[ProjectParams]:
        return ProjectParams

    def scaffold(self, request: dg.ScaffoldRequest[ProjectParams]) -> None:
        params = request.params
        attributes = _project(params, "my_destination") | ({} if params.project_file else {"syncs": []})
        dg.scaffold_component(request, attributes)


class SyncScaffolder(dg.Scaffolder[SyncParams]):
    """A defs.yaml with one sync."""

    @classmethod
    def get_scaffold_params(cls) -> type[SyncParams]:
        return SyncParams

    def scaffold(self, request: dg.ScaffoldRequest[SyncParams]) -> None:
        params = request.params
        sync = {
            "name": params.name,
            "source_query": params.query,
            "destination_id": params.destination,
            "object_name": params.object_name,
            "sync_mode": "upsert",
            "key": params.key,
            "field_mappings": {params.key: params.key},
        }
        dg.scaffold_component(request, _project(params, params.destination) | sync)


def _project(params: ProjectParams, destination: str) -> dict[str, Any]:
    if params.project_file:
        return {PROJECT_FILE: params.project_file}
    return {
        "warehouses": {"default": {"url": params.warehouse_url}},
        "destinations": {destination: {"connector": params.connector, "config": _config(params.connector)}},
    }


def _config(connector: str) -> dict[str, Any]:
    """The setting that connectors cannot do without; `retl connectors NAME` lists all of them."""
    return {"url": "{{ env.DESTINATION_URL }}"} if connector in ("http", "sql") else {}
