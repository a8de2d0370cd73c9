"""What a fake service insists on, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dagster_retl.testing.messages import Received, Reply, RetryAfter
from dagster_retl.testing.trouble import Trouble

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row was not taken, or a request."""

    code: str
    message: str
    status: int = 422

    def reply(self, headers: Mapping[str, str] | None = None) -> Reply:
        """The answer to a request that was refused for it."""
        return Reply.json({"error": {"code": self.code, "message": self.message}}, self.status, headers)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the service insists on.

    key: the field that identifies a record. operations: what a method does.

    Who comes in. token: the bearer token that it accepts, besides those it hands out to `client`
    (id and secret), each of which is good for `token_requests`. signing_secret: HMAC-SHA256 of the
    body in `X-Signature`.

    How often. rate: requests a second, with `burst`; more get 429 and a `Retry-After` in the form
    of `retry_after`. rate_headers: what each answer says of it: `x` has `X-RateLimit-Limit`,
    `-Remaining` and `-Reset` (seconds since 1970), `ietf-6` and `ietf-10` have the fields of these
    drafts: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/.

    What is taken. max_rows, max_bytes: more get 413. refuse: why a record is not accepted, as a
    message or a `Refusal`; None where it is. refusals: `partial` takes the good rows, and its
    answer, of status `partial_status`, says which it did not take; `whole` answers 400 and takes
    none. idempotency_header: a request that repeats its value gets the first answer again and
    changes nothing; refusals are forgotten unless `remembers_refusals`.

    answers: how the answer to many rows names them. `errors` lists those that were refused by index
    and key, and the others by index; the other forms have an entry for each row, in the order in
    which they came, which names it by `index`, by `key`, or by its `position` alone.
    """

    key: str = "id"
    operations: Mapping[str, str] = field(
        default_factory=lambda: {"POST": "upsert", "PUT": "upsert", "PATCH": "update"}
    )
    token: str | None = None
    client: tuple[str, str] | None = None
    token_requests: int | None = None
    signing_secret: str | None = None
    rate: float | None = None
    burst: int = 1
    retry_after: RetryAfter | None = "decimal"
    rate_headers: Literal["x", "ietf-6", "ietf-10"] | None = None
    max_rows: int = 1000
    max_bytes: int = 5_000_000
    refuse: Callable[[Record], str | Refusal | None] = lambda record: None
    refusals: Literal["partial", "whole"] = "partial"
    partial_status: int = 200
    idempotency_header: str | None = None
    remembers_refusals: bool = True
    answers: Literal["errors", "index", "key", "position"] = "errors"


@dataclass(frozen=True, slots=True)
class OtherRules(Trouble):
    """A request meets other rules than usual. rules: makes them of the usual ones."""

    rules: Callable[[Rules], Rules] = lambda rules: rules


@dataclass(frozen=True, slots=True)
class Applied:
    """One change that the service made. `record` is what was sent; `at` is `time.monotonic()`."""

    object_name: str
    key: str
    operation: str
    record: Record
    at: float
    request: Received


Verdict = tuple[Any, Refusal | None]
"""The key of a row as it came, and why it was refused."""


def answer_to_many(verdicts: Sequence[Verdict], rules: Rules) -> Reply:
    """What became of each row, in the form of `rules.answers`."""
    refused = any(refusal for _, refusal in verdicts)
    entries = [_entry(index, key, refusal) for index, (key, refusal) in enumerate(verdicts)]
    if rules.answers == "errors":
        body = {
            "records": [_only(entry, "index", "record_id") for entry in entries if "code" not in entry],
            "errors": [_only(entry, "index", "id", "code", "message") for entry in entries if "code" in entry],
        }
    else:
        name = {"index": "index", "key": "id"}.get(rules.answers, "")
        body = {"results": [_only(entry, name, "status", "record_id", "code", "message") for entry in entries]}
    return Reply.json(body, rules.partial_status if refused else 200)


def _entry(index: int, key: Any, refusal: Refusal | None) -> Mapping[str, Any]:
    named = {"index": index, "id": key}
    if refusal is None:
        return {**named, "status": "ok", "record_id": f"rec_{key}"}
    return {**named, "status": "error", "code": refusal.code, "message": refusal.message}


def _only(entry: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name in names}
