"""The JSON Schema of retl.yaml, for editors: completion, descriptions, and mistakes while typing.

It is made from the models, and adds what a file may say beyond them: `include`, `defaults`, the
short forms, and `${NAME}` wherever a number, a switch or a choice is expected.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from dagster_retl.model.model_errors import written_settings
from dagster_retl.model.project import Destination, Project, Warehouse
from dagster_retl.model.project_file import OWN_TO_EACH_SYNC
from dagster_retl.model.sync import Sync
from dagster_retl.model.units import format_duration

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_FROM_ENVIRONMENT: Mapping[str, Any] = {"type": "string", "pattern": r"\$\{", "description": "From the environment."}
_SWITCH: Mapping[str, Any] = {"enum": ["on", "off"]}
_CRON = r"^\s*(\S+\s+){4}\S+\s*$"
_ANNOTATIONS = ("title", "description", "default", "examples")


class _FileSchema(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        """Durations as people write them, not as ISO 8601."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of retl.yaml."""
    root: Schema = Project.model_json_schema(schema_generator=_FileSchema)
    definitions = root["$defs"]
    _keep_written(root, written_settings(Project))
    for model in (Warehouse, Destination, Sync):
        _keep_written(definitions[model.__name__], written_settings(model))
    _admit_environment(root)
    _add_short_forms(definitions)
    _add_file_settings(root)
    _prune(root)
    return {"$schema": DIALECT, **root, "title": "retl.yaml"}


def _keep_written(schema: Schema, names: list[str]) -> None:
    """Leave out the fields that follow from the place in the file."""
    schema["properties"] = {name: each for name, each in schema["properties"].items() if name in names}


# --- what a file may say beyond the models


def _admit_environment(schema: Schema) -> None:
    """Allow `${NAME}` for all that text cannot already be, and on/off for switches."""
    for child in _children(schema):
        _admit_environment(child)
    constrained = schema.get("type") in ("integer", "number", "boolean") or "enum" in schema or "pattern" in schema
    if constrained:
        plain = {name: schema.pop(name) for name in list(schema) if name not in _ANNOTATIONS}
        switch = [dict(_SWITCH)] if plain.get("type") == "boolean" else []
        schema["anyOf"] = [plain, *switch, dict(_FROM_ENVIRONMENT)]


def _children(schema: Schema) -> list[Schema]:
    named = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    listed = [*schema.get("anyOf", []), schema.get("items"), schema.get("additionalProperties")]
    return [child for child in [*named, *listed] if isinstance(child, dict)]


def _add_short_forms(definitions: Schema, *, environment: bool = True) -> None:
    sync = definitions["Sync"]["properties"]
    spec = copy.deepcopy(definitions["FieldMapping"])
    del spec["properties"]["destination"], spec["required"]
    spec |= {"title": "FieldSource", "description": "Where the value of this destination field comes from."}
    definitions["FieldSource"] = spec
    short = {
        "type": "object",
        "description": "Short form: destination field: source.",
        "minProperties": 1,
        "additionalProperties": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/FieldSource"}]},
    }
    sync["field_mappings"] = _either(sync["field_mappings"], short)
    tenants = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Short form: fixed keys."}
    sync["partitions"] = _either(sync["partitions"], tenants)
    sync["key"] = {
        "description": "Destination names of the key fields; short for `key: true` in their mappings.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    plain: Schema = {"enum": ["manual", "on_upstream"]}
    expression = {"type": "string", "pattern": _CRON, "description": "A cron expression of five fields, in UTC."}
    forms = [plain, expression, _FROM_ENVIRONMENT] if environment else [plain, expression]
    sync["schedule"] = _either(sync["schedule"], *forms)


def _either(schema: Schema, *others: Mapping[str, Any]) -> Schema:
    """The schema or one of the others, annotations outside."""
    annotations = {name: schema[name] for name in _ANNOTATIONS if name in schema}
    plain = {name: each for name, each in schema.items() if name not in annotations}
    return {**annotations, "anyOf": [plain, *(dict(other) for other in others)]}


def _add_file_settings(root: Schema) -> None:
    definitions, settings = root["$defs"], root["properties"]
    defaults = copy.deepcopy(definitions["Sync"])
    for name in OWN_TO_EACH_SYNC:
        defaults["properties"].pop(name, None)
    del defaults["required"]
    definitions["SyncDefaults"] = defaults | {"title": "SyncDefaults", "description": "Settings for every sync."}
    definitions["Sync"]["required"] = ["name"]  # the others may come from `defaults`
    settings["defaults"] = {"$ref": "#/$defs/SyncDefaults"}
    settings["include"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Files of more syncs, relative to this one; patterns such as syncs/*.yaml.",
    }
    for section in ("warehouses", "destinations", "syncs", "alerts"):
        settings[section] = _either(settings[section], {"type": "null"})
    root["required"] = ["warehouses", "destinations"]
    root["anyOf"] = [{"required": ["syncs"]}, {"required": ["include"]}]


def _prune(root: Schema) -> None:
    """Leave out the definitions that nothing refers to."""
    text = json.dumps(root)
    root["$defs"] = {name: each for name, each in root["$defs"].items() if f'"#/$defs/{name}"' in text}


# --- the same for the API


def sync_schemas() -> Schema:
    """Schemas for OpenAPI: `SyncInput` (a new sync), `SyncChanges` (a change of one), and what they refer to.

    As in retl.yaml, without what a file alone can say; names are those of snake_case.
    """
    root: Schema = Sync.model_json_schema(schema_generator=_FileSchema, ref_template="#/$defs/{model}")
    definitions: Schema = root.pop("$defs")
    names = [name for name in written_settings(Sync) if name not in {"adopt", "renamed_from"}]
    _keep_written(root, names)
    definitions["Sync"] = root
    _add_short_forms(definitions, environment=False)
    del definitions["Sync"]
    changes = copy.deepcopy(root)
    changes["properties"] = {name: _nullable(each) for name, each in changes["properties"].items()}
    del changes["required"]
    schemas = {**definitions, "SyncInput": root, "SyncChanges": changes}
    text = json.dumps(schemas).replace("#/$defs/", "#/components/schemas/")
    named: Schema = json.loads(text)
    return {name: each for name, each in named.items() if name.startswith("Sync") or f'schemas/{name}"' in text}


def _nullable(schema: Schema) -> Schema:
    annotations = {name: each for name, each in schema.items() if name in _ANNOTATIONS and name != "default"}
    plain = {name: each for name, each in schema.items() if name not in _ANNOTATIONS}
    return {**annotations, "anyOf": [plain, {"type": "null"}]}
