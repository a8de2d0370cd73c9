"""The least that carries a connector's conversations over a real network: for tests, without the engine.

No pacing, no retries: an error of the transport is raised as httpx has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import httpx

from dagster_retl.connectors.base import AnyConnector, Connector, DirectConnector, Exchange, Request
from dagster_retl.errors import ACTIONS, Action, DestinationError
from dagster_retl.model.rows import Batch, Fault, Row, RowResult

T = TypeVar("T")
Sent = Callable[[Request], None]
"""Told of each request before it is sent."""


@contextmanager
def open_client(connector: Connector) -> Iterator[httpx.Client]:
    """A client that authorises requests and asks `connector.allow` about each one, as the engine's does."""
    with httpx.Client(
        base_url=connector.config.base_url or "",
        auth=connector.auth(),
        verify=connector.ssl_context(),
        timeout=connector.config.timeout,
        trust_env=False,
        event_hooks={"request": [lambda request: connector.allow(request.url)]},
    ) as client:
        yield client


def drive(
    connector: Connector, exchange: Exchange[T], client: httpx.Client | None = None, sent: Sent | None = None
) -> T:
    """Carry a conversation to its end; what it ends with."""
    if client is None:
        with open_client(connector) as own:
            return drive(connector, exchange, own, sent)
    try:
        request = next(exchange)
        while True:
            if sent:
                sent(request)
            request = exchange.send(_send(client, request))
    except StopIteration as stop:
        result: T = stop.value
        return result


def _send(client: httpx.Client, request: Request) -> httpx.Response:
    return client.request(
        request.method, request.url, headers=request.headers, params=request.params or None, content=request.content
    )


def write(
    connector: AnyConnector, batch: Batch, client: httpx.Client | None = None, sent: Sent | None = None
) -> Sequence[RowResult]:
    """Write one batch, whatever kind the connector is. Raises `DestinationError` as the connector does."""
    if isinstance(connector, DirectConnector):
        return connector.write(batch)
    if not isinstance(connector, Connector):
        raise TypeError(f"{type(connector).__name__} is neither a Connector nor a DirectConnector")
    return drive(connector, connector.write(batch), client, sent)


def deliver(connector: AnyConnector, batch: Batch, sent: Sent | None = None) -> list[RowResult]:
    """Write any number of rows in batches that the connector allows, halving the ones that are refused.

    One result for each row that was answered, in order; a refused single row has its fault.
    Raises `DestinationError` for what no halving can mend.
    """
    if isinstance(connector, Connector):
        with open_client(connector) as client:
            return _deliver(connector, batch, client, sent)
    return _deliver(connector, batch, None, sent)


def _deliver(connector: AnyConnector, batch: Batch, client: httpx.Client | None, sent: Sent | None) -> list[RowResult]:
    size = connector.batch_rows_for(batch.operation)
    results: list[RowResult] = []
    for start in range(0, len(batch.rows), size):
        results += _bisect(connector, _part(batch, batch.rows[start : start + size]), client, sent)
    return results


def _bisect(
    connector: AnyConnector, batch: Batch, client: httpx.Client | None, sent: Sent | None
) -> Sequence[RowResult]:
    try:
        return write(connector, batch, client, sent)
    except DestinationError as error:
        if ACTIONS[error.code] is not Action.SPLIT:
            raise
        if len(batch.rows) == 1:
            return [RowResult(batch.rows[0].key, Fault(error.code, error.message, error.vendor_code))]
    middle = len(batch.rows) // 2
    halves = (batch.rows[:middle], batch.rows[middle:])
    return [result for half in halves for result in _bisect(connector, _part(batch, half), client, sent)]


def _part(batch: Batch, rows: Sequence[Row]) -> Batch:
    """Other rows are another request: it gets its own idempotency key."""
    return replace(batch, rows=rows, idempotency_key=":".join([batch.idempotency_key, *(row.key for row in rows)]))
