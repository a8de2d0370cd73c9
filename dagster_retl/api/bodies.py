"""Reading what clients send: JSON of bounded size, in camelCase or snake_case, with nothing unknown in it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from types import UnionType
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from dagster_retl.api.problems import ApiError, Detail
from dagster_retl.model.mistakes import did_you_mean
from dagster_retl.model.problems import dotted

M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 1_000_000
"""Of a request's body."""

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
INT64 = 2**63
"""Whole numbers are below this, and not below its negative."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Of a whole number: JSON may write it as `5.0`."""


class Body(BaseModel):
    """What a request says. Types are as JSON has them: no text for a number, no number for a switch."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def snake(name: str) -> str:
    """`fieldMappings` as `field_mappings`."""
    return _HUMP.sub(r"_\1", name).lower() if name[:1].islower() else name


async def read_bytes(request: Request, most: int = MAX_BYTES) -> bytes:
    """The body, read once. Raises `ApiError` when it is too large."""
    if not hasattr(request.state, "body"):
        request.state.body = await _collect(request, most)
    body: bytes = request.state.body
    return body


async def _collect(request: Request, most: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    collected = bytearray()
    async for chunk in request.stream():
        collected += chunk
        if len(collected) > most:
            raise _too_large(most)
    return bytes(collected)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most:,} bytes", headers={"Connection": "close"})


async def read_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in the body; optional: an empty body is an empty object. Raises `ApiError`."""
    body = await read_bytes(request)
    if optional and not body:
        return {}
    _require_json(request)
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {_first_line(error)}", code="MALFORMED_JSON") from None
    if not isinstance(document, dict):
        raise ApiError(422, "the body must be a JSON object", [Detail("", "object", "expected an object")])
    _refuse_unkeepable(document)
    return document


def _require_json(request: Request) -> None:
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = rest.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise ApiError(415, "the body must be JSON: send `Content-Type: application/json`, in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body must not be compressed")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands in an object twice")
    return found


def _first_line(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).encode("ascii", "backslashreplace").decode().partition("\n")[0][:200]


def _refuse_unkeepable(document: Any) -> None:
    """What JSON can say and a database cannot keep exactly: NUL, half characters, numbers beyond 64 bits."""
    for value in _leaves(document):
        if isinstance(value, str) and not is_text(value):
            raise ApiError(422, "text must not hold NUL or half of a surrogate pair", [Detail("", "text", "not text")])
        if isinstance(value, (int, float)) and not _fits(value):
            raise ApiError(422, "a number does not fit into 64 bits", [Detail("", "number", "too large")])


def is_text(value: str) -> bool:
    """Whether a database can keep the text."""
    return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def _fits(value: float) -> bool:
    return -INT64 <= value < INT64 if isinstance(value, int) else math.isfinite(value)


def _leaves(document: Any) -> Iterator[Any]:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        else:
            yield value


def in_snake_case(data: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The object with the names that are known in camelCase written in snake_case; others stay as they are.

    Raises `ApiError` when both forms are there and say different things.
    """
    found: dict[str, Any] = {}
    for name, value in data.items():
        plain = snake(name) if snake(name) in known else name
        if plain in found and (type(found[plain]), found[plain]) != (type(value), value):
            message = f"`{name}` and its other spelling say different things"
            raise ApiError(422, message, [Detail(plain, "contradiction", message)])
        found[plain] = value
    return found


def parts_in_snake_case(data: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The same for the objects in it that are parts of the model, such as `checks`."""
    found = dict(data)
    for name, field in model.model_fields.items():
        part = next(_models(field.annotation), None)
        if part is not None and isinstance(found.get(name), dict):
            found[name] = parts_in_snake_case(in_snake_case(found[name], part.model_fields), part)
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The annotation, or what is among its alternatives."""
    for each in (annotation, *(get_args(annotation) if isinstance(annotation, UnionType) else ())):
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each


async def read_body(request: Request, model: type[M], *, optional: bool = False) -> M:
    """The body as a model. Raises `ApiError` with everything that is wrong."""
    data = in_snake_case(await read_object(request, optional=optional), model.model_fields)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = [
            Detail(dotted(each["loc"]), each["type"], each["msg"].removeprefix("Value error, "))
            for each in error.errors(include_url=False, include_input=False)
        ]
        said = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in details)
        raise ApiError(422, said, details) from None


def tidy_query(query: bytes, known: Collection[str]) -> bytes:
    """A query string with its names in snake_case. Raises `ApiError` when one is unknown, or has two values."""
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise ApiError(400, "the query string cannot be read: it must be UTF-8, percent-encoded") from None
    for name, value in pairs:
        if not is_text(name) or not is_text(value):
            raise ApiError(422, "text must not hold NUL", [Detail("query", "text", "not text")])
        if snake(name) not in known:
            message = did_you_mean(name, known) or "There are no parameters here."
            raise ApiError(422, f"there is no parameter `{name[:80]}`", [Detail(name[:80], "unknown", message)])
        if found.setdefault(snake(name), value) != value:
            message = f"`{snake(name)}` is given twice, with different values"
            raise ApiError(422, message, [Detail(snake(name), "contradiction", message)])
    return urlencode(found).encode()
