"""A real HTTP/1.1 server on 127.0.0.1 for tests and benchmarks, with faults on demand.

It parses just what HTTP clients send (bodies with a length or in chunks, kept-alive
connections), because the standard library's server takes longer for a request than what is
tested with it.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self

import orjson

_HEAD_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived. Header names are lower-case; `at` is `time.monotonic()` when its body was read."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    connection: int

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` when it is none."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """An answer in JSON."""
        return cls(status, orjson.dumps(value), {"Content-Type": "application/json", **(headers or {})})


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with a request.

    status: answer this instead (the request is not applied unless `apply`). headers: added to the
    answer, such as `Retry-After`. delay: seconds before the answer, after applying. body: these
    bytes instead of the answer's own. reset: drop the connection, before or after applying.
    truncate: announce the whole body and send half of it.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    body: bytes | None = None
    reset: Literal["before", "after"] | None = None
    truncate: bool = False
    apply: bool | None = None

    @property
    def applies(self) -> bool:
        """Whether the server does what the request asks, whatever it then answers."""
        if self.apply is not None:
            return self.apply
        return self.status is None and self.reset != "before"


class _ConnectionLostError(Exception):
    """The client went away, or sent something that is not HTTP."""


class _Reader:
    """Requests from one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def request_head(self) -> tuple[str, str, dict[str, str]] | None:
        """Method, target and headers of the next request; None when the client closed the connection."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                return None
            if len(self._buffer) > _HEAD_LIMIT and b"\r\n\r\n" not in self._buffer:
                raise _ConnectionLostError("the head of a request is too long")
        lines = self._take(end + 4).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = (line.partition(":") for line in lines[1:] if line)
        return method, target, {name.lower(): value.strip() for name, _, value in headers}

    def body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self._exactly(int(headers.get("content-length", "0")))

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self._line().split(b";")[0], 16):
            yield self._exactly(size)
            self._line()
        while self._line():
            pass  # trailers

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._require_more()
        return self._take(end + 2)[:-2]

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._require_more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _require_more(self) -> None:
        if not self._fill():
            raise _ConnectionLostError("the connection ended within a request")

    def _fill(self) -> bool:
        data = self._socket.recv(262_144)
        self._buffer += data
        return bool(data)


class LoopbackServer:
    """An HTTP server on 127.0.0.1, on a free port unless `port` names one: a context manager.

        with LoopbackServer(lambda request: Reply.json({"ok": True})) as server:
            httpx.get(server.url)

    Subclasses override `handle`. Each connection has its own thread, so `handle` must be safe for
    threads. `requests` holds all requests, answered or not (`record=False` keeps none);
    `errors` what `handle` raised: `close` raises the first of them. latency: seconds before each
    answer.
    """

    def __init__(
        self,
        app: Callable[[Received], Reply] | None = None,
        *,
        latency: float = 0.0,
        record: bool = True,
        port: int = 0,
    ) -> None:
        self.requests: list[Received] = []
        self.errors: list[Exception] = []
        self.latency = latency
        self._app = app
        self._record = record
        self._troubles: deque[tuple[Trouble, Callable[[Received], bool]]] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Listener(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="loopback-server")

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def handle(self, request: Received) -> Reply:
        """Apply a request and answer it."""
        return self._app(request) if self._app else Reply(404)

    def disturb(
        self, trouble: Trouble, *, times: int = 1, where: Callable[[Received], bool] = lambda request: True
    ) -> None:
        """Let the next requests (those that `where` picks) run into trouble; later ones queue behind earlier ones."""
        with self._lock:
            self._troubles.extend([(trouble, where)] * times)

    def calm(self) -> None:
        """Forget the troubles that have not happened yet."""
        with self._lock:
            self._troubles.clear()

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening, end all connections, wait for their threads. Raises the first error of `handle`."""
        self._closing.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def answer(self, request: Received) -> tuple[Reply | None, bool]:
        """The answer to a request, or None to drop the connection; and whether to send it in full."""
        if self._record:
            self.requests.append(request)
        trouble = self._next_trouble(request)
        reply = self.handle(request) if trouble is None or trouble.applies else Reply()
        delay = self.latency + (trouble.delay if trouble else 0.0)
        if delay:
            self._closing.wait(delay)
        if trouble is None:
            return reply, True
        return _disturbed(reply, trouble), not trouble.truncate

    def _next_trouble(self, request: Received) -> Trouble | None:
        if not self._troubles:
            return None
        with self._lock:
            for entry in self._troubles:
                if entry[1](request):
                    self._troubles.remove(entry)
                    return entry[0]
        return None


def _disturbed(reply: Reply, trouble: Trouble) -> Reply | None:
    if trouble.reset:
        return None
    status = reply.status if trouble.status is None else trouble.status
    # An answer that says something else than the request's own has none of its body either.
    body = reply.body if trouble.status is None else b""
    return Reply(status, body if trouble.body is None else trouble.body, {**reply.headers, **trouble.headers})


class _Connection(socketserver.BaseRequestHandler):
    """Serves the requests of one connection, one after the other."""

    request: socket.socket
    server: _Listener

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Reader(self.request)
        # A client that goes away in the middle is part of what tests do.
        with contextlib.suppress(_ConnectionLostError, OSError):
            while self._serve_one(reader):
                pass

    def _serve_one(self, reader: _Reader) -> bool:
        head = reader.request_head()
        if head is None:
            return False
        method, target, headers = head
        if headers.get("expect", "").lower() == "100-continue":
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = target.partition("?")
        body = reader.body(headers)
        received = Received(method, path, query, headers, body, time.monotonic(), id(self.request))
        try:
            reply, whole = self.server.owner.answer(received)
        except Exception as error:  # noqa: BLE001  # handed on: `close` raises it in the test's own thread
            self.server.owner.errors.append(error)
            reply, whole = Reply(500), True
        if reply is None:
            self._reset()
            return False
        self.request.sendall(_serialise(reply, method, whole))
        return whole and headers.get("connection", "").lower() != "close"

    def _reset(self) -> None:
        # Lingering for zero seconds makes close() send RST instead of FIN.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _serialise(reply: Reply, method: str, whole: bool) -> bytes:
    head = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Unknown')}"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    if reply.status != 204:
        head.append(f"Content-Length: {len(reply.body)}")
    body = reply.body if whole else reply.body[: len(reply.body) // 2]
    if method == "HEAD" or reply.status in (204, 304):
        body = b""
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 512
    daemon_threads = False
    block_on_close = True

    def __init__(self, owner: LoopbackServer, port: int) -> None:
        self.owner = owner
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        self.owner.errors.append(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def end_connections(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # it was closed by its own thread in between
                    connection.shutdown(socket.SHUT_RDWR)
