"""The usual faults of services and networks, ready-made, and by name (`CATALOGUE`).

    server.disturb(faults.unavailable(applied=True), times=2)      # any LoopbackServer
    server.script("reset_after", faults.latency(0.2), "ok")         # a FaultServer

Where a fault says `applied`, the service does what the request asks and then fails to say so. The
ones that change a service's rules (`OtherRules`) need a `FakeHttpService`.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from dagster_retl.testing.fake_rules import OtherRules, Record, Refusal, Rules
from dagster_retl.testing.messages import Reply, RetryAfter, retry_after
from dagster_retl.testing.trouble import Trouble

_HTML = b"<!doctype html><html><head><title>Gateway</title></head><body>Please try again.</body></html>"
_HTML_HEADERS = {"Content-Type": "text/html; charset=utf-8"}


def half(record: Record) -> bool:
    """Whether a record is in one half of all records, which depends on its content alone."""
    return zlib.crc32(json.dumps(record, default=str, sort_keys=True).encode()) % 2 == 1


def ok() -> Trouble:
    """Nothing: a request in a script that goes well."""
    return Trouble()


def latency(seconds: float = 0.05) -> Trouble:
    """The answer takes so long."""
    return Trouble(delay=seconds)


def rate_limited(seconds: float = 0.0, form: RetryAfter = "seconds") -> Trouble:
    """429: come back in so many seconds."""
    return Trouble(status=429, headers=retry_after(seconds, form))


def error(status: int = 500, *, applied: bool = False) -> Trouble:
    """A bare status of failure."""
    return Trouble(status=status, apply=applied)


def unavailable(seconds: float | None = 0.0, *, applied: bool = False) -> Trouble:
    """503, with a `Retry-After` of so many seconds, or without one."""
    headers = retry_after(seconds or 0.0, None if seconds is None else "seconds")
    return Trouble(status=503, headers=headers, apply=applied)


def reset(*, applied: bool = False) -> Trouble:
    """The connection breaks instead of an answer."""
    return Trouble(reset="after" if applied else "before")


def hang(*, applied: bool = False) -> Trouble:
    """No answer: the connection stays open until the client gives up."""
    return Trouble(delay=math.inf, apply=applied)


def late(later_requests: float = math.inf) -> Trouble:
    """No answer until the client gives up; applied after so many later requests, or when the server is told to."""
    return Trouble(delay=math.inf, late=later_requests)


def late_unavailable(later_requests: float = math.inf, seconds: float | None = 0.0) -> Trouble:
    """503, and applied all the same: after so many later requests, or when the server is told to."""
    return replace(unavailable(seconds), late=later_requests)


def truncated() -> Trouble:
    """Half of the answer, and the end of the connection. Applied."""
    return Trouble(truncate=True)


def invalid_json() -> Trouble:
    """200 with a body that says it is JSON and breaks off. Applied."""
    return Trouble(body=b'{"results": [{"index": 0, "sta')


def html(status: int | None = 502, *, applied: bool = False) -> Trouble:
    """A page of HTML, as gateways and login walls answer; None: with the status of the service's own answer."""
    return Trouble(status=status, body=_HTML, headers=_HTML_HEADERS, apply=applied)


def drip(seconds: float = 0.001) -> Trouble:
    """The body of the answer comes byte by byte, so many seconds apart. Applied."""
    return Trouble(drip=seconds)


def expired_token() -> Trouble:
    """401: the token is good no more."""
    return Trouble(status=401)


def too_many_rows(most: int = 1) -> OtherRules:
    """413 for a request of more rows."""
    return OtherRules(rules=lambda rules: replace(rules, max_rows=most))


def too_large(most: int = 1_000) -> OtherRules:
    """413 for a request of more bytes."""
    return OtherRules(rules=lambda rules: replace(rules, max_bytes=most))


def batch_refused(where: Callable[[Record], bool] = half, message: str = "not today") -> OtherRules:
    """400 for the whole request where it holds such a row."""
    return OtherRules(rules=lambda rules: replace(_refusing(rules, where, "INVALID", message), refusals="whole"))


def row_errors(
    where: Callable[[Record], bool] = half, *, code: str = "INVALID", message: str = "not today", status: int = 200
) -> OtherRules:
    """An error for each such row, and an answer of that status (200 or 207); the other rows are applied."""

    def rules(usual: Rules) -> Rules:
        return replace(_refusing(usual, where, code, message), refusals="partial", partial_status=status)

    return OtherRules(rules=rules)


def _refusing(rules: Rules, where: Callable[[Record], bool], code: str, message: str) -> Rules:
    def refuse(record: Record) -> str | Refusal | None:
        return Refusal(code, message) if where(record) else rules.refuse(record)

    return replace(rules, refuse=refuse)


def reordered() -> Trouble:
    """Every list of the answer is reversed. Applied."""
    return Trouble(rewrite=partial(_with_lists, lambda items: items[::-1]))


def missing_answers(path: str = "results", keep: Callable[[int], bool] = lambda index: index % 2 == 0) -> Trouble:
    """The list at `path` lacks some entries: those that `keep` does not keep, by number from 0. Applied."""

    def shorter(items: list[Any]) -> list[Any]:
        return [item for index, item in enumerate(items) if keep(index)]

    return Trouble(rewrite=partial(_with_lists, shorter, only=path))


def _with_lists(change: Callable[[list[Any]], list[Any]], reply: Reply, *, only: str | None = None) -> Reply:
    """The answer with its lists (or the one of that name) changed; an answer that is one list is that."""
    body = json.loads(reply.body or b"null")
    if isinstance(body, list):
        body = change(body)
    elif isinstance(body, dict):
        chosen = {name: v for name, v in body.items() if isinstance(v, list) and only in (None, name)}
        body |= {name: change(items) for name, items in chosen.items()}
    return replace(reply, body=json.dumps(body).encode())


CATALOGUE: Mapping[str, Callable[[], Trouble]] = {
    "ok": ok,
    "latency": latency,
    "rate_limited": rate_limited,
    "rate_limited_date": partial(rate_limited, form="date"),
    "error_500": error,
    "error_500_applied": partial(error, applied=True),
    "unavailable": unavailable,
    "unavailable_applied": partial(unavailable, applied=True),
    "reset_before": reset,
    "reset_after": partial(reset, applied=True),
    "hang": hang,
    "hang_applied": partial(hang, applied=True),
    "late": late,
    "late_unavailable": late_unavailable,
    "truncated": truncated,
    "invalid_json": invalid_json,
    "html_502": html,
    "html_200": partial(html, None, applied=True),
    "drip": drip,
    "expired_token": expired_token,
    "too_many_rows": too_many_rows,
    "too_large": too_large,
    "batch_refused": batch_refused,
    "row_errors": row_errors,
    "row_errors_207": partial(row_errors, status=207),
    "reordered": reordered,
    "missing_answers": missing_answers,
}
"""Faults by name, with their usual settings."""


def named(name: str) -> Trouble:
    """A fault of the catalogue. Raises `KeyError` with all names for one that it does not have."""
    if name not in CATALOGUE:
        raise KeyError(f"no fault is called {name!r}; there are {', '.join(CATALOGUE)}")
    return replace(CATALOGUE[name](), name=name)
