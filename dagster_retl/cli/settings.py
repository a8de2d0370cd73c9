"""The settings of a connector, read from the model that validates them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from dagster_retl.connectors.base import AnyConnector

_NAMES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `default` as it is written in YAML; a nested one is called `auth.token`."""

    name: str
    type: str
    required: bool
    default: str
    description: str


def settings_of(kind: type[AnyConnector]) -> list[Setting]:
    """What `config:` of a destination of this kind may say: the required settings first."""
    return settings_of_model(kind.Config)


def settings_of_model(model: type[BaseModel]) -> list[Setting]:
    """The settings of a model, or of a part of one: the required ones first."""
    schema = model.model_json_schema()
    found = list(_settings(schema, schema.get("$defs", {})))
    return sorted(found, key=lambda setting: not setting.required)


def notes_of(kind: type[AnyConnector]) -> Iterator[str]:
    """What the models say about their settings in prose."""
    for model in reversed(kind.Config.__mro__):
        if issubclass(model, BaseModel) and model is not BaseModel and model.__doc__:
            yield " ".join(inspect.cleandoc(model.__doc__).split())


def connector_document(kind: type[AnyConnector]) -> dict[str, Any]:
    """A connector as JSON."""
    spec = kind.spec
    return {
        "name": spec.name,
        "title": spec.title,
        "modes": sorted(spec.modes),
        "batch_rows": spec.batch_rows,
        "batch_bytes": spec.batch_bytes,
        "concurrency": spec.concurrency,
        "rate_limit": spec.rate_limit,
        "discoverable": spec.discoverable,
        "documentation": spec.documentation or None,
        "settings": [asdict(setting) for setting in settings_of(kind)],
    }


def _settings(schema: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Setting]:
    required = set(schema.get("required", ()))
    for name, each in schema.get("properties", {}).items():
        default = each.get("default")
        yield Setting(
            name=name,
            type=_type(each, known),
            required=name in required,
            default="" if default is None else json.dumps(default, ensure_ascii=False),
            description=each.get("description", ""),
        )


def _type(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A type in words; an object as the names it may hold."""
    if "$ref" in schema:
        return _type(known[schema["$ref"].rpartition("/")[2]], known)
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " | ".join(str(choice) for choice in choices)
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(_distinct([_type(each, known) for each in alternatives if each.get("type") != "null"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), known)}"
    if schema.get("type") == "object":
        return _object(schema, known)
    return _NAMES.get(str(schema.get("type")), "anything")


def _object(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if properties := schema.get("properties"):
        return f"{{{', '.join(_member(name, each, known) for name, each in properties.items())}}}"
    inner = schema.get("additionalProperties")
    return f"name: {_type(inner, known)}" if isinstance(inner, Mapping) else "mapping"


def _member(name: str, schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """`type: bearer`, where only one value will do; just the name otherwise."""
    return f"{name}: {schema['const']}" if "const" in schema else name


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
