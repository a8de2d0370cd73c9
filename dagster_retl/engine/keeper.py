"""Keeping a lease alive while its run works."""

from __future__ import annotations

import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from dagster_retl.errors import LeaseLostError
from dagster_retl.store.leases import Lease
from dagster_retl.store.store import Store

HEARTBEAT = 15.0


class LeaseKeeper:
    """Extends a lease every `HEARTBEAT` seconds until it is closed, or lost."""

    def __init__(self, store: Store, lease: Lease, *, every: float = HEARTBEAT) -> None:
        self._store = store
        self._lease = lease
        self._every = every
        self._lost: LeaseLostError | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="retl-heartbeat", daemon=True)
        self._thread.start()

    def check(self, margin: float = 0.0) -> None:
        """Raise `LeaseLostError` unless the lease lasts at least `margin` seconds more."""
        if self._lost is not None:
            raise self._lost
        if time.monotonic() + margin > self._lease.deadline:
            raise LeaseLostError(
                "the lease of this run could not be extended in time, so it sends nothing more",
                hint="Is the store reachable? The next run finishes the work.",
            )

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=30)

    def _beat(self) -> None:
        while not self._closed.wait(self._every):
            try:
                self._lease = self._store.leases.heartbeat(self._lease)
            except LeaseLostError as error:
                self._lost = error
                return
            except SQLAlchemyError:
                continue  # the store may come back before the lease runs out; `check` watches the deadline
