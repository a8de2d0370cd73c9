"""Fields of a fake Iterable: each has the type of its first value, and keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d|Z)?)?")
_FITS = {"double": {"double", "long"}, "string": {"string", "date"}}


def type_of(value: Any) -> str:
    """The type that a field gets from a value."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "long"
        case float() | Decimal():
            return "double"
        case Mapping():
            return "object"
        case str() if _DATE.fullmatch(value):
            return "date"
        case _:
            return "string"


def leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a document with its dotted name, objects before what is in them; nulls have no type."""
    for name, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield f"{prefix}{name}", each
            if isinstance(each, Mapping):
                yield from leaves(each, f"{prefix}{name}.")


@dataclass
class Fields:
    """Names and types. most: how many there may be."""

    types: dict[str, str] = field(default_factory=dict)
    most: int = 1000

    def mismatches(self, document: Mapping[str, Any]) -> dict[str, tuple[Any, str, str]]:
        """Fields whose value has another type: value, type of the value, type of the field."""
        found = {}
        for name, value in leaves(document):
            expected, kind = self.types.get(name), type_of(value)
            if expected is not None and kind not in _FITS.get(expected, {expected}):
                found[name] = (value, kind, expected)
        return found

    def unknown(self, document: Mapping[str, Any]) -> set[str]:
        """Fields that do not exist, those inside of them left aside."""
        names = {name for name, _ in leaves(document) if name not in self.types}
        return {name for name in names if name.rpartition(".")[0] not in names}

    def learn(self, document: Mapping[str, Any]) -> bool:
        """Create the fields that do not exist. False where there would be too many."""
        new = {name: type_of(value) for name, value in leaves(document) if name not in self.types}
        if len(self.types) + len(new) > self.most:
            return False
        self.types |= new
        return True


def without(document: Mapping[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    """A document without some of its fields."""
    return {
        name: without(value, names, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in document.items()
        if f"{prefix}{name}" not in names
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any], *, nested: bool) -> dict[str, Any]:
    """A document with another one on top; objects are merged or replaced."""
    both = dict(old)
    for name, value in new.items():
        inside = nested and isinstance(value, Mapping) and isinstance(old.get(name), Mapping)
        both[name] = merged(old[name], value, nested=True) if inside else value
    return both
