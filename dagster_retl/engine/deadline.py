"""A timeout for the whole of an answer: httpx has one for each piece of it, which bytes in drips never meet."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx


class TimelyStream(httpx.SyncByteStream):
    """The body of a response. Raises `httpx.ReadTimeout` for a piece that comes after `until` (`time.monotonic`)."""

    def __init__(self, stream: httpx.SyncByteStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if time.monotonic() > self._until:
                raise httpx.ReadTimeout("the answer did not end in time")
            yield piece

    def close(self) -> None:
        self._stream.close()


def limit(response: httpx.Response, seconds: float) -> None:
    """Give the body of a response that begins to arrive so many seconds."""
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = TimelyStream(response.stream, time.monotonic() + seconds)
