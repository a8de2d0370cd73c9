"""The base of a stateful fake: addresses with names in them, a door, and one request at a time.

    class FakeAcme(FakeApi):
        def __init__(self) -> None:
            super().__init__()
            self.things: dict[str, Any] = {}
            self.route("PUT", "/things/{id}", self._put)

        def admit(self, request: Received) -> Reply | None:
            return None if request.headers.get("x-key") == "secret" else Reply.json({"error": "who are you?"}, 401)

        def _put(self, call: Call) -> Reply:
            self.things[call.parts["id"]] = call.json()
            return Reply(204)

A handler that refuses raises `RefusedError` with its answer. Faults of every kind (`disturb`, `troubles`) and
answers that come late are those of `LoopbackServer`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote

from dagster_retl.testing.messages import Received, Reply
from dagster_retl.testing.server import LoopbackServer


class RefusedError(Exception):
    """A handler refuses a request: with this answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"refused with {reply.status}")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Call:
    """A request that came in. parts: what stands at the names in the address, percent-decoded."""

    request: Received
    parts: Mapping[str, str]

    @property
    def query(self) -> Mapping[str, str]:
        """The query of the address; of a name that stands there twice the last value."""
        return dict(parse_qsl(self.request.query, keep_blank_values=True))

    def json(self) -> Any:
        """The body as JSON, its numbers exact (`Decimal`). Raises `ValueError` when it is none."""
        return json.loads(self.request.body, parse_float=Decimal)


Handler = Callable[[Call], Reply]


class FakeApi(LoopbackServer):
    """A server that answers by `route`s. Handlers run one at a time, so that they need no lock of their own."""

    def __init__(self, *, latency: float = 0.0, record: bool = True, port: int = 0) -> None:
        super().__init__(latency=latency, record=record, port=port)
        self._state = threading.RLock()
        self._routes: list[tuple[str, list[str], Handler]] = []

    def route(self, method: str, path: str, handler: Handler) -> None:
        """Let `handler` answer requests of a method to an address such as `/things/{id}`; the first that fits does."""
        self._routes.append((method, path.split("/"), handler))

    def admit(self, request: Received) -> Reply | None:
        """Why a request may not come in; None where it may."""
        return None

    def lost(self, request: Received) -> Reply:
        """The answer to a request that no route fits."""
        return Reply(404)

    def handle(self, request: Received) -> Reply:
        with self._state:
            return self.admit(request) or self._apply(request)

    def postpone(self, request: Received) -> Callable[[], object] | None:
        """It came in when it arrived; what is late is what it does."""

        def apply() -> Reply:
            with self._state:
                return self._apply(request)

        with self._state:
            return None if self.admit(request) else apply

    def _apply(self, request: Received) -> Reply:
        place = request.path.split("/")
        for method, pattern, handler in self._routes:
            parts = _fit(pattern, place) if method == request.method else None
            if parts is not None:
                try:
                    return handler(Call(request, parts))
                except RefusedError as refused:
                    return refused.reply
        return self.lost(request)


def _fit(pattern: list[str], place: list[str]) -> dict[str, str] | None:
    """The named parts of an address that fits a pattern."""
    if len(pattern) != len(place):
        return None
    named = {name: unquote(part) for name, part in zip(pattern, place, strict=True) if name.startswith("{")}
    if any(name != part for name, part in zip(pattern, place, strict=True) if name not in named):
        return None
    return {name.strip("{}"): part for name, part in named.items()}
