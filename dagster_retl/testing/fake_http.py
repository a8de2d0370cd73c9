"""A stateful in-house HTTP service for tests: it keeps records, and enforces its rules.

POST | PUT | PATCH /v1/{object}          rows as an array, an object, ndjson or {"records": […]}
PUT | PATCH | DELETE /v1/{object}/{key}  one record
POST /v1/{object}/delete                 keys, in the same bodies
GET /v1/ping                             204 for those who may come in
POST /oauth/token                        client credentials
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, unquote_plus

from dagster_retl.testing.server import LoopbackServer, Received, Reply

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the service insists on.

    key: the field that identifies a record. token: the bearer token that it accepts, besides those
    it hands out to `client` (id and secret). signing_secret: HMAC-SHA256 of the body in
    `X-Signature`. idempotency_header: a request that repeats its value gets the first answer again
    and changes nothing. rate: requests a second, with `burst`; more get 429 and `Retry-After`.
    refuse: why a record is not accepted (None: it is). refusals: `partial` takes the good rows
    and lists the others in a `partial_status` answer, by index and key; `whole` answers 400 and takes none.
    operations: what a method does.
    """

    key: str = "id"
    token: str | None = None
    client: tuple[str, str] | None = None
    signing_secret: str | None = None
    idempotency_header: str | None = None
    rate: float | None = None
    burst: int = 1
    refuse: Callable[[Record], str | None] = lambda record: None
    refusals: Literal["partial", "whole"] = "partial"
    partial_status: int = 200
    max_rows: int = 1000
    max_bytes: int = 5_000_000
    operations: Mapping[str, str] = field(
        default_factory=lambda: {"POST": "upsert", "PUT": "upsert", "PATCH": "update"}
    )


@dataclass(frozen=True, slots=True)
class Applied:
    """One change that the service made. `record` is what was sent; `at` is `time.monotonic()`."""

    object_name: str
    key: str
    operation: str
    record: Record
    at: float


@dataclass(frozen=True, slots=True)
class _Refusal:
    code: str
    message: str
    status: int = 422


