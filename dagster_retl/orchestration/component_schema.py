"""JSON Schemas of the components' attributes: retl.yaml's own, and `{{ … }}` wherever `${NAME}` may stand.

`dg check yaml` and editors use them.
"""

from __future__ import annotations

from typing import Any

from dagster_retl.model.json_schema import json_schema

PROJECT_FILE = "project_file"
"""The attribute that names a retl.yaml, relative to the folder of the defs.yaml."""

PROJECT_SETTINGS = frozenset(
    {"version", "project", "store", "state", "writes", "warehouses", "destinations", "defaults", "alerts", "retention"}
    | {"dead_letters", "engine"}
)
"""Settings of a project that may stand beside those of one sync."""

_FROM_ENVIRONMENT = r"\$\{"
_FROM_TEMPLATE = r"\$\{|\{\{"
_FILE = {"type": "string", "description": "Path of a retl.yaml, relative to the folder of this file."}

Schema = dict[str, Any]


def project_attributes_schema() -> Schema:
    """All of a retl.yaml, or `project_file`."""
    schema: Schema = _with_templates(json_schema())
    required = {"required": schema.pop("required"), "anyOf": schema.pop("anyOf")}
    schema["properties"][PROJECT_FILE] = dict(_FILE)
    return schema | {"title": "ReverseEtlComponent", "anyOf": [{"required": [PROJECT_FILE]}, required]}


def sync_attributes_schema() -> Schema:
    """The settings of one sync, and `project_file` or the settings of a project."""
    project = _with_templates(json_schema())
    definitions = project["$defs"]
    sync: Schema = definitions.pop("Sync")
    settings = {name: each for name, each in project["properties"].items() if name in PROJECT_SETTINGS}
    return sync | {
        "$schema": project["$schema"],
        "$defs": definitions,
        "title": "ReverseEtlSyncComponent",
        "properties": {**settings, **sync["properties"], PROJECT_FILE: dict(_FILE)},
        "anyOf": [{"required": [PROJECT_FILE]}, {"required": ["warehouses", "destinations"]}],
    }


def _with_templates(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_templates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_templates(item) for item in value]
    return _FROM_TEMPLATE if value == _FROM_ENVIRONMENT else value
