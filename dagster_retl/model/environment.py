"""`${NAME}` and `${NAME:-default}` in text, replaced from the environment; `$${` is a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-([^{}]*))?\})?")


@dataclass(frozen=True, slots=True)
class Expansion:
    """Text after expansion. values: what came out of the environment, variable → value. faults: what went wrong."""

    text: str
    values: Mapping[str, str]
    faults: tuple[str, ...]


def expand(text: str, environ: Mapping[str, str]) -> Expansion:
    """Replace the references in `text`. An empty variable takes its default, as in a shell."""
    values: dict[str, str] = {}
    faults: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        name, has_default, default = match.groups()
        if match.group() == "$${":
            return "${"
        if name is None:
            faults.append("`${` must begin `${NAME}` or `${NAME:-default}`; a plain `${` is written `$${`")
            return ""
        value = environ.get(name)
        if has_default and not value:
            return str(default)
        if value is None:
            faults.append(f"the environment variable {name} is not set")
            return ""
        values[name] = value
        return value

    expanded = _REFERENCE.sub(replacement, text)
    return Expansion(expanded, values, tuple(dict.fromkeys(faults)))
