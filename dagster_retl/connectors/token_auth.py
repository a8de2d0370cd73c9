"""Bearer tokens that a token endpoint gives out for a while, and that all threads share."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import ClassVar

import httpx


class TokenAuth(httpx.Auth, ABC):
    """One thread fetches the token while the others wait; a 401 makes for one new token and one more try.

    margin: seconds before its end at which a token is renewed, so that no request in flight outlives it.
    """

    requires_response_body = True
    margin: ClassVar[float] = 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: str | None = None
        self._expires_at = 0.0

    @property
    def token(self) -> str | None:
        """The token in use."""
        return self._token

    @abstractmethod
    def token_request(self) -> httpx.Request:
        """The request for a new token."""

    @abstractmethod
    def read_token(self, response: httpx.Response) -> tuple[str, float]:
        """The token that an answer brings, and its lifetime in seconds. Raises `DestinationError` where it has none."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = yield from self._current(refused=None)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            token = yield from self._current(refused=token)
            request.headers["Authorization"] = f"Bearer {token}"
            yield request

    def _current(self, refused: str | None) -> Generator[httpx.Request, httpx.Response, str]:
        with self._lock:
            token = self._token
            if token is None or token == refused or time.monotonic() >= self._expires_at:
                answer = yield self.token_request()
                token, lifetime = self.read_token(answer)
                self._token = token
                self._expires_at = time.monotonic() + max(lifetime - self.margin, lifetime / 2)
            return token
