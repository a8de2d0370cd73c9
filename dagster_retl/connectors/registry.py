"""Connectors by name, found through the entry point `dagster_retl.connectors`."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.errors import ConfigurationError

GROUP = "dagster_retl.connectors"


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def connector_names() -> list[str]:
    """The names of all installed connectors."""
    return sorted(_entry_points())


@cache
def connector_class(name: str) -> type[AnyConnector]:
    """The connector of that name. Raises `ConfigurationError` when none is installed."""
    point = _entry_points().get(name)
    if point is None:
        close = difflib.get_close_matches(name, connector_names(), n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Installed: {', '.join(connector_names())}."
        raise ConfigurationError(f"there is no connector {name!r}", hint=hint)
    loaded: type[AnyConnector] = point.load()
    return loaded
