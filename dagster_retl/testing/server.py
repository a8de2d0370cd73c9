"""A real HTTP/1.1 server on 127.0.0.1 for tests and benchmarks, with faults on demand."""

from __future__ import annotations

import contextlib
import math
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from dagster_retl.testing.messages import ConnectionLostError, Received, Reply, RequestReader
from dagster_retl.testing.trouble import Incident, Late, Schedule, Trouble, Which

__all__ = ["Incident", "LoopbackServer", "Received", "Reply", "Trouble"]


class LoopbackServer:
    """An HTTP server on 127.0.0.1, on a free port unless `port` names one: a context manager.

        with LoopbackServer(lambda request: Reply.json({"ok": True})) as server:
            httpx.get(server.url)

    Subclasses override `handle`. Each connection has its own thread, so `handle` must be safe for
    threads. `requests` holds all requests, answered or not, `incidents` those that ran into
    trouble (`record=False` keeps none); `late` the ones that are still to be applied; `errors`
    what `handle` raised: `close` raises the first of them. latency: seconds before each answer.
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
        self.incidents: list[Incident] = []
        self.late: list[Late] = []
        self.errors: list[Exception] = []
        self.latency = latency
        self.troubles = Schedule()
        self._app = app
        self._record = record
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

    def handle_in_trouble(self, request: Received, trouble: Trouble) -> Reply:
        """Apply and answer a request that runs into trouble, for services whose rules a trouble may change."""
        return self.handle(request)

    def postpone(self, request: Received) -> Callable[[], object] | None:
        """What will apply a request that is to be late; None where it would be refused at the door."""
        return lambda: self.handle(request)

    def disturb(self, trouble: Trouble, *, times: int = 1, where: Which = lambda request: True) -> None:
        """Let the next requests (those that `where` picks) run into trouble; later ones queue behind earlier ones."""
        self.troubles.script(trouble, times=times, where=where)

    def calm(self) -> None:
        """Forget the troubles that have not happened yet, and draw no more."""
        self.troubles.clear()

    def land(self, most: int | None = None) -> None:
        """Apply the requests that are late (at most so many), in the order in which they arrived."""
        with self._lock:
            landing = self.late[:most]
            del self.late[:most]
        for late in landing:
            late.apply()

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

    def answer(self, request: Received) -> tuple[Reply | None, Trouble | None]:
        """The answer to a request, or None for none; and the trouble in which it is sent."""
        if self._record:
            self.requests.append(request)
        trouble = self.troubles.next(request)
        reply = self.handle(request) if trouble is None else self._in_trouble(request, trouble)
        if self.late:
            self._pass_late_ones()
        delay = self.latency + (trouble.delay if trouble else 0.0)
        if 0 < delay < math.inf:
            self._closing.wait(delay)
        return reply, trouble

    def pause(self, seconds: float) -> None:
        """Wait, but not for longer than the server is open."""
        self._closing.wait(seconds)

    def _in_trouble(self, request: Received, trouble: Trouble) -> Reply | None:
        if self._record:
            self.incidents.append(Incident(request, trouble))
        if trouble.before:
            trouble.before()
        reply = self.handle_in_trouble(request, trouble) if trouble.applies else Reply()
        if trouble.late is not None:
            self._keep_for_later(request, trouble.late)
        if trouble.after:
            trouble.after()
        return None if trouble.reset or trouble.delay == math.inf else trouble.change(reply)

    def _keep_for_later(self, request: Received, later_requests: float) -> None:
        apply = self.postpone(request)
        if apply:
            with self._lock:
                self.late.append(Late(request, apply, later_requests + 1))  # its own answer passes it first

    def _pass_late_ones(self) -> None:
        """One more request was handled: it is the turn of those that waited for so many."""
        with self._lock:
            for late in self.late:
                late.waits_for -= 1
            landing = [late for late in self.late if late.waits_for <= 0]
            self.late = [late for late in self.late if late.waits_for > 0]
        for late in landing:
            late.apply()


class _Connection(socketserver.BaseRequestHandler):
    """Serves the requests of one connection, one after the other."""

    request: socket.socket
    server: _Listener

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = RequestReader(self.request)
        # A client that goes away in the middle is part of what tests do.
        with contextlib.suppress(ConnectionLostError, OSError):
            while self._serve_one():
                pass

    def _serve_one(self) -> bool:
        received = self._receive()
        if received is None:
            return False
        try:
            reply, trouble = self.server.owner.answer(received)
        except Exception as error:  # noqa: BLE001  # handed on: `close` raises it in the test's own thread
            self.server.owner.errors.append(error)
            reply, trouble = Reply(500), None
        if reply is None:
            self._drop(trouble)
            return False
        self._send(*reply.serialise(received.method), trouble)
        kept = received.headers.get("connection", "").lower() != "close"
        return kept and not (trouble and trouble.truncate)

    def _receive(self) -> Received | None:
        head = self._reader.head()
        if head is None:
            return None
        method, target, headers = head
        if headers.get("expect", "").lower() == "100-continue":
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = target.partition("?")
        body = self._reader.body(headers)
        return Received(method, path, query, headers, body, time.monotonic(), id(self.request))

    def _send(self, head: bytes, body: bytes, trouble: Trouble | None) -> None:
        if trouble is None:
            self.request.sendall(head + body)
            return
        body = body[: len(body) // 2] if trouble.truncate else body
        if not trouble.drip:
            self.request.sendall(head + body)
            return
        self.request.sendall(head)
        for byte in body:
            self.server.owner.pause(trouble.drip)
            self.request.sendall(bytes([byte]))

    def _drop(self, trouble: Trouble | None) -> None:
        if trouble and trouble.delay == math.inf:
            self._reader.await_end()
            return
        # Lingering for zero seconds makes close() send RST instead of FIN.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


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
