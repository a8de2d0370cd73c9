"""What pydantic says about a definition, in the words of somebody who writes retl.yaml."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from dagster_retl.model.mistakes import Loc, did_you_mean

_NATIVE: Mapping[str, str] = {
    "missing": "this setting is missing",
    "extra_forbidden": "unknown setting",
    "string_type": "expected text",
    "string_too_short": "this may not be empty",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "this number is too large",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected on or off",
    "bool_parsing": "expected on or off",
    "model_type": "expected a mapping of settings",
    "model_attributes_type": "expected a mapping of settings",
    "dict_type": "expected a mapping of settings",
    "mapping_type": "expected a mapping of settings",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "too_short": "expected at least {min_length} item",
    "greater_than": "expected a number greater than {gt:g}",
    "greater_than_equal": "expected a number of at least {ge:g}",
    "less_than": "expected a number less than {lt:g}",
    "less_than_equal": "expected a number of at most {le:g}",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
}

_KINDS: Sequence[tuple[type | tuple[type, ...], str]] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    ((list, tuple), "a list"),
)

_ADDED_KEYS: Mapping[str, tuple[str, ...]] = {"Project": ("include", "defaults"), "Sync": ("key",)}
_NOT_WRITTEN: Mapping[str, frozenset[str]] = {
    "Project": frozenset({"path", "base", "elsewhere"}),
    "Sync": frozenset({"project"}),
    "Warehouse": frozenset({"name"}),
    "Destination": frozenset({"id"}),
}


def is_native(details: ErrorDetails) -> bool:
    """Whether the message is made of the error's type alone, so that it quotes nothing that somebody wrote."""
    return details["type"] in _NATIVE


def causes(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those that only follow from others.

    A list whose items are wrong is also "too short"; a setting whose name is misspelt is also "missing".
    """
    broken = {details["loc"][:end] for details in errors for end in range(len(details["loc"]))}
    misspelt = [details["loc"] for details in errors if details["type"] == "extra_forbidden"]
    return [
        details
        for details in errors
        if not (details["type"] == "too_short" and details["loc"] in broken)
        and not (details["type"] == "missing" and any(_nearly(details["loc"], loc) for loc in misspelt))
    ]


def _nearly(loc: Loc, written: Loc) -> bool:
    """Whether `written` is a misspelling of `loc`."""
    return loc[:-1] == written[:-1] and bool(difflib.get_close_matches(str(written[-1]), [str(loc[-1])]))


def explain(details: ErrorDetails, found: object, settings: Sequence[str]) -> tuple[str, str | None]:
    """The message and the hint of an error.

    found: the value that stands there. settings: the names that the model knows at this place.
    """
    context: Mapping[str, Any] = details.get("ctx", {})
    kind = details["type"]
    if "message" in context:
        return str(context["message"]), str(context["hint"]) or None
    if kind not in _NATIVE:
        return details["msg"].removeprefix("Value error, "), None
    message = _NATIVE[kind].format_map(context)
    if kind == "extra_forbidden":
        return message, did_you_mean(str(details["loc"][-1]), settings)
    if kind in ("literal_error", "enum"):
        return message, _close_choice(found, str(context.get("expected", "")))
    if kind.endswith("_type"):
        message = f"{message}, found {_kind_of(found)}"
    return message, _writing_hint(kind, found, context)


def _close_choice(found: object, expected: str) -> str | None:
    close = difflib.get_close_matches(str(found), re.findall(r"'([^']*)'", expected), n=1)
    return f"Did you mean `{close[0]}`?" if close else None


def _writing_hint(kind: str, found: object, context: Mapping[str, Any]) -> str | None:
    if kind == "string_type" and isinstance(found, (bool, int, float)):
        return "Write it in quotes."
    if kind == "less_than_equal" and context.get("le") == 1:
        return "A share is written 10% or 0.1."
    return None


def _kind_of(value: object) -> str:
    return next((name for types, name in _KINDS if isinstance(value, types)), "nothing")


def settings_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The settings that may stand beside the last part of `loc`, which begins at `model`."""
    annotations: list[Any] = [model]
    for part in loc[:-1]:
        annotations = [inner for annotation in annotations for inner in _inside(annotation, part)]
    models = [found for annotation in annotations for found in _models(annotation)]
    return [name for found in models for name in written_settings(found)]


def written_settings(model: type[BaseModel]) -> list[str]:
    """The keys that people write for a model: its fields but for those that follow, and the short forms' keys."""
    hidden = _NOT_WRITTEN.get(model.__name__, frozenset())
    return [name for name in model.model_fields if name not in hidden] + list(_ADDED_KEYS.get(model.__name__, ()))


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """The annotations of what `part` leads to."""
    for model in _models(annotation):
        if part in model.model_fields:
            yield model.model_fields[str(part)].annotation
    for container in _alternatives(annotation):
        if get_origin(container) is tuple:
            yield get_args(container)[0]
        elif get_origin(container) is Mapping:
            yield get_args(container)[1]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    return (each for each in _alternatives(annotation) if isinstance(each, type) and issubclass(each, BaseModel))


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        yield from get_args(annotation)
    else:
        yield annotation
