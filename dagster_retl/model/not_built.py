"""Settings whose behaviour does not exist yet: they are refused by name, never ignored.

This table is the one place: when a setting is built, its line goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_retl.model.mistakes import Loc, Mistake


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """A setting at `path` (`*`: each item), or only those of its values that match `value`."""

    path: str
    name: str
    value: str | None = None

    @property
    def sentence(self) -> str:
        return f"{self.name} is not supported by this version"


NOT_BUILT: tuple[NotBuilt, ...] = (
    NotBuilt("syncs.*.after", "`after`"),
    NotBuilt("syncs.*.renamed_from", "`renamed_from`"),
)


def not_built(data: Mapping[str, Any]) -> list[Mistake]:
    """The settings of a project (plain data: mappings, lists, scalars) that this version refuses."""
    return [
        Mistake(loc, entry.sentence, kind="not_built")
        for entry in NOT_BUILT
        for loc, value in _find(data, entry.path.split("."), ())
        if _asked_for(value, entry.value)
    ]


def _asked_for(value: object, pattern: str | None) -> bool:
    if pattern is None:
        return value is not None and value not in ("", [], (), {})
    return isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL) is not None


def _find(data: Any, path: list[str], loc: Loc) -> Iterator[tuple[Loc, Any]]:
    if not path:
        yield loc, data
    elif path[0] == "*" and isinstance(data, (list, tuple)):
        for index, item in enumerate(data):
            yield from _find(item, path[1:], (*loc, index))
    elif isinstance(data, Mapping) and path[0] in data:
        yield from _find(data[path[0]], path[1:], (*loc, path[0]))
