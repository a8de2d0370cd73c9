"""HTTP/1.1 messages, as a loopback server reads and writes them.

It understands just what HTTP clients send (bodies with a length or in chunks, kept-alive
connections), because the standard library's server takes longer for a request than what is
tested with it.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Literal, Self

import orjson

RetryAfter = Literal["seconds", "date", "decimal"]
"""The forms of `Retry-After`: the two of RFC 9110, and seconds with decimals, which some services send."""

_HEAD_LIMIT = 65_536
_REASONS = {status.value: status.phrase for status in HTTPStatus}


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
        """An answer in JSON, in which decimals keep their digits."""
        body = orjson.dumps(value, default=_digits)
        return cls(status, body, {"Content-Type": "application/json", **(headers or {})})

    def serialise(self, method: str) -> tuple[bytes, bytes]:
        """Head and body of the answer to a request of that method."""
        head = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != 204:
            head.append(f"Content-Length: {len(self.body)}")
        body = b"" if method == "HEAD" or self.status in (204, 304) else self.body
        return "\r\n".join([*head, "", ""]).encode("latin-1"), body


def _digits(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def retry_after(seconds: float, form: RetryAfter | None) -> dict[str, str]:
    """The header that asks to wait so long, if it is to be asked; whole seconds and dates are rounded up."""
    match form:
        case None:
            return {}
        case "decimal":
            return {"Retry-After": f"{seconds:.3f}"}
        case "seconds":
            return {"Retry-After": str(math.ceil(seconds))}
        case "date":
            at = datetime.now(UTC) + timedelta(seconds=seconds)
            whole = at if at.microsecond == 0 else at.replace(microsecond=0) + timedelta(seconds=1)
            return {"Retry-After": format_datetime(whole, usegmt=True)}


class ConnectionLostError(Exception):
    """The client went away, or sent something that is not HTTP."""


class RequestReader:
    """Requests from one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def head(self) -> tuple[str, str, dict[str, str]] | None:
        """Method, target and headers of the next request; None when the client closed the connection."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                return None
            if len(self._buffer) > _HEAD_LIMIT and b"\r\n\r\n" not in self._buffer:
                raise ConnectionLostError("the head of a request is too long")
        lines = self._take(end + 4).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = (line.partition(":") for line in lines[1:] if line)
        return method, target, {name.lower(): value.strip() for name, _, value in headers}

    def body(self, headers: Mapping[str, str]) -> bytes:
        """The body that belongs to that head."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self._exactly(int(headers.get("content-length", "0")))

    def await_end(self) -> None:
        """Wait until the client closes the connection; what it sends until then is lost."""
        while self._fill():
            self._buffer.clear()

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
            raise ConnectionLostError("the connection ended within a request")

    def _fill(self) -> bool:
        data = self._socket.recv(262_144)
        self._buffer += data
        return bool(data)
