"""Address templates of the `http` connector: `https://api.acme.example/v1/{object}/{id}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from string import Formatter
from typing import Any, Self
from urllib.parse import quote

import httpx

from dagster_retl.errors import DestinationError, ErrorCode

OBJECT = "object"


def text_of(value: Any) -> str:
    """A key value as text. Numbers are written by value: 42, 42.0 and `Decimal("42.00")` are all `42`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal):
        number = Decimal(str(value))
        whole = number.is_finite() and number == number.to_integral_value()
        return str(int(number)) if whole else format(number.normalize(), "f")
    return str(value)


@dataclass(frozen=True, slots=True)
class UrlTemplate:
    """An address with placeholders: alternating literal text and the name that follows it, if any."""

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a template. Raises `ValueError` saying what is wrong with it, without repeating it whole."""
        parts = tuple(_placeholders(text))
        origin = parts[0][0] if parts else ""
        if any(name for _, name in parts) and not _names_host(origin):
            raise ValueError("placeholders may stand in the path and the query of an address, not in its host")
        _require_plain_http("".join(literal + ("x" if name else "") for literal, name in parts))
        return cls(parts)

    @property
    def fields(self) -> frozenset[str]:
        """The names of the key fields in it."""
        return frozenset(name for _, name in self.parts if name and name != OBJECT)

    @property
    def origin(self) -> httpx.URL:
        """The address up to its first placeholder."""
        return httpx.URL(self.parts[0][0])

    def expand(self, object_name: str, key_values: Mapping[str, Any]) -> str:
        """The address of an object or, where it names key fields, of one record.

        Raises `DestinationError`: `CONFIGURATION` for a name that is no key field, `MISSING_KEY`
        for a value that would address something else than one record.
        """
        values = {OBJECT: object_name, **{name: _value(name, key_values) for name in self.fields}}
        return "".join(literal + (_segment(name, values[name]) if name else "") for literal, name in self.parts)


def plain_address(text: str) -> str:
    """An address as it is. Raises `ValueError` when it is none, or a template."""
    if any(name for _, name in UrlTemplate.parse(text).parts):
        raise ValueError("this address takes no placeholders")
    return text


def _placeholders(text: str) -> list[tuple[str, str | None]]:
    parts: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in Formatter().parse(text):
        if spec or conversion or name == "":
            raise ValueError("a placeholder is a name in braces, such as {object}; literal braces are doubled")
        parts.append((literal, name))
    return parts


def _names_host(literal: str) -> bool:
    """Whether scheme and host are complete in a text: `https://host/`."""
    scheme, separator, rest = literal.partition("://")
    return bool(scheme) and bool(separator) and any(mark in rest for mark in "/?")


def _require_plain_http(address: str) -> None:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ValueError(f"this is not a web address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("an address starts with https:// (or http://) and a host")
    if url.userinfo:
        raise ValueError("an address holds no user and password: use `auth: {type: basic, …}`")


def _value(name: str, key_values: Mapping[str, Any]) -> str:
    if name not in key_values:
        raise DestinationError(
            f"the address names {{{name}}}, which is no key field of the sync",
            code=ErrorCode.CONFIGURATION,
            hint=f"Key fields: {', '.join(key_values)}.",
        )
    return "" if key_values[name] is None else text_of(key_values[name])


def _segment(name: str, text: str) -> str:
    # An empty segment or a dot segment would address the collection, or its parent, instead of a record.
    if text in ("", ".", ".."):
        raise DestinationError(f"{name} is {text!r}, which addresses no record", code=ErrorCode.MISSING_KEY)
    return quote(text, safe="")
