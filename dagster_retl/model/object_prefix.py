"""A prefix of a bucket, reached when it is first needed."""

from __future__ import annotations

import threading
from typing import Any

from dagster_retl.model.object_urls import ObjectLocation


class ObjectPrefix:
    """What everything that works below a prefix has in common. Safe to share between threads."""

    def __init__(self, location: ObjectLocation) -> None:
        self._location = location
        self._connecting = threading.Lock()
        self._connection: Any = None

    @property
    def _store(self) -> Any:
        """The `pyarrow.fs` file system."""
        with self._connecting:
            if self._connection is None:
                self._connection = self._location.connect()
            return self._connection

    def _disconnect(self) -> None:
        with self._connecting:
            self._connection = None

    def _at(self, name: str) -> str:
        return f"{self._location.root}/{name}"

    def _shown(self, name: str) -> str:
        return f"{self._location.shown}/{name}".rstrip("/")
