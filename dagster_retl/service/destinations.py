"""Destinations and warehouses: reaching them, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.registry import connector_class
from dagster_retl.engine.destination import Discovery
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Destination, Warehouse
from dagster_retl.model.rows import Account, FieldInfo, ObjectInfo
from dagster_retl.service.opened import Opened
from dagster_retl.sources.base import Source
from dagster_retl.sources.open import open_source


class DestinationCases(Opened):
    """Destinations and warehouses: reaching them, and what they say of themselves."""

    def connector(self, destination: Destination) -> AnyConnector:
        """A fresh connector; whoever asks closes it. Raises `ConfigurationError` for settings that are wrong."""
        kind = connector_class(destination.connector)
        try:
            config = kind.Config.model_validate(dict(destination.config), context={"base": self.project.base})
        except ValidationError as error:
            raise _bad_settings(destination, error) from None
        return kind(config)

    def source(self, warehouse: Warehouse) -> Source:
        """A fresh source; whoever asks closes it."""
        return open_source(
            warehouse.url,
            name=warehouse.name,
            base=self.project.base,
            connect_args=warehouse.connect_args,
            timezone=warehouse.timezone,
            statement_timeout=warehouse.statement_timeout,
            query_tag=warehouse.query_tag,
        )

    @contextmanager
    def discovery(self, destination_id: str) -> Iterator[Discovery]:
        """Ask a destination about itself."""
        connector = self.connector(self.project.destination(destination_id))
        try:
            with Discovery(connector) as discovery:
                yield discovery
        finally:
            connector.close()

    def account(self, destination_id: str) -> Account:
        """Whom a destination's credentials reach. Raises `DestinationError`."""
        with self.discovery(destination_id) as discovery:
            return discovery.account()

    def objects(self, destination_id: str, search: str | None = None) -> list[ObjectInfo]:
        """The objects of a destination; `search` filters label and name, ignoring case."""
        with self.discovery(destination_id) as discovery:
            found = discovery.objects()
        wanted = (search or "").lower()
        return [info for info in found if wanted in info.api_name.lower() or wanted in info.label.lower()]

    def fields(self, destination_id: str, object_name: str) -> list[FieldInfo]:
        """The fields of an object."""
        with self.discovery(destination_id) as discovery:
            return discovery.fields(object_name)


def _bad_settings(destination: Destination, error: ValidationError) -> ConfigurationError:
    problems = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'config'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    )
    return ConfigurationError(
        f"destination {destination.id!r} ({destination.connector}): {problems}",
        hint=f"`retl connectors {destination.connector}` lists its settings.",
    )
