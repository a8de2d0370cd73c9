"""What Prometheus is told: the API's own requests, and how runs and dead letters stand.

https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dagster_retl.service import Service

_KEPT = 10.0  # seconds that counts of the store are good for


class Metrics:
    """The numbers of one API process."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("retl_api_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "retl_api_request_seconds", "How long answers took.", ("method", "route"), registry=self._registry
        )
        self._registry.register(_StoreCollector(service))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. route: the pattern of its path, never the path itself."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus's text format."""
        return generate_latest(self._registry)


class _StoreCollector(Collector):
    """How the store stands, counted when somebody looks, and not more often than every few seconds."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._at = float("-inf")
        self._found: list[Metric] = []

    def describe(self) -> list[Metric]:
        """Nothing is counted before somebody looks."""
        return []

    def collect(self) -> Iterator[Metric]:
        if time.monotonic() - self._at > _KEPT:
            self._found = [self._runs(), self._dead_letters(), self._syncs()]
            self._at = time.monotonic()
        yield from self._found

    def _runs(self) -> Metric:
        family = GaugeMetricFamily("retl_runs", "Runs in the store.", labels=["status"])
        for status, count in self._service.store.runs.counts().items():
            family.add_metric([status], count)
        return family

    def _dead_letters(self) -> Metric:
        names = {sync.id: sync.slug for sync in self._service.definitions()}
        labels = ["sync", "error_code"]
        family = GaugeMetricFamily("retl_dead_letters_open", "Open dead letters.", labels=labels)
        for (sync_id, code), count in self._service.store.dead_letters.open_by_reason().items():
            family.add_metric([names.get(sync_id, sync_id), code], count)
        return family

    def _syncs(self) -> Metric:
        family = GaugeMetricFamily("retl_sync_enabled", "1 where a sync is enabled.", labels=["sync"])
        for entry in self._service.catalog.entries():
            family.add_metric([entry.sync.slug], int(entry.enabled))
        return family
