"""What destinations say about themselves, remembered: asking takes seconds, and quota."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast

from dagster_retl.errors import DestinationError, RetlError
from dagster_retl.model.rows import FieldInfo, ObjectInfo
from dagster_retl.service import Service

T = TypeVar("T")

KEPT = 300.0
"""Seconds that objects and fields are good for."""

STATUS_KEPT = 60.0
"""Seconds that it is good to know whether a destination answers."""

PATIENCE = 5.0
"""Seconds that a list of destinations waits for their answers."""

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What was learned, and when. stale: the destination does not answer now; this is from before."""

    value: T
    at: datetime
    stale: bool = False


class DiscoveryCache:
    """Asks destinations, and remembers. Safe for threads. kept: seconds that objects and fields are good for."""

    def __init__(self, service: Service, *, kept: float = KEPT) -> None:
        self._service = service
        self._kept = kept
        self._lock = threading.Lock()
        self._found: dict[Hashable, tuple[float, Known[Any]]] = {}
        self._asking: dict[str, Future[str]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "retl-api-discovery")

    def close(self) -> None:
        """Wait for nobody any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def objects(self, destination_id: str) -> Known[list[ObjectInfo]]:
        """The objects of a destination. Raises `DestinationError` when it never answered."""
        return self._remembered(("objects", destination_id), lambda: self._service.objects(destination_id))

    def fields(self, destination_id: str, object_name: str) -> Known[list[FieldInfo]]:
        """The fields of an object. Raises as `objects` does."""
        key = ("fields", destination_id, object_name)
        return self._remembered(key, lambda: self._service.fields(destination_id, object_name))

    def statuses(self, destination_ids: list[str]) -> dict[str, str]:
        """`connected`, `error` or, where nobody answered in time, `unknown`."""
        asked = {destination_id: self._ask_status(destination_id) for destination_id in destination_ids}
        wait(asked.values(), PATIENCE)
        return {name: future.result() if future.done() else "unknown" for name, future in asked.items()}

    def _ask_status(self, destination_id: str) -> Future[str]:
        with self._lock:
            asking = self._asking.get(destination_id)
            if asking is None or (asking.done() and self._fresh(("status", destination_id), STATUS_KEPT) is None):
                asking = self._asking[destination_id] = self._pool.submit(self._status, destination_id)
            return asking

    def _status(self, destination_id: str) -> str:
        try:
            self._service.account(destination_id)
        except RetlError:
            status = "error"
        else:
            status = "connected"
        self._keep(("status", destination_id), status)
        return status

    def _remembered(self, key: Hashable, ask: Callable[[], T]) -> Known[T]:
        fresh = self._fresh(key, self._kept)
        if fresh is not None:
            return cast("Known[T]", fresh)
        try:
            return self._keep(key, ask())
        except DestinationError:
            earlier = self._found.get(key)
            if earlier is None:
                raise
            return Known(earlier[1].value, earlier[1].at, stale=True)

    def _fresh(self, key: Hashable, seconds: float) -> Known[Any] | None:
        found = self._found.get(key)
        return found[1] if found is not None and time.monotonic() - found[0] < seconds else None

    def _keep(self, key: Hashable, value: T) -> Known[T]:
        known = Known(value, datetime.now(UTC))
        self._found[key] = (time.monotonic(), known)
        return known
