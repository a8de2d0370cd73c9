"""What HubSpot says when it refuses: its words, what they mean, and how long it wants to be left alone.

https://developers.hubspot.com/docs/api-reference/error-handling
https://developers.hubspot.com/docs/guides/apps/api-usage/usage-details
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from dagster_retl.connectors.limits import LimitState, limits_of, retry_after
from dagster_retl.connectors.statuses import code_of_status
from dagster_retl.errors import DestinationError, ErrorCode

VENDOR_CODES: Mapping[str, ErrorCode] = {
    "PROPERTY_DOESNT_EXIST": ErrorCode.SCHEMA_DRIFT,
    "READ_ONLY_VALUE": ErrorCode.SCHEMA_DRIFT,
    "MISSING_SCOPES": ErrorCode.PERMISSION,
    "BANNED": ErrorCode.PERMISSION,
    "EXPIRED_AUTHENTICATION": ErrorCode.AUTH,
    "INVALID_AUTHENTICATION": ErrorCode.AUTH,
    "DAILY": ErrorCode.QUOTA_EXHAUSTED,
    "RATE_LIMITS": ErrorCode.RATE_LIMIT,
    "RATE_LIMIT": ErrorCode.RATE_LIMIT,
    "OBJECT_NOT_FOUND": ErrorCode.NOT_FOUND,
    "CONFLICT": ErrorCode.CONFLICT,
    "OBJECT_ALREADY_EXISTS": ErrorCode.CONFLICT,
    "INVALID_INTEGER": ErrorCode.TYPE_COERCION,
    "INVALID_LONG": ErrorCode.TYPE_COERCION,
    "INVALID_NUMBER": ErrorCode.TYPE_COERCION,
    "INVALID_DOUBLE": ErrorCode.TYPE_COERCION,
    "INVALID_DATE": ErrorCode.TYPE_COERCION,
    "INVALID_BOOLEAN": ErrorCode.TYPE_COERCION,
    "INVALID_EMAIL": ErrorCode.DESTINATION_VALIDATION,
    "INVALID_OPTION": ErrorCode.DESTINATION_VALIDATION,
    "VALIDATION_ERROR": ErrorCode.DESTINATION_VALIDATION,
}
"""What HubSpot's own codes (`category`, `policyName`, `error` of a property) mean."""

_ABORTING = (ErrorCode.SCHEMA_DRIFT, ErrorCode.PERMISSION, ErrorCode.AUTH, ErrorCode.QUOTA_EXHAUSTED)
_MISCONFIGURED = re.compile(r"^Unable to (infer object type|perform \S+ by non-unique)", re.IGNORECASE)
_REQUIRED = re.compile(r"required propert(y|ies) (was|were) not set", re.IGNORECASE)
_MOVING = 477
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Complaint:
    """What HubSpot says of a request, or of a row in it. codes: all that are in it, the most telling first."""

    message: str
    codes: tuple[str, ...] = ()

    @property
    def vendor_code(self) -> str | None:
        return self.codes[0] if self.codes else None

    @property
    def of_row(self) -> ErrorCode:
        """What it means for a single row."""
        if _REQUIRED.search(self.message):
            return ErrorCode.MISSING_REQUIRED_FIELD
        if _MISCONFIGURED.search(self.message):
            return ErrorCode.CONFIGURATION
        known = (VENDOR_CODES[code] for code in self.codes if code in VENDOR_CODES)
        return next(known, ErrorCode.DESTINATION_VALIDATION)

    def of_request(self, status: int) -> ErrorCode:
        """What it means for a request of many rows."""
        aborting = next((code for each in self.codes if (code := VENDOR_CODES.get(each)) in _ABORTING), None)
        if status < 500 and (aborting or _MISCONFIGURED.search(self.message)):
            return aborting or ErrorCode.CONFIGURATION
        if status == 429:
            return ErrorCode.QUOTA_EXHAUSTED if seconds_to_wait(self) >= _DAY else ErrorCode.RATE_LIMIT
        if status == 404:  # a path that does not exist must not be taken for a record that does not
            return ErrorCode.NOT_FOUND if "OBJECT_NOT_FOUND" in self.codes else ErrorCode.CONFIGURATION
        if status == 409:
            return ErrorCode.BATCH_REJECTED
        return ErrorCode.DESTINATION_DOWN if status == _MOVING else code_of_status(status)


