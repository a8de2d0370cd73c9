"""A mapped row as HubSpot's properties, all of which are text.

Numbers keep their digits, booleans are `true` and `false`, dates `YYYY-MM-DD`, timestamps milliseconds since 1970, a
list the values of a multiple choice joined by semicolons, bytes base64, anything nested JSON. A null is the empty
text, which clears a property: https://developers.hubspot.com/docs/guides/api/crm/properties
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from dagster_retl.connectors.hubspot_config import ASSOCIATION


class _Digits(str):
    """A number as its plain digits."""

    __slots__ = ()


def _digits(text: str) -> _Digits:
    return _Digits(format(Decimal(text), "f"))


def texts_of(document: bytes) -> dict[str, str]:
    """The fields of a row's JSON as HubSpot takes them, associations among them."""
    values: Mapping[str, Any] = json.loads(document, parse_float=_digits, parse_int=_Digits)
    return {name: text_of_value(value) for name, value in values.items()}


def text_of_value(value: Any) -> str:
    """One value; numbers come as their digits already."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
        case list():
            return ";".join(text_of_value(each) for each in value)
        case _:
            return orjson.dumps(value, default=_as_number, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()


def _as_number(value: Any) -> Any:
    if isinstance(value, _Digits):
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def split_associations(fields: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The properties among the fields, and the parents' values by the name of the association."""
    parents = {name.removeprefix(ASSOCIATION): text for name, text in fields.items() if name.startswith(ASSOCIATION)}
    properties = {name: text for name, text in fields.items() if not name.startswith(ASSOCIATION)}
    return properties, parents
