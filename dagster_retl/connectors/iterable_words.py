"""Iterable's words: its error codes, the lists of an answer in which it names users, and what they mean here."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_retl.errors import ErrorCode

VENDOR_CODES: Mapping[str, ErrorCode] = {
    "BadApiKey": ErrorCode.AUTH,
    "BadAuthorizationHeader": ErrorCode.AUTH,
    "InvalidJwtPayload": ErrorCode.AUTH,
    "JwtUserIdentifiersMismatched": ErrorCode.AUTH,
    "Unauthorized": ErrorCode.AUTH,
    "Forbidden": ErrorCode.PERMISSION,
    "ForbiddenParamsError": ErrorCode.PERMISSION,
    "RateLimitExceeded": ErrorCode.RATE_LIMIT,
    "DatabaseError": ErrorCode.DESTINATION_UNAVAILABLE,
    "QueueEmailError": ErrorCode.DESTINATION_UNAVAILABLE,
    "BadJsonBody": ErrorCode.BATCH_REJECTED,
    "BadParams": ErrorCode.BATCH_REJECTED,
    "BatchTooLarge": ErrorCode.PAYLOAD_TOO_LARGE,
    "GenericError": ErrorCode.BATCH_REJECTED,
    "RequestFieldsTypesMismatched": ErrorCode.TYPE_COERCION,
    "UniqueFieldsLimitExceeded": ErrorCode.SCHEMA_DRIFT,
    "InvalidEmailAddressError": ErrorCode.DESTINATION_VALIDATION,
    "InvalidUserIdError": ErrorCode.DESTINATION_VALIDATION,
    "ForgottenUserError": ErrorCode.DESTINATION_VALIDATION,
    "EmailAlreadyExists": ErrorCode.CONFLICT,
    "ExternalKeyConflict": ErrorCode.CONFLICT,
    "UserIdAlreadyExists": ErrorCode.CONFLICT,
    "NotFound": ErrorCode.NOT_FOUND,
    "UnknownEmailError": ErrorCode.NOT_FOUND,
    "UnknownUserIdError": ErrorCode.NOT_FOUND,
}
"""The `code` of an answer that is none of success: https://api.iterable.com/api/docs."""

FAILURES: Mapping[str, tuple[ErrorCode, str]] = {
    "invalid": (ErrorCode.DESTINATION_VALIDATION, "Iterable takes this for no {what}"),
    "invalidData": (ErrorCode.DESTINATION_VALIDATION, "Iterable refuses the fields of the user with this {what}"),
    "notFound": (ErrorCode.NOT_FOUND, "there is no user with this {what}"),
    "conflict": (ErrorCode.CONFLICT, "another user has this {what}"),
    "forgotten": (
        ErrorCode.DESTINATION_VALIDATION,
        "the user with this {what} was forgotten (GDPR) and is not written",
    ),
}
"""Beginnings of the lists in `failedUpdates`; each list ends in `Emails` or `UserIds`."""

NAMES: Mapping[str, tuple[str, str]] = {"Emails": ("email", "e-mail address"), "UserIds": ("userId", "user id")}
"""Ends of these lists: the field that they hold, and what people call it."""


def meaning(status: int, vendor_code: str | None, otherwise: ErrorCode) -> ErrorCode:
    """What a refusal means. A status that says all goes first: a 401 may come with `"code": "Success"`."""
    known = VENDOR_CODES.get(vendor_code or "")
    if status == 401:
        return ErrorCode.PERMISSION if known is ErrorCode.PERMISSION else ErrorCode.AUTH
    if status in (403, 413, 429) or status >= 500:
        return otherwise
    return known or otherwise