class HubSpotError(DestinationError):
    """HubSpot refused a request. of_row: what that means where the request held a single row."""

    def __init__(self, response: httpx.Response, complaint: Complaint, message: str) -> None:
        status = response.status_code
        super().__init__(
            message,
            code=complaint.of_request(status),
            vendor_code=complaint.vendor_code,
            ambiguous=status >= 500 or status == 408,
        )
        self.hint = _HINTS.get(self.code)
        self.of_row = ErrorCode.CONFLICT if status == 409 else complaint.of_row


_HINTS = {
    ErrorCode.AUTH: "Check the token: is the app still installed, was the token rotated?",
    ErrorCode.PERMISSION: "Give the app this scope in HubSpot, and install it again.",
    ErrorCode.SCHEMA_DRIFT: "Correct `field_mappings`, or create the property in HubSpot.",
    ErrorCode.CONFIGURATION: "Check `object_name`, `api_version` and the key: "
    "records are addressed by a property with unique values.",
    ErrorCode.QUOTA_EXHAUSTED: "The first run after the account's midnight sends what this one could not.",
}


def complaint_in(response: httpx.Response) -> Complaint:
    """What an error response says; its status line where that cannot be read."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = None
    complaint = complaint_of(body) if isinstance(body, Mapping) else Complaint("")
    status = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    return complaint if complaint.message else Complaint(status, complaint.codes)


def complaint_of(error: Mapping[str, Any]) -> Complaint:
    """An error body, or an entry of the `errors` of an answer.

    Bad property values come as a list of JSON inside the message, as `validationResults`, or as `errors`.
    """
    text = str(error.get("message") or "")
    head, values = _values_in(text)
    details = [*values, *_dicts(error.get("validationResults")), *_dicts(error.get("errors"))]
    codes = [each.get("error") or each.get("code") for each in details]
    codes += [error.get(name) for name in ("policyName", "subCategory", "category", "errorType")]
    own = [code for code in codes if isinstance(code, str) and code]
    telling = sorted(dict.fromkeys(own), key=lambda code: code not in VENDOR_CODES or code == "VALIDATION_ERROR")
    return Complaint(_message(head, details, error.get("context")), tuple(telling))


def _values_in(text: str) -> tuple[str, list[Mapping[str, Any]]]:
    """`Property values were not valid: [{…}]` as what stands before the list, and the list."""
    head, colon, rest = text.partition(": [{")
    if not colon:
        return text, []
    try:
        return head, _dicts(orjson.loads("[{" + rest))
    except orjson.JSONDecodeError:
        return text, []


def _message(head: str, details: Sequence[Mapping[str, Any]], context: Any) -> str:
    parts = dict.fromkeys(filter(None, map(_about_property, details)))
    extra = "; ".join(part for part in parts if part not in head) or ", ".join(_names(context))
    return f"{head.rstrip('.')}: {extra}" if head and extra else head or extra


def _about_property(detail: Mapping[str, Any]) -> str:
    message, name = str(detail.get("message") or ""), detail.get("name")
    return f"{name}: {message}" if isinstance(name, str) and name not in message else message


def _names(context: Any) -> Iterator[str]:
    """What a context names: scopes that are missing, properties that are required."""
    if isinstance(context, Mapping):
        for name in ("requiredGranularScopes", "requiredScopes", "properties"):
            yield from map(str, context.get(name) or ())


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def seconds_to_wait(complaint: Complaint) -> float:
    """How long a 429 wants no request: HubSpot sends no `Retry-After`, but names the policy.

    Nobody knows where the account's midnight is; a daily limit is far enough away to end the run.
    """
    words = " ".join([complaint.message, *complaint.codes]).lower()
    if "daily" in words:
        return _DAY
    return 10.0 if "ten_secondly" in words or "ten secondly" in words else 1.0


def limits_in(response: httpx.Response) -> LimitState | None:
    """What the headers say; of a 429, how long the policy that it names wants no request."""
    state = limits_of(response.headers)
    if response.status_code != 429:
        return state
    wait = retry_after(response.headers.get("Retry-After")) or seconds_to_wait(complaint_in(response))
    return LimitState(0, wait, state.limit if state else None, state.window if state else None)
