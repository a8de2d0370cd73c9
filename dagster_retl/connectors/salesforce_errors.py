"""What Salesforce's codes mean: of requests (`errorCode`), of rows (`statusCode`), of rows of a job (`sf__Error`).

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from dagster_retl.connectors.statuses import code_of_status
from dagster_retl.errors import ErrorCode

VENDOR_CODES: Mapping[str, ErrorCode] = MappingProxyType(
    {
        "UNABLE_TO_LOCK_ROW": ErrorCode.DESTINATION_LOCKED,
        "SERVER_UNAVAILABLE": ErrorCode.DESTINATION_UNAVAILABLE,
        "UNKNOWN_EXCEPTION": ErrorCode.DESTINATION_UNAVAILABLE,
        "QUERY_TIMEOUT": ErrorCode.DESTINATION_UNAVAILABLE,
        "PROCESSING_HALTED": ErrorCode.DESTINATION_UNAVAILABLE,
        "ALL_OR_NONE_OPERATION_ROLLED_BACK": ErrorCode.DESTINATION_UNAVAILABLE,
        "REQUIRED_FIELD_MISSING": ErrorCode.MISSING_REQUIRED_FIELD,
        "MISSING_ARGUMENT": ErrorCode.MISSING_KEY,
        "DUPLICATE_VALUE": ErrorCode.CONFLICT,
        "DUPLICATE_EXTERNAL_ID": ErrorCode.CONFLICT,
        "DUPLICATES_DETECTED": ErrorCode.CONFLICT,
        "ENTITY_IS_DELETED": ErrorCode.NOT_FOUND,
        "INVALID_CROSS_REFERENCE_KEY": ErrorCode.NOT_FOUND,
        "INVALID_TYPE_ON_FIELD_IN_RECORD": ErrorCode.TYPE_COERCION,
        "STRING_TOO_LONG": ErrorCode.DESTINATION_VALIDATION,
        "INVALID_EMAIL_ADDRESS": ErrorCode.DESTINATION_VALIDATION,
        "MALFORMED_ID": ErrorCode.DESTINATION_VALIDATION,
        "FIELD_CUSTOM_VALIDATION_EXCEPTION": ErrorCode.DESTINATION_VALIDATION,
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": ErrorCode.DESTINATION_VALIDATION,
        "INVALID_FIELD_FOR_INSERT_UPDATE": ErrorCode.DESTINATION_VALIDATION,
        "INSUFFICIENT_ACCESS_OR_READONLY": ErrorCode.DESTINATION_VALIDATION,
        "CANNOT_UPDATE_CONVERTED_LEAD": ErrorCode.DESTINATION_VALIDATION,
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": ErrorCode.DESTINATION_VALIDATION,
        "JSON_PARSER_ERROR": ErrorCode.BATCH_REJECTED,
        "INVALID_FIELD": ErrorCode.SCHEMA_DRIFT,
        "INVALID_TYPE": ErrorCode.SCHEMA_DRIFT,
        "NOT_FOUND": ErrorCode.SCHEMA_DRIFT,
        "INVALIDJOB": ErrorCode.SCHEMA_DRIFT,
        "UNSUPPORTED_API_VERSION": ErrorCode.CONFIGURATION,
        "MALFORMED_QUERY": ErrorCode.CONFIGURATION,
        "INVALID_SESSION_ID": ErrorCode.AUTH,
        "API_DISABLED_FOR_ORG": ErrorCode.PERMISSION,
        "REQUEST_LIMIT_EXCEEDED": ErrorCode.QUOTA_EXHAUSTED,
        "STORAGE_LIMIT_EXCEEDED": ErrorCode.QUOTA_EXHAUSTED,
    }
)
"""What each code means; `code_of_request` and `code_of_row` know the cases in which it means something else."""

_OF_REQUESTS = frozenset(
    {
        "JSON_PARSER_ERROR",
        "INVALID_FIELD",
        "INVALID_TYPE",
        "NOT_FOUND",
        "INVALIDJOB",
        "UNSUPPORTED_API_VERSION",
        "MALFORMED_QUERY",
        "QUERY_TIMEOUT",
        "STORAGE_LIMIT_EXCEEDED",
    }
)


def code_of_request(status: int, vendor_code: str | None, message: str) -> ErrorCode:
    """What the refusal of a whole request means. A 403 is a missing permission, or a limit that was reached."""
    if vendor_code == "REQUEST_LIMIT_EXCEEDED":
        return ErrorCode.RATE_LIMIT if "concurrent" in message.lower() else ErrorCode.QUOTA_EXHAUSTED
    if 400 <= status < 500 and status not in (401, 403) and vendor_code in _OF_REQUESTS:
        return VENDOR_CODES[vendor_code]
    return code_of_status(status)


_JOB_ERROR = re.compile(r"(?P<code>[A-Z][A-Z0-9_]*):(?P<message>.*?)(?::(?P<fields>[\w., ]*?) ?--)?\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why Salesforce refused a row. fields: those that are to blame."""

    code: str | None
    message: str
    fields: tuple[str, ...] = ()

    @classmethod
    def of_job(cls, text: str) -> Self:
        """From `sf__Error`: `CODE:message, which may hold colons:field,field --`."""
        match = _JOB_ERROR.fullmatch(text)
        if match is None:
            return cls(None, text)
        names = (name.strip() for name in (match["fields"] or "").split(","))
        return cls(match["code"], match["message"], tuple(filter(None, names)))


def code_of_row(error: RowError, *, by_id: bool = False, found: bool = False) -> ErrorCode:
    """What the refusal of a row means.

    by_id: the row named its record by id. found: that id was found by a query a moment ago, so that an
    unknown one is that of another record, to which the row refers.
    """
    match error.code:
        case "INVALID_FIELD":
            return _of_field(error.message)
        case "ENTITY_IS_DELETED":
            gone = by_id and not error.fields
            return ErrorCode.NOT_FOUND if gone else ErrorCode.DESTINATION_VALIDATION
        case "INVALID_CROSS_REFERENCE_KEY" | "NOT_FOUND":
            gone = by_id and not found and not error.fields
            return ErrorCode.NOT_FOUND if gone else ErrorCode.DESTINATION_VALIDATION
        case "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" if _is_passing(error.message):
            return ErrorCode.DESTINATION_LOCKED
    return VENDOR_CODES.get(error.code or "", ErrorCode.DESTINATION_VALIDATION)


def _of_field(message: str) -> ErrorCode:
    """An unknown column is the same for all rows; a parent that is missing, or a value that does not fit, is not."""
    if message.startswith("No such column"):
        return ErrorCode.SCHEMA_DRIFT
    return ErrorCode.TYPE_COERCION if "Failed to deserialize" in message else ErrorCode.DESTINATION_VALIDATION


def _is_passing(message: str) -> bool:
    """Whether a trigger failed for a reason that may be gone the next time."""
    return "UNABLE_TO_LOCK_ROW" in message or "Too many SOQL queries" in message
