"""Connectors by name, found through the entry point `dagster_retl.connectors`."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from dagster_retl.connectors.base import CONNECTOR_API, AnyConnector
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
    require_current(loaded)
    return loaded


def require_current(connector: type[AnyConnector]) -> None:
    """Raise `ConfigurationError` for a connector that was written against another version of the interface."""
    if connector.connector_api != CONNECTOR_API:
        raise ConfigurationError(
            f"connector {connector.spec.name!r} was written for version {connector.connector_api} of the connector "
            f"interface; this version of dagster_retl has version {CONNECTOR_API}",
            hint="Install versions of both that go together.",
        )
