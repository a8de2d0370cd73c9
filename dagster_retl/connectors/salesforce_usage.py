"""How much of the org's daily API requests is used: every answer says so, and a run stops before they are.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_api_usage.htm
"""

from __future__ import annotations

import re

import httpx

from dagster_retl.connectors.limits import LimitState
from dagster_retl.errors import DestinationError, ErrorCode

_USAGE = re.compile(r"\bapi-usage=(\d+)/(\d+)")


def usage_of(headers: httpx.Headers) -> LimitState | None:
    """What `Sforce-Limit-Info: api-usage=4143/15000` says; it is over 24 hours, and never says when there is more."""
    match = re.search(_USAGE, headers.get("Sforce-Limit-Info", ""))
    if match is None:
        return None
    used, most = int(match[1]), int(match[2])
    return LimitState(remaining=max(0, most - used), limit=most, window=86_400.0)


class Usage:
    """What the last answer said. Shared by all threads: what is kept is replaced as a whole.

    stop_at: share of the requests at which no more rows are sent.
    """

    def __init__(self, stop_at: float) -> None:
        self._stop_at = stop_at
        self._last: LimitState | None = None

    def note(self, response: httpx.Response) -> None:
        """Remember what an answer says."""
        self._last = usage_of(response.headers) or self._last

    def require_room(self) -> None:
        """Raise `DestinationError` (`QUOTA_EXHAUSTED`) once the share is used."""
        state = self._last
        if state is None or not state.limit or state.remaining is None:
            return
        used = state.limit - state.remaining
        if used >= self._stop_at * state.limit:
            raise DestinationError(
                f"the org has used {used:,} of its {state.limit:,} API requests of 24 hours; "
                f"`stop_at_usage` leaves the rest to others from {self._stop_at:.0%} on",
                code=ErrorCode.QUOTA_EXHAUSTED,
                hint="Nothing was lost: a later run sends what this one could not. "
                "Bulk jobs (`api: bulk`) take far fewer requests.",
            )
