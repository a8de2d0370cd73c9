"""What goes wrong with files: operating systems' and object stores' errors as ours."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from dagster_retl.errors import DestinationError, ErrorCode

_NAMES_BY_CODE: Mapping[ErrorCode, tuple[str, ...]] = {
    ErrorCode.PERMISSION: (
        *("EACCES", "EPERM", "EROFS", "ACCESS_DENIED", "PERMISSION_DENIED"),
        *("HTTP status 403", "AuthorizationFailure", "AuthorizationPermissionMismatch"),
    ),
    ErrorCode.AUTH: (
        *("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "INCOMPLETE_SIGNATURE"),
        *("INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN", "UNRECOGNIZED_CLIENT", "ExpiredToken"),
        *("HTTP status 401", "UNAUTHENTICATED", "AuthenticationFailed", "InvalidAuthenticationInfo"),
    ),
    ErrorCode.CONFIGURATION: (
        *("ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG"),
        *("NO_SUCH_BUCKET", "NOT_FOUND", "ContainerNotFound"),
    ),
    ErrorCode.DESTINATION_DOWN: ("ENOSPC", "EDQUOT", "EFBIG"),
    ErrorCode.RATE_LIMIT: ("SLOW_DOWN", "THROTTLING", "RESOURCE_EXHAUSTED", "ServerBusy"),
}
CODES: Mapping[str, ErrorCode] = MappingProxyType(
    {name: code for code, names in _NAMES_BY_CODE.items() for name in names}
)
"""Names of errors of operating systems, S3, Google Cloud Storage and Azure. Others: `DESTINATION_UNAVAILABLE`."""

_KNOWN = re.compile(rf"\b({'|'.join(CODES)})\b")
_AMAZON = re.compile(r"AWS Error (\w+)")
_LINE_END = "\n"
_HINTS = {
    ErrorCode.PERMISSION: "Allow the user or key that runs this to list, write and delete there.",
    ErrorCode.AUTH: "Check the credentials, in the URL or in the environment.",
    ErrorCode.CONFIGURATION: "Create it, or correct the destination's settings.",
    ErrorCode.DESTINATION_DOWN: "Free some space.",
}


@contextmanager
def explained(
    doing: str,
    *,
    ambiguous: bool = False,
    redact: Callable[[object], str] = str,
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Raise an `OSError` as the `DestinationError` that it is.

    doing: what failed, such as `write /outbox/a.csv`. ambiguous: it may have been done all the same.
    redact: takes secrets out of a text. also: other errors that mean the same.
    """
    caught: tuple[type[Exception], ...] = (OSError, *also)
    try:
        yield
    except caught as error:
        raise _failure(doing, error, ambiguous, redact(error)) from None  # only here is the text free of secrets


def _failure(doing: str, error: Exception, ambiguous: bool, text: str) -> DestinationError:
    number = getattr(error, "errno", None)
    vendor_code = errno.errorcode.get(number) if number else _named(text)
    code = CODES.get(vendor_code or "", ErrorCode.DESTINATION_UNAVAILABLE)
    unclear = ambiguous and code is ErrorCode.DESTINATION_UNAVAILABLE
    return DestinationError(
        f"cannot {doing}: {(getattr(error, 'strerror', None) or text).partition(_LINE_END)[0]}",
        code=ErrorCode.TIMEOUT if unclear else code,
        vendor_code=vendor_code,
        ambiguous=unclear,
        hint=_HINTS.get(code),
    )


def _named(text: str) -> str | None:
    """What the client of an object store calls an error."""
    found = _KNOWN.search(text) or _AMAZON.search(text)
    return found[1] if found else None
