"""A loopback HTTP service that takes rows, as cheaply as Python can, and knows what arrived.

It runs in a process of its own, so that its work is not the client's. While the clock runs it only counts
requests and rows (occurrences of `"id":`) and keeps the bodies; `GET /digest` parses them afterwards.

    python benchmarks/server.py --latency 0.02 --rate 200 --burst 10
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from arrivals import digest

_ID = b'"id":'
_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"errors":[]}'
_REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n"
_BUFFER = 1 << 20


class Bucket:
    """Tokens that come at `rate` a second, at most `burst` of them. No rate: there is always one."""

    def __init__(self, rate: float | None, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = time.perf_counter()

    def take(self) -> float:
        """0 when a request may pass, else the seconds after which one may."""
        if self._rate is None:
            return 0.0
        now = time.perf_counter()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class Arrivals:
    """What came in so far."""

    def __init__(self, latency: float, bucket: Bucket, *, keep: bool) -> None:
        self.latency = latency
        self.bucket = bucket
        self.bodies: list[bytes] | None = [] if keep else None
        self.requests = 0
        self.rows = 0
        self.refused = 0
        self.flying = 0
        self.most_flying = 0
        self.first = 0.0
        self.last = 0.0

    def take(self, body: bytes) -> None:
        """Count a request that was let in."""
        self.first = self.first or time.perf_counter()
        self.requests += 1
        self.rows += body.count(_ID)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        if self.bodies is not None:
            self.bodies.append(body)

    def done(self) -> None:
        """One of them was answered."""
        self.flying -= 1
        self.last = time.perf_counter()

    def stats(self) -> dict[str, Any]:
        """seconds: from the first request to the last answer."""
        counts = {name: getattr(self, name) for name in ("requests", "rows", "refused", "most_flying")}
        return counts | {"seconds": self.last - self.first}

    def digest(self) -> dict[str, int]:
        """Of every row that was let in."""
        return digest(row for body in self.bodies or () for row in _rows(body)).as_dict()


def _rows(body: bytes) -> Iterator[dict[str, Any]]:
    value = json.loads(body)
    yield from value if isinstance(value, list) else [value]


class Connection(asyncio.BufferedProtocol):
    """One client's connection. Requests come one after the other and have a Content-Length."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._filled == len(self._buffer):
            self._buffer = self._buffer + bytes(len(self._buffer))
            self._view = memoryview(self._buffer)
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        while self._request():
            pass

    def _request(self) -> bool:
        """Handle one request, if all of it is here."""
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
        if end < 0:
            return False
        head = bytes(self._view[:end])
        start, length = end + 4, _content_length(head)
        if self._filled < start + length:
            return False
        body = bytes(self._view[start : start + length])
        rest = self._filled - start - length
        if rest:
            self._view[:rest] = bytes(self._view[start + length : self._filled])
        self._filled = rest
        self._handle(head, body)
        return True

    def _handle(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET "):
            self._tell(head.split(b" ", 2)[1])
            return
        arrivals = self._arrivals
        if wait := arrivals.bucket.take():
            arrivals.refused += 1
            self._transport.write(_REFUSAL % f"{wait:.3f}".encode())
            return
        arrivals.take(body)
        if arrivals.latency:
            asyncio.get_running_loop().call_later(arrivals.latency, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._arrivals.done()
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)

    def _tell(self, path: bytes) -> None:
        told = self._arrivals.digest() if path == b"/digest" else self._arrivals.stats()
        content = json.dumps(told).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class Server:
    """The service as a process; use as a context manager. `rate` and `burst`: 429 beyond them."""

    def __init__(self, *, latency: float = 0.0, rate: float | None = None, burst: int = 1, keep: bool = True) -> None:
        self._command = [sys.executable, __file__, "--latency", str(latency), "--burst", str(burst)]
        self._command += ["--rate", str(rate)] if rate else []
        self._command += [] if keep else ["--forget"]
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the benchmark's HTTP service did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    def stats(self) -> dict[str, Any]:
        """requests, rows, refused, most_flying, and the seconds from the first request to the last answer."""
        return self._ask("stats")

    def digest(self) -> dict[str, int]:
        """See `arrivals.digest`; takes a while."""
        return self._ask("digest")

    def _ask(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{what}", timeout=600) as answer:
            told: dict[str, Any] = json.load(answer)
            return told


async def _serve(arrivals: Arrivals) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(arrivals), "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="a fast HTTP service that counts rows")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, help="requests a second; more are answered 429")
    parser.add_argument("--burst", type=int, default=1, help="requests at once, with --rate")
    parser.add_argument("--forget", action="store_true", help="keep no bodies: counts only, no digest")
    given = parser.parse_args()
    gc.disable()  # nothing here makes cycles, and bodies pile up
    asyncio.run(_serve(Arrivals(given.latency, Bucket(given.rate, given.burst), keep=not given.forget)))


if __name__ == "__main__":
    main()
