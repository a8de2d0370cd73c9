"""What HTTP statuses mean for a whole request, where the vendor says nothing better."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from dagster_retl.errors import DestinationError, ErrorCode

_STATUS_CODES: Mapping[int, ErrorCode] = {
    401: ErrorCode.AUTH,
    402: ErrorCode.QUOTA_EXHAUSTED,
    403: ErrorCode.PERMISSION,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.CONFIGURATION,
    407: ErrorCode.CONFIGURATION,
    408: ErrorCode.TIMEOUT,
    409: ErrorCode.CONFLICT,
    410: ErrorCode.NOT_FOUND,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    415: ErrorCode.CONFIGURATION,
    423: ErrorCode.DESTINATION_LOCKED,
    425: ErrorCode.DESTINATION_UNAVAILABLE,
    429: ErrorCode.RATE_LIMIT,
}


def code_of_status(status: int) -> ErrorCode:
    """What an HTTP status other than success means for a whole request, where the vendor says nothing better."""
    if status >= 500:
        return ErrorCode.DESTINATION_UNAVAILABLE
    if status < 400:  # a redirect: somebody has to say where the destination is
        return ErrorCode.CONFIGURATION
    return _STATUS_CODES.get(status, ErrorCode.BATCH_REJECTED)


def refused_redirect(response: httpx.Response) -> DestinationError:
    """The error that a redirect is."""
    try:
        location = httpx.URL(response.headers.get("Location", ""))
        target = location.host or location.path or "an address that it does not name"
    except httpx.InvalidURL:
        target = "an address that cannot be read"
    return DestinationError(
        f"the destination redirects ({response.status_code}) to {target}; redirects are not followed, so that "
        "credentials and rows stay with the configured host",
        code=ErrorCode.CONFIGURATION,
        hint="Configure the final address, if it is the right one.",
    )
