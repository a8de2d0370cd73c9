"""Asking a destination about itself: who it is, which objects and fields it has."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from dagster_retl.connectors.base import AnyConnector, Connector
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.transport import Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.model.rows import Account, Batch, FieldInfo, ObjectInfo


class Discovery:
    """Asks over one client of its own; use as a context manager. Raises `DestinationError`."""

    def __init__(self, connector: AnyConnector, stop: threading.Event | None = None) -> None:
        self._connector = connector
        self._stop = stop or threading.Event()
        self._transport: Transport | None = None

    def __enter__(self) -> Discovery:
        return self

    def __exit__(self, *exit_: object) -> None:
        if self._transport is not None:
            self._transport.close()

    def account(self) -> Account:
        """Whom the credentials reach."""
        account: Account = self._ask(self._connector.check())  # type: ignore[attr-defined]  # both kinds have it
        return account

    def objects(self) -> list[ObjectInfo]:
        """What can be written to."""
        objects: list[ObjectInfo] = self._ask(self._connector.objects())  # type: ignore[attr-defined]  # as above
        return objects

    def fields(self, object_name: str) -> list[FieldInfo]:
        """The object's fields; empty where the destination cannot tell."""
        fields: list[FieldInfo] = self._ask(self._connector.fields(object_name))  # type: ignore[attr-defined]  # as above
        return fields

    def read(self, batch: Batch, fields: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """What the destination holds for the rows of a batch: row key → field → value."""
        records: Mapping[str, Mapping[str, Any]] = self._ask(self._connector.read(batch, fields))  # type: ignore[attr-defined]  # where it can
        return records

    def _ask(self, question: Any) -> Any:
        if not isinstance(self._connector, Connector):
            return question
        if self._transport is None:
            turns = Turns(Pacer(self._connector.rate_limit, self._connector.burst), self._stop, Gate(1))
            self._transport = Transport(self._connector, auth=self._connector.auth(), turns=turns)
        return self._transport.run(question)
