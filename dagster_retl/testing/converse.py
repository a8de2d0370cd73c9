"""Conversations without a network: play the vendor's part by hand."""

from __future__ import annotations

from typing import TypeVar

import httpx

from dagster_retl.connectors.base import Exchange, Request

T = TypeVar("T")


def converse(exchange: Exchange[T], *responses: httpx.Response) -> tuple[list[Request], T]:
    """Answer the requests of a conversation in order; the requests, and what the conversation ends with.

        requests, results = converse(connector.write(batch), httpx.Response(204))

    Raises whatever the conversation raises, and `AssertionError` when it asks more or fewer
    requests than there are responses.
    """
    requests: list[Request] = []
    remaining = iter(responses)
    try:
        request = next(exchange)
        while True:
            requests.append(request)
            response = next(remaining, None)
            if response is None:
                raise AssertionError(f"no response is left for request {len(requests)}: {request.method} {request.url}")
            request = exchange.send(response)
    except StopIteration as stop:
        unused = len(responses) - len(requests)
        if unused:
            raise AssertionError(f"the conversation ended with {unused} responses unused") from stop
        result: T = stop.value
        return requests, result
