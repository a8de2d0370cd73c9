"""Reverse ETL that is native to Dagster.

    import dagster as dg
    from dagster_retl import Project, build_definitions

    defs = build_definitions(Project.load("retl.yaml"))

Names that need Dagster are imported when they are first asked for: the engine runs without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_retl.model.project import Destination, Project, Warehouse
    from dagster_retl.model.sync import FieldMapping, Sync
    from dagster_retl.model.sync_settings import Guards, Schedule
    from dagster_retl.orchestration.build import build_definitions
    from dagster_retl.orchestration.components import ReverseEtlComponent, ReverseEtlSyncComponent
    from dagster_retl.orchestration.config import SyncRunConfig
    from dagster_retl.orchestration.resources import DeadLetterQueue, ReverseEtlResource
    from dagster_retl.orchestration.upstream import link_upstreams
    from dagster_retl.service import Service

_MODULES = {
    "DeadLetterQueue": "dagster_retl.orchestration.resources",
    "Destination": "dagster_retl.model.project",
    "FieldMapping": "dagster_retl.model.sync",
    "Guards": "dagster_retl.model.sync_settings",
    "Project": "dagster_retl.model.project",
    "ReverseEtlComponent": "dagster_retl.components",
    "ReverseEtlResource": "dagster_retl.orchestration.resources",
    "ReverseEtlSyncComponent": "dagster_retl.components",
    "Schedule": "dagster_retl.model.sync_settings",
    "Service": "dagster_retl.service",
    "Sync": "dagster_retl.model.sync",
    "SyncRunConfig": "dagster_retl.orchestration.config",
    "Warehouse": "dagster_retl.model.project",
    "build_definitions": "dagster_retl.orchestration.build",
    "link_upstreams": "dagster_retl.orchestration.upstream",
}

__all__ = [
    "DeadLetterQueue",
    "Destination",
    "FieldMapping",
    "Guards",
    "Project",
    "ReverseEtlComponent",
    "ReverseEtlResource",
    "ReverseEtlSyncComponent",
    "Schedule",
    "Service",
    "Sync",
    "SyncRunConfig",
    "Warehouse",
    "build_definitions",
    "link_upstreams",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
