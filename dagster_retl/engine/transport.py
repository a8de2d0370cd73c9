"""Sending the requests of a conversation: pacing, retries, and what is known of an attempt's effect."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

from dagster_retl.connectors.base import Connector, Exchange, Request
from dagster_retl.engine.deadline import limit
from dagster_retl.engine.pacing import Pacer, retry_after
from dagster_retl.errors import DestinationError, ErrorCode

T = TypeVar("T")

ATTEMPTS = 4
"""How often one request is sent while the destination is out of order."""
LONGEST_WAIT = 60.0
"""Seconds: a single `Retry-After` above this is cut, so that a stop is noticed and the lease kept."""
PATIENCE = 900.0
"""Seconds that one request may spend waiting for a rate limit, in all."""


def backoff(attempt: int, *, base: float = 0.25, longest: float = 10.0) -> float:
    """Seconds before attempt `attempt` + 1: exponential, with full jitter."""
    return random.uniform(base / 2, min(longest, base * 2**attempt))  # noqa: S311 - jitter, not a secret


@dataclass(slots=True)
class Traffic:
    """What one worker sent."""

    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0


class Transport:
    """One thread's client. `ambiguous` tells of the last conversation whether any attempt of it is.

    before_send: called before each request; raises to stop (a lost lease, a cancelled run).
    """

    def __init__(
        self,
        connector: Connector,
        *,
        auth: httpx.Auth | None,
        pacer: Pacer,
        stop: threading.Event,
        before_send: Callable[[], None] = lambda: None,
    ) -> None:
        config = connector.config
        self._connector = connector
        self._pacer = pacer
        self._stop = stop
        self._before_send = before_send
        self._client = httpx.Client(
            base_url=config.base_url or "",
            auth=auth,
            timeout=config.timeout,
            proxy=config.proxy,
            verify=connector.ssl_context(),
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "dagster-retl"},
            event_hooks={"request": [self._check], "response": [lambda response: limit(response, config.timeout)]},
        )
        self.traffic = Traffic()
        self.ambiguous = False

    def close(self) -> None:
        self._client.close()

    def _check(self, request: httpx.Request) -> None:
        """For every request, those of `httpx.Auth` too, which come without a timeout."""
        request.extensions.setdefault("timeout", self._client.timeout.as_dict())
        self._connector.allow(request.url)

    def run(self, exchange: Exchange[T]) -> T:
        """Drive a conversation to its end. Raises `DestinationError`."""
        self.ambiguous = False
        try:
            request = next(exchange)
            while True:
                request = exchange.send(self._send(request))
        except StopIteration as end:
            result: T = end.value
            return result
        except DestinationError as error:
            self.ambiguous = self.ambiguous or error.ambiguous
            raise
        finally:
            exchange.close()

    def _send(self, request: Request) -> httpx.Response:
        waited = 0.0
        attempt = 0
        while True:
            response, failure = self._attempt(request)
            if response is not None and response.status_code == 429 and waited < PATIENCE and not self._stop.is_set():
                waited += self._wait_for_limit(response, attempt)
                continue
            if failure is None and response is not None:
                return response
            assert failure is not None  # noqa: S101 - _attempt returns one or the other
            attempt += 1
            if attempt >= ATTEMPTS or not self._may_resend(request, failure):
                raise failure
            if self._stop.wait(self._pause(response, attempt)):
                raise failure
            self.traffic.retries += 1

    def _attempt(self, request: Request) -> tuple[httpx.Response | None, DestinationError | None]:
        """Send once: a response to hand on, or the failure that it is (with its response, if any)."""
        self._pacer.wait(self._stop)
        self._before_send()
        built = self._client.build_request(
            request.method,
            request.url,
            headers=dict(request.headers),
            params=dict(request.params) or None,
            content=request.content,
        )
        self.traffic.requests += 1
        self.traffic.bytes_sent += len(request.content or b"")
        try:
            response = self._client.send(built)
        except httpx.TransportError as error:
            return None, self._lost(request, error, reached=_same(error, built))
        return response, self._outage(request, response)

    def _outage(self, request: Request, response: httpx.Response) -> DestinationError | None:
        if response.status_code < 500:
            return None
        vendor_code, message = self._connector.explain(response)
        ambiguous = not self._connector.not_applied(response)
        return self._failure(
            request, message, ErrorCode.DESTINATION_UNAVAILABLE, ambiguous=ambiguous, vendor_code=vendor_code
        )

    def _lost(self, request: Request, error: httpx.TransportError, *, reached: bool) -> DestinationError:
        """reached: it was the request itself that got lost, not one that fetched a token for it."""
        unsent = isinstance(error, _NEVER_SENT) or not reached
        timeout = isinstance(error, httpx.TimeoutException)
        code = ErrorCode.TIMEOUT if timeout and not unsent else ErrorCode.DESTINATION_UNAVAILABLE
        where = f"{request.method} {error.request.url.netloc.decode('ascii')}"
        waited = f"no answer within {self._connector.config.timeout:g} s"
        what = waited if timeout else (str(error) or type(error).__name__)
        return self._failure(request, f"{where}: {what}", code, ambiguous=not unsent)

    def _failure(
        self, request: Request, message: str, code: ErrorCode, *, ambiguous: bool, vendor_code: str | None = None
    ) -> DestinationError:
        self.ambiguous = self.ambiguous or ambiguous
        if ambiguous and not request.idempotent:
            code = ErrorCode.UNKNOWN_OUTCOME
        return DestinationError(message, code=code, vendor_code=vendor_code, ambiguous=ambiguous)

    def _may_resend(self, request: Request, failure: DestinationError) -> bool:
        return request.idempotent or not failure.ambiguous

    def _wait_for_limit(self, response: httpx.Response, attempt: int) -> float:
        asked = retry_after(response.headers.get("Retry-After"))
        seconds = min(LONGEST_WAIT, asked if asked is not None else max(0.5, backoff(attempt + 1)))
        self._pacer.pause(seconds)
        return max(seconds, 0.05)

    def _pause(self, response: httpx.Response | None, attempt: int) -> float:
        asked = retry_after(response.headers.get("Retry-After")) if response is not None else None
        return min(LONGEST_WAIT, asked) if asked is not None else backoff(attempt)


_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


def _same(error: httpx.TransportError, built: httpx.Request) -> bool:
    return error.request.url == built.url
