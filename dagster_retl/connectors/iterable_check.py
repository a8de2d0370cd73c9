"""Whom a key reaches, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from dagster_retl.connectors.base import Exchange, Request
from dagster_retl.connectors.iterable_config import HOSTS, IterableConfig
from dagster_retl.connectors.iterable_reading import Check
from dagster_retl.connectors.iterable_requests import get, send
from dagster_retl.connectors.iterable_results import read_object, unreadable
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Account

_CHANNELS = "/api/channels"
_SERVER_SIDE = "Create a server-side key in Iterable under Integrations > API keys."


def find_account(config: IterableConfig, check: Check) -> Exchange[Account]:
    """The project, known by its oldest message channel: Iterable does not tell a project's own id.

    Raises `DestinationError` saying what is wrong with the key. That it may write is tried with no user.
    """
    response = yield get(_CHANNELS)
    try:
        channels = _channels(check(response))
        check(_as_allowed((yield send("POST", "/api/users/bulkUpdate", {"users": []}))))
    except DestinationError as error:
        if error.code is ErrorCode.AUTH and config.other_region:
            yield from _require_no_other(config)
        raise _explained(error) from error
    oldest = min(channels, key=lambda each: int(each["id"]))
    place = "" if config.other_region is None else f" ({config.region.upper()})"
    return Account(str(oldest["id"]), f"project with channel {oldest.get('name', '')!r}{place}")


def _channels(response: httpx.Response) -> list[Mapping[str, str]]:
    channels = read_object(response).get("channels")
    if not isinstance(channels, list) or not channels:
        raise unreadable("no message channels")
    return channels


def _as_allowed(response: httpx.Response) -> httpx.Response:
    """A request without users may be refused for that; then the key was good enough."""
    return httpx.Response(200) if response.status_code == 400 else response


def _require_no_other(config: IterableConfig) -> Exchange[None]:
    """Raise `DestinationError` (`CONFIGURATION`) where the key is one of the other data center."""
    other = config.other_region or "us"
    response = yield Request("GET", f"{HOSTS[other]}{_CHANNELS}", {"Accept": "application/json"})
    if response.is_success:
        raise DestinationError(
            f"this key belongs to a project in the data center {other!r}, not {config.region!r}",
            code=ErrorCode.CONFIGURATION,
            hint=f"Set `region: {other}`.",
        )


def _explained(error: DestinationError) -> DestinationError:
    if error.code not in (ErrorCode.AUTH, ErrorCode.PERMISSION):
        return error
    if "jwt" in f"{error.vendor_code} {error.message}".lower() or error.vendor_code == "BadAuthorizationHeader":
        why = "the key wants a JWT with each request: it is one for apps and browsers"
    elif error.code is ErrorCode.PERMISSION:
        why = "the key may not do what a sync needs: it is read-only, or one for apps and browsers"
    else:
        why = "Iterable does not know the key, or the key is one for apps and browsers"
    message = f"{why}: {error.message}"
    return DestinationError(message, code=error.code, vendor_code=error.vendor_code, hint=_SERVER_SIDE)
