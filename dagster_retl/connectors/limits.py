"""What answers say about rate limits: how many requests are left, until when, and how many there are in a window.

    RateLimit: "default";r=50;t=30             with RateLimit-Policy: "default";q=100;w=10
    RateLimit: limit=100, remaining=50, reset=5                                  (an earlier draft)
    RateLimit-Limit: 100, 100;w=60  RateLimit-Remaining: 50  RateLimit-Reset: 5  (a yet earlier one)
    X-RateLimit-Limit, -Remaining, -Reset; X-Rate-Limit, X-Rate-Limit-Remaining, -Reset
    X-HubSpot-RateLimit-Max, -Remaining, -Interval-Milliseconds

https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
https://developers.hubspot.com/docs/guides/apps/api-usage/usage-details
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit as an answer describes it.

    remaining: requests that are left; None: it does not say. reset: seconds from the answer until there
    are more. limit, window: that many requests in that many seconds.
    """

    remaining: int | None = None
    reset: float | None = None
    limit: int | None = None
    window: float | None = None

    @property
    def rate(self) -> float | None:
        """Requests a second, where limit and window are known."""
        return self.limit / self.window if self.limit and self.window else None


def retry_after(header: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds to wait, from a `Retry-After` of seconds or of a date; None where it says nothing.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if header is None:
        return None
    seconds = _number(header)
    if seconds is not None:
        return seconds
    at = _date(header)
    return None if at is None else max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def limits_of(headers: httpx.Headers, *, now: float | None = None) -> LimitState | None:
    """The limit that an answer says is closest to being reached; None where it speaks of none.

    now: seconds since 1970, for a reset that is a moment. The answer's own `Date` goes before it: what
    counts is how far the two lie apart by the server's clock.
    """
    if not any(b"limit" in name.lower() for name, _ in headers.raw):
        return None
    states = [*_standard(headers), *_triple(headers, _clock(headers, now)), *_hubspot(headers)]
    return min(states, key=_urgency, default=None)


def _urgency(state: LimitState) -> tuple[float, float]:
    """The fewer are left, and the longer nothing comes, the closer it is."""
    return (float("inf") if state.remaining is None else state.remaining, -(state.reset or 0.0))


def _clock(headers: httpx.Headers, now: float | None) -> float:
    date = _date(headers.get("Date", ""))
    return date.timestamp() if date is not None else now if now is not None else time.time()


# RateLimit and RateLimit-Policy

_PAIR = re.compile(r"\b(limit|remaining|reset)\s*=\s*(\d+)")


def _split(text: str, at: str) -> list[str]:
    """Parts between separators that stand outside of quotation marks, without the space around them."""
    return [part.strip() for part in re.findall(rf'(?:[^{at}"]|"[^"]*")+', text)]


def _items(field: str | None) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The members of a structured list of items, as (name, parameters).

    https://www.rfc-editor.org/rfc/rfc9651#section-3.1
    """
    for member in _split(field or "", ","):
        name, *parameters = _split(member, ";") or [""]
        pairs = (parameter.partition("=") for parameter in parameters)
        yield name.strip('"'), {key: value.strip('"') for key, _, value in pairs}


def _standard(headers: httpx.Headers) -> Iterator[LimitState]:
    field = headers.get("RateLimit")
    policies = dict(_items(headers.get("RateLimit-Policy")))
    if field and (pairs := dict(_PAIR.findall(field))):
        windows = [_number(policy.get("w")) for policy in policies.values()]
        window = windows[0] if len(windows) == 1 else None
        remaining, limit = _whole(pairs.get("remaining")), _whole(pairs.get("limit"))
        yield LimitState(remaining, _number(pairs.get("reset")), limit, window)
        return
    for name, left in _items(field):
        policy = policies.get(name, {})
        remaining = _whole(left.get("r"))
        if remaining is not None and policy.get("qu", "requests") == "requests":
            yield LimitState(remaining, _number(left.get("t")), _whole(policy.get("q")), _number(policy.get("w")))


# RateLimit-*, X-RateLimit-*, X-Rate-Limit-*

_FAMILIES = ("RateLimit", "X-RateLimit", "X-Rate-Limit")
_LONGEST_DELTA = 1e9
"""A reset above this is a moment, in seconds since 1970; far above it, in milliseconds."""


def _triple(headers: httpx.Headers, now: float) -> Iterator[LimitState]:
    for family in _FAMILIES:
        remaining = _whole(headers.get(f"{family}-Remaining"))
        if remaining is None:
            continue
        limit = headers.get(f"{family}-Limit") or (headers.get(family) if family == "X-Rate-Limit" else None)
        yield LimitState(remaining, _reset(headers.get(f"{family}-Reset"), now), *_quota(limit))


def _reset(text: str | None, now: float) -> float | None:
    at = _number(text)
    if at is None or at < _LONGEST_DELTA:
        return at
    return max(0.0, (at / 1000 if at > 1000 * _LONGEST_DELTA else at) - now)


def _quota(text: str | None) -> tuple[int | None, float | None]:
    """Limit and window: `100`, or `100, 100;w=60` with one policy for that limit."""
    quotas = [part.strip() for part in (text or "").split(",")]
    limit = _whole(quotas[0].partition(";")[0])
    windows = [_number(match[1]) for part in quotas if (match := re.fullmatch(rf"{limit}\s*;.*?\bw=(\d+).*", part))]
    return limit, windows[0] if len(windows) == 1 else None


# HubSpot


def _hubspot(headers: httpx.Headers) -> Iterator[LimitState]:
    """Of its window it says how long it is, not when it ends: at worst, that long from now.

    What it says of single seconds is no longer enforced, and a day's rest is no reason to wait.
    """
    prefix = "X-HubSpot-RateLimit"
    remaining = _whole(headers.get(f"{prefix}-Remaining"))
    if remaining is not None:
        window = (_number(headers.get(f"{prefix}-Interval-Milliseconds")) or 10_000.0) / 1000
        yield LimitState(remaining, window, _whole(headers.get(f"{prefix}-Max")), window)


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _number(text: str | None) -> float | None:
    """A number as headers write it, 0 for less; None for other text, `inf` and `nan` among it."""
    return max(0.0, float(text)) if text and re.fullmatch(r"\s*-?\d{1,15}(\.\d*)?\s*", text) else None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)
