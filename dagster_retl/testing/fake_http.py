"""A stateful in-house HTTP service for tests: it keeps records, and enforces its rules.

POST | PUT | PATCH /v1/{object}          rows as an array, an object, ndjson or {"records": […]}
PUT | PATCH | DELETE /v1/{object}/{key}  one record
POST /v1/{object}/delete                 keys, in the same bodies
GET /v1/ping                             204 for those who may come in
POST /oauth/token                        client credentials
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from dagster_retl.testing.fake_access import Access
from dagster_retl.testing.fake_rules import Applied, OtherRules, Record, Refusal, Rules, Verdict, answer_to_many
from dagster_retl.testing.server import LoopbackServer, Received, Reply, Trouble

__all__ = ["Applied", "FakeHttpService", "OtherRules", "Record", "Refusal", "Rules"]


@dataclass(frozen=True, slots=True)
class _Write:
    """What a request asks for."""

    object_name: str
    operation: str
    request: Received


class FakeHttpService(LoopbackServer):
    """See the module. `records` is object → key (as text) → record; `applied` all changes, in order."""

    def __init__(self, rules: Rules | None = None, *, latency: float = 0.0, record: bool = True, port: int = 0) -> None:
        super().__init__(latency=latency, record=record, port=port)
        self.rules = rules or Rules()
        self.records: dict[str, dict[str, Record]] = {}
        self.applied: list[Applied] = []
        self._state = threading.RLock()
        self._access = Access(self.rules)
        self._answers: dict[str, tuple[str, Reply]] = {}

    @property
    def refused_by_rate(self) -> int:
        """How many requests came too early."""
        return self._access.refused_by_rate

    def applications(self) -> Counter[tuple[str, str]]:
        """How often each (object, key) was changed."""
        return Counter((change.object_name, change.key) for change in self.applied)

    def revoke_tokens(self) -> None:
        """Let all tokens that were handed out expire at once."""
        with self._state:
            self._access.revoke_tokens()

    def handle(self, request: Received) -> Reply:
        with self._state:
            if request.path == "/oauth/token":
                return self._access.hand_out_token(self.rules, request)
            reply = self._access.objection(self.rules, request) or self._once(request)
            limits = self._access.limits(self.rules)
            return replace(reply, headers={**reply.headers, **limits}) if limits else reply

    def handle_in_trouble(self, request: Received, trouble: Trouble) -> Reply:
        if not isinstance(trouble, OtherRules):
            return self.handle(request)
        with self._state:
            usual, self.rules = self.rules, trouble.rules(self.rules)
            try:
                return self.handle(request)
            finally:
                self.rules = usual

    def postpone(self, request: Received) -> Callable[[], object] | None:
        """It came in when it arrived; when it is applied, its token and its turn are no question any more."""

        def apply() -> Reply:
            with self._state:
                return self._once(request)

        with self._state:
            return None if self._access.objection(self.rules, request) else apply

    def _once(self, request: Received) -> Reply:
        """Answer as before where the request repeats an idempotency key."""
        name = self.rules.idempotency_header
        key = request.headers.get(name.lower()) if name else None
        if key is None:
            return self._route(request)
        digest = hashlib.sha256(request.path.encode() + b"\n" + request.body).hexdigest()
        if key in self._answers:
            first, reply = self._answers[key]
            mismatch = Refusal("IDEMPOTENCY_MISMATCH", "this key came with another body")
            return reply if first == digest else mismatch.reply()
        reply = self._route(request)
        if reply.status < 400 or self.rules.remembers_refusals:
            self._answers[key] = (digest, reply)
        return reply

    def _route(self, request: Received) -> Reply:
        match [unquote(part) for part in request.path.split("/")]:
            case ["", "v1", "ping"] if request.method == "GET":
                return Reply(204)
            case ["", "v1", name, "delete"] if request.method == "POST":
                return self._take_rows(_Write(name, "delete", request))
            case ["", "v1", name, key] if request.method == "DELETE":
                refusal = self._apply(_Write(name, "delete", request), {self.rules.key: key})
                return refusal.reply() if refusal else Reply(204)
            case ["", "v1", name, key] if request.method in self.rules.operations:
                return self._take_rows(_Write(name, self.rules.operations[request.method], request), key)
            case ["", "v1", name] if request.method in self.rules.operations:
                return self._take_rows(_Write(name, self.rules.operations[request.method], request))
        return Refusal("NO_SUCH_ENDPOINT", f"{request.method} {request.path}", 404).reply()

    def _take_rows(self, write: _Write, key: str | None = None) -> Reply:
        try:
            rows, many = _rows_of(write.request)
        except ValueError:
            return Refusal("BAD_JSON", "the body is not JSON", 400).reply()
        if len(rows) > self.rules.max_rows:
            return Refusal("TOO_MANY_ROWS", f"at most {self.rules.max_rows} rows", 413).reply()
        if key is not None and any(str(row.get(self.rules.key)) != key for row in rows):
            return Refusal("WRONG_KEY", "the address names another record than the body").reply()
        return self._take_many(write, rows) if many else self._take_one(write, rows[0])

    def _take_one(self, write: _Write, row: Any) -> Reply:
        refusal = self._apply(write, row)
        return refusal.reply() if refusal else Reply.json({"id": f"rec_{row[self.rules.key]}"})

    def _take_many(self, write: _Write, rows: list[Any]) -> Reply:
        if self.rules.refusals == "whole":
            refusal = next(filter(None, (self._check(write, row) for row in rows)), None)
            if refusal:
                return replace(refusal, status=400).reply()
        verdicts: list[Verdict] = []
        for row in rows:
            key = row.get(self.rules.key) if isinstance(row, dict) else None
            verdicts.append((key, self._apply(write, row)))
        return answer_to_many(verdicts, self.rules)

    def _check(self, write: _Write, row: Any) -> Refusal | None:
        if not isinstance(row, dict) or row.get(self.rules.key) in (None, ""):
            return Refusal("MISSING_ID", f"a record needs {self.rules.key}")
        exists = str(row[self.rules.key]) in self.records.get(write.object_name, {})
        if write.operation in ("update", "delete") and not exists:
            return Refusal("NOT_FOUND", "there is no such record", 404)
        if write.operation == "insert" and exists:
            return Refusal("DUPLICATE", "the record exists", 409)
        reason = None if write.operation == "delete" else self.rules.refuse(row)
        return Refusal("INVALID", reason) if isinstance(reason, str) else reason

    def _apply(self, write: _Write, row: Any) -> Refusal | None:
        refusal = self._check(write, row)
        if refusal:
            return refusal
        key = str(row[self.rules.key])
        stored = self.records.setdefault(write.object_name, {})
        if write.operation == "delete":
            del stored[key]
        else:
            stored[key] = {**stored.get(key, {}), **row}
        self.applied.append(Applied(write.object_name, key, write.operation, row, time.monotonic(), write.request))
        return None


def _rows_of(request: Received) -> tuple[list[Any], bool]:
    """The rows of a body, and whether it could have held several. Numbers keep their digits."""
    if "ndjson" in request.headers.get("content-type", ""):
        return [_exact(line) for line in request.body.splitlines()], True
    body = _exact(request.body)
    if isinstance(body, list):
        return body, True
    if isinstance(body, dict) and isinstance(body.get("records"), list):
        return body["records"], True
    return [body], False


def _exact(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal)