class FakeHttpService(LoopbackServer):
    """See the module. `records` is object → key (as text) → record; `applied` all changes, in order."""

    def __init__(self, rules: Rules | None = None, *, latency: float = 0.0, record: bool = True) -> None:
        super().__init__(latency=latency, record=record)
        self.rules = rules or Rules()
        self.records: dict[str, dict[str, Record]] = {}
        self.applied: list[Applied] = []
        self.refused_by_rate = 0
        self._state = threading.Lock()
        self._tokens: set[str] = set()
        self._answers: dict[str, tuple[str, Reply]] = {}
        self._allowance = float(self.rules.burst)
        self._counted_at = time.monotonic()

    def applications(self) -> Counter[tuple[str, str]]:
        """How often each (object, key) was changed."""
        return Counter((change.object_name, change.key) for change in self.applied)

    def revoke_tokens(self) -> None:
        """Let all tokens that were handed out expire at once."""
        with self._state:
            self._tokens.clear()

    def handle(self, request: Received) -> Reply:
        with self._state:
            if request.path == "/oauth/token":
                return self._hand_out_token(request)
            return self._objection(request) or self._once(request)

    def _objection(self, request: Received) -> Reply | None:
        if self._over_rate():
            self.refused_by_rate += 1
            wait = (1 - self._allowance) / (self.rules.rate or 1)
            return _error(429, "RATE_LIMITED", "slow down", {"Retry-After": f"{wait:.3f}"})
        if not self._authorised(request):
            return _error(401, "UNAUTHORIZED", "missing or unknown token")
        if not self._signed(request):
            return _error(401, "BAD_SIGNATURE", "the signature does not match the body")
        if len(request.body) > self.rules.max_bytes:
            return _error(413, "TOO_LARGE", f"at most {self.rules.max_bytes} bytes")
        return None

    def _over_rate(self) -> bool:
        if self.rules.rate is None:
            return False
        now = time.monotonic()
        self._allowance = min(float(self.rules.burst), self._allowance + (now - self._counted_at) * self.rules.rate)
        self._counted_at = now
        if self._allowance < 1:
            return True
        self._allowance -= 1
        return False

    def _authorised(self, request: Received) -> bool:
        if self.rules.token is None and self.rules.client is None:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and (token in self._tokens or token == self.rules.token)

    def _signed(self, request: Received) -> bool:
        if self.rules.signing_secret is None:
            return True
        expected = hmac.new(self.rules.signing_secret.encode(), request.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, request.headers.get("x-signature", ""))

    def _hand_out_token(self, request: Received) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            given = tuple(unquote_plus(part) for part in base64.b64decode(encoded).decode().split(":", 1))
        else:
            given = (form.get("client_id", ""), form.get("client_secret", ""))
        if given != self.rules.client or form.get("grant_type") != "client_credentials":
            return Reply.json({"error": "invalid_client"}, 401)
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        return Reply.json({"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _once(self, request: Received) -> Reply:
        """Answer as before where the request repeats an idempotency key."""
        name = self.rules.idempotency_header
        key = request.headers.get(name.lower()) if name else None
        if key is None:
            return self._route(request)
        digest = hashlib.sha256(request.path.encode() + b"\n" + request.body).hexdigest()
        if key in self._answers:
            first, reply = self._answers[key]
            return reply if first == digest else _error(422, "IDEMPOTENCY_MISMATCH", "this key came with another body")
        reply = self._route(request)
        self._answers[key] = (digest, reply)
        return reply

    def _route(self, request: Received) -> Reply:
        match [unquote(part) for part in request.path.split("/")]:
            case ["", "v1", "ping"] if request.method == "GET":
                return Reply(204)
            case ["", "v1", name, "delete"] if request.method == "POST":
                return self._take_rows(request, name, "delete")
            case ["", "v1", name, key] if request.method == "DELETE":
                refusal = self._apply(name, "delete", {self.rules.key: key})
                return _refused(refusal) if refusal else Reply(204)
            case ["", "v1", name, key] if request.method in self.rules.operations:
                return self._take_rows(request, name, self.rules.operations[request.method], key)
            case ["", "v1", name] if request.method in self.rules.operations:
                return self._take_rows(request, name, self.rules.operations[request.method])
        return _error(404, "NO_SUCH_ENDPOINT", f"{request.method} {request.path}")

    def _take_rows(self, request: Received, name: str, operation: str, key: str | None = None) -> Reply:
        try:
            rows, many = _rows_of(request)
        except ValueError:
            return _error(400, "BAD_JSON", "the body is not JSON")
        if len(rows) > self.rules.max_rows:
            return _error(413, "TOO_MANY_ROWS", f"at most {self.rules.max_rows} rows")
        if key is not None and any(str(row.get(self.rules.key)) != key for row in rows):
            return _error(422, "WRONG_KEY", "the address names another record than the body")
        return self._take_many(name, operation, rows) if many else self._take_one(name, operation, rows[0])

    def _take_one(self, name: str, operation: str, row: Any) -> Reply:
        refusal = self._apply(name, operation, row)
        return _refused(refusal) if refusal else Reply.json({"id": f"rec_{row[self.rules.key]}"})

    def _take_many(self, name: str, operation: str, rows: list[Any]) -> Reply:
        if self.rules.refusals == "whole":
            refusal = next(filter(None, (self._check(name, operation, row) for row in rows)), None)
            if refusal:
                return _error(400, refusal.code, refusal.message)
        errors = []
        taken = []
        for index, row in enumerate(rows):
            key = row.get(self.rules.key) if isinstance(row, dict) else None
            refusal = self._apply(name, operation, row)
            if refusal:
                errors.append({"index": index, "id": key, "code": refusal.code, "message": refusal.message})
            else:
                taken.append({"index": index, "record_id": f"rec_{key}"})
        return Reply.json({"records": taken, "errors": errors}, self.rules.partial_status if errors else 200)

    def _check(self, name: str, operation: str, row: Any) -> _Refusal | None:
        if not isinstance(row, dict) or row.get(self.rules.key) in (None, ""):
            return _Refusal("MISSING_ID", f"a record needs {self.rules.key}")
        exists = str(row[self.rules.key]) in self.records.get(name, {})
        if operation in ("update", "delete") and not exists:
            return _Refusal("NOT_FOUND", "there is no such record", 404)
        if operation == "insert" and exists:
            return _Refusal("DUPLICATE", "the record exists", 409)
        reason = None if operation == "delete" else self.rules.refuse(row)
        return _Refusal("INVALID", reason) if reason else None

    def _apply(self, name: str, operation: str, row: Any) -> _Refusal | None:
        refusal = self._check(name, operation, row)
        if refusal:
            return refusal
        key = str(row[self.rules.key])
        stored = self.records.setdefault(name, {})
        if operation == "delete":
            del stored[key]
        else:
            stored[key] = {**stored.get(key, {}), **row}
        self.applied.append(Applied(name, key, operation, row, time.monotonic()))
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


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply.json({"error": {"code": code, "message": message}}, status, headers)


def _refused(refusal: _Refusal) -> Reply:
    return _error(refusal.status, refusal.code, refusal.message)
