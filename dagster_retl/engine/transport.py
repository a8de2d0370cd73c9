"""Sending the requests of a conversation: pacing, retries, and what is known of an attempt's effect."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import TypeVar

import httpx

from dagster_retl.connectors.base import Connector, Exchange, Request
from dagster_retl.connectors.limits import LimitState, retry_after
from dagster_retl.engine.connections import Connections
from dagster_retl.engine.pacing import LONGEST_WAIT
from dagster_retl.engine.turns import Turn, Turns
from dagster_retl.errors import DestinationError, ErrorCode, RetlError

T = TypeVar("T")

ATTEMPTS = 4
"""How often one request is sent while the destination is out of order."""
PATIENCE = 900.0
"""Seconds that one request may spend waiting for a rate limit, in all."""


def backoff(attempt: int, *, base: float = 0.25, longest: float = 10.0) -> float:
    """Seconds before attempt `attempt` + 1: exponential, with full jitter."""
    return random.uniform(base / 2, min(longest, base * 2**attempt))  # noqa: S311 - jitter, not a secret


@dataclass(slots=True)
class Traffic:
    """What one worker sent; of a delivery, what all of them did. waited: seconds that the destination asked for."""

    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    waited: float = 0.0


class Transport:
    """One thread's client. `ambiguous` tells of the last conversation whether any attempt of it is.

    turns: when it may send, with the threads that it shares them with.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        auth: httpx.Auth | None,
        turns: Turns,
    ) -> None:
        self._connector = connector
        self._auth = auth
        self._turns = turns
        self._stop = turns.stop
        self._connections = Connections(connector, auth)
        self.traffic = Traffic()
        self.ambiguous = False
        self._answered = False

    def close(self) -> None:
        self._connections.close()

    @property
    def stop(self) -> threading.Event:
        """Set when the run ends."""
        return self._stop

    def unstopped(self) -> Transport:
        """Another client for what has to be sent although the run ends; whoever asks for it closes it."""
        return Transport(self._connector, auth=self._auth, turns=self._turns.unstopped())

    def run(self, exchange: Exchange[T]) -> T:
        """Drive a conversation to its end. Raises `DestinationError`, and `CancelledError` before a request is sent."""
        self.ambiguous = False
        self._answered = False
        try:
            request = next(exchange)
            while True:
                request = exchange.send(self._ask(request))
        except StopIteration as end:
            result: T = end.value
            return result
        except DestinationError as error:
            self.ambiguous = self.ambiguous or error.ambiguous
            raise
        finally:
            exchange.close()

    def _ask(self, request: Request) -> httpx.Response:
        """A conversation that breaks off here says nothing of what its earlier requests have written."""
        try:
            response = self._send(request)
        except RetlError:
            self.ambiguous = self.ambiguous or self._answered
            raise
        self._answered = self._answered or request.method not in ("GET", "HEAD")
        return response

    def _send(self, request: Request) -> httpx.Response:
        waited, throttles, attempt = 0.0, 0, 0
        while True:
            response, failure = self._attempt(request)
            if response is not None and response.status_code == 429 and waited < PATIENCE and not self._stop.is_set():
                throttles += 1
                waited += self._wait_for_limit(response, throttles)
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
        """Send once, when it is time: a response to hand on, or the failure that it is (with its response, if any)."""
        built = self._connections.build(request)
        with self._turns.taken() as turn:
            self.traffic.requests += 1
            self.traffic.bytes_sent += len(request.content or b"")
            try:
                response = self._connections.send(built)
            except httpx.TransportError as error:
                return None, self._lost(request, error, reached=_same(error, built))
            self._hear(response, turn)
        return response, self._outage(request, response)

    def _hear(self, response: httpx.Response, turn: Turn) -> None:
        """What a response says of limits is for all workers."""
        throttled = response.status_code == 429 or (response.status_code == 503 and "Retry-After" in response.headers)
        if throttled or response.status_code < 500:
            turn.permit.well = not throttled
        state = self._connector.limits(response)
        if state is not None:
            self._turns.pacer.heard(turn.number, state, throttled=throttled)

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

    def _wait_for_limit(self, response: httpx.Response, throttles: int) -> float:
        """Let everybody wait for as long as a 429 asks for. Returns the seconds."""
        asked = self._asked(response)
        if asked is not None and asked > PATIENCE:
            vendor_code, message = self._connector.explain(response)
            raise DestinationError(
                f"the destination wants no request for {asked:,.0f} s: {message}",
                code=ErrorCode.QUOTA_EXHAUSTED,
                vendor_code=vendor_code,
                hint="Nothing was lost: the first run after that sends what this one could not.",
            )
        seconds = max(0.5, backoff(throttles)) if asked is None else min(LONGEST_WAIT, asked)
        self._turns.pacer.pause(seconds)
        return max(seconds, 0.05)

    def _asked(self, response: httpx.Response) -> float | None:
        """Seconds that a response asks for: by `Retry-After`, or else by the limit that it says was reached."""
        asked = retry_after(response.headers.get("Retry-After"))
        state: LimitState | None = self._connector.limits(response) if asked is None else None
        return state.reset if state is not None and state.remaining == 0 else asked

    def _pause(self, response: httpx.Response | None, attempt: int) -> float:
        """Seconds before a request is sent again that met an outage; one that says how long it takes, tells all."""
        asked = self._asked(response) if response is not None else None
        if asked is None:
            return backoff(attempt)
        seconds = min(LONGEST_WAIT, asked)
        self._turns.pacer.pause(seconds)
        return seconds


_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


def _same(error: httpx.TransportError, built: httpx.Request) -> bool:
    return error.request.url == built.url
