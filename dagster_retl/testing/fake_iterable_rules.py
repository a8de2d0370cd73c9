"""What a fake Iterable insists on, and the words in which it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dagster_retl.testing.fake_api import RefusedError
from dagster_retl.testing.messages import Received, Reply

KeyKind = Literal["server", "read-only", "mobile", "jwt"]


@dataclass(frozen=True, slots=True)
class IterableRules:
    """What the project insists on.

    keys: API keys and what each may do. identity: how the project knows its users. accepts_new_fields: what becomes
    of unknown fields where a request does not say. mismatches: whether a value of another type than its field has
    refuses the user in a bulk update, or the whole request. max_bytes: of a body. rates: requests a second by path.
    disallowed_events: names of events that are not taken. vague: failures are counted, and nobody is named.
    """

    keys: Mapping[str, KeyKind] = field(default_factory=dict)
    identity: Literal["email", "userId", "hybrid"] = "email"
    accepts_new_fields: bool = False
    mismatches: Literal["row", "request"] = "row"
    max_bytes: int = 4_000_000
    rates: Mapping[str, float] = field(default_factory=dict)
    disallowed_events: frozenset[str] = frozenset()
    vague: bool = False


_FOR_APPS = (
    "/api/users/disableDevice",
    "/api/users/registerDeviceToken",
    "/api/users/update",
    "/api/users/updateEmail",
    "/api/users/updateSubscriptions",
    "/api/events/track",
)
"""What keys of apps may call: https://support.iterable.com/hc/articles/360043464871."""


def answer(code: str, message: str = "", status: int = 200, params: Any = None) -> Reply:
    """An answer in the form of most endpoints."""
    return Reply.json({"msg": message, "code": code, "params": params}, status)


def refused(code: str, message: str, status: int = 400, params: Any = None) -> RefusedError:
    """What a handler raises to refuse a request."""
    return RefusedError(answer(code, message, status, params))


def mismatch(types: Mapping[str, tuple[Any, str, str]], category: str) -> RefusedError:
    """How a value of another type than its field has is refused."""
    errors = {
        name: {"incomingTypes": [kind], "expectedType": expected, "offendingValue": value, "category": category}
        for name, (value, kind, expected) in types.items()
    }
    name, (_, kind, expected) = next(iter(types.items()))
    message = f"Field '{name}' has the data type '{expected}', and the request has '{kind}'"
    return refused("RequestFieldsTypesMismatched", message, params={"validationErrors": errors})


def objection_to_key(rules: IterableRules, request: Received) -> Reply | None:
    """Why a request's key does not open this door."""
    kind = rules.keys.get(request.headers.get("api-key", ""))
    if kind is None:
        return answer("BadApiKey", "Invalid API key", 401)
    if kind == "jwt":
        return answer("InvalidJwtPayload", "This key requires a JWT in the Authorization header", 401)
    if kind == "read-only" and request.method != "GET":
        return answer("Forbidden", "This key is read-only", 403)
    if kind == "mobile" and request.path not in _FOR_APPS:
        return answer("BadApiKey", "This type of key has no access to the endpoint", 401)
    return None
