"""Checks: what can be said of a project before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.errors import ConfigurationError, RetlError
from dagster_retl.model.project import Destination, Warehouse
from dagster_retl.model.sync import Sync, reads_asset
from dagster_retl.service.health import HealthCases
from dagster_retl.sources.parameters import bind
from dagster_retl.sources.query import asset_of, resolve_query


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `error` is None when all is well; `detail` says what was seen."""

    subject: str
    detail: str
    error: RetlError | None = None


class CheckCases(HealthCases):
    """Checks: what can be said of a project before anything runs."""

    def check(self, destination_id: str | None = None, *, offline: bool = False) -> Iterator[Finding]:
        """Check the syncs' definitions and, unless `offline`, every warehouse and destination they use."""
        if destination_id is not None:
            yield self._check_destination(self.project.destination(destination_id), offline=offline)
            return
        if not offline:
            for warehouse in self.project.warehouses.values():
                yield self._check_warehouse(warehouse)
        for destination in self.project.destinations.values():
            yield self._check_destination(destination, offline=offline)
        for sync in self.definitions():
            yield self._check_sync(sync)

    def _check_warehouse(self, warehouse: Warehouse) -> Finding:
        subject = f"warehouse {warehouse.name}"
        try:
            with self.source(warehouse) as source:
                source.check()
        except RetlError as error:
            return Finding(subject, error.message, error)
        return Finding(subject, f"reached {warehouse.display_url}")

    def _check_destination(self, destination: Destination, *, offline: bool) -> Finding:
        subject = f"destination {destination.id}"
        try:
            if offline:
                self.connector(destination).close()
                return Finding(subject, f"{destination.connector}: settings are complete{self._known(destination)}")
            account = self.account(destination.id)
        except RetlError as error:
            return Finding(subject, error.message, error)
        return Finding(subject, f"{destination.connector}: reached {account.name}")

    def _known(self, destination: Destination) -> str:
        """What runs and checks last saw, where that was nothing good."""
        outage = self.outages().get(destination.id)
        if outage is None:
            return ""
        return f"; down since {outage.since:%Y-%m-%d %H:%M} UTC: {outage.code} {outage.reason}"

    def _check_sync(self, sync: Sync) -> Finding:
        subject = f"sync {sync.slug}"
        try:
            self.validate(sync)
        except RetlError as error:
            return Finding(subject, error.message, error)
        return Finding(subject, f"{sync.sync_mode} into {sync.destination_id}.{sync.object_name}")

    def validate(self, sync: Sync) -> None:
        """What can be said of a sync without asking anybody. Raises `ConfigurationError`."""
        connector = self.connector(self.project.destination(sync.destination_id))
        try:
            self._check_mode(sync, connector)
        finally:
            connector.close()
        if reads_asset(sync.source_query):
            asset_of(sync.source_query)
            return
        with self.source(self.project.warehouse(sync.warehouse)) as source:
            query = resolve_query(sync.source_query, dialect=source.dialect, base=self.project.base)
            bind(query.sql, sync.partitions.example() if sync.partitions else None, source.dialect)

    def _check_mode(self, sync: Sync, connector: AnyConnector) -> None:
        reason = connector.supports(sync.sync_mode)
        if reason is not None:
            raise ConfigurationError(
                f"sync {sync.name!r}: {reason}",
                hint=f"Connector {connector.spec.name!r} knows: {', '.join(sorted(connector.spec.modes))}.",
            )
