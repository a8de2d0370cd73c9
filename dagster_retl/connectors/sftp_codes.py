"""What the codes of SSH and SFTP servers mean.

Reasons for which SSH disconnects: https://www.rfc-editor.org/rfc/rfc4253#section-11.1. Status codes of SFTP:
https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-13#section-9.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dagster_retl.errors import ErrorCode

_DISCONNECTS: Mapping[int, tuple[str, ErrorCode]] = {
    3: ("SSH_DISCONNECT_KEY_EXCHANGE_FAILED", ErrorCode.CONFIGURATION),
    8: ("SSH_DISCONNECT_PROTOCOL_VERSION_NOT_SUPPORTED", ErrorCode.CONFIGURATION),
    9: ("SSH_DISCONNECT_HOST_KEY_NOT_VERIFIABLE", ErrorCode.CONFIGURATION),
    14: ("SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE", ErrorCode.AUTH),
    15: ("SSH_DISCONNECT_ILLEGAL_USER_NAME", ErrorCode.AUTH),
}
_STATUSES: Mapping[int, tuple[str, ErrorCode]] = {
    2: ("SSH_FX_NO_SUCH_FILE", ErrorCode.CONFIGURATION),
    3: ("SSH_FX_PERMISSION_DENIED", ErrorCode.PERMISSION),
    10: ("SSH_FX_NO_SUCH_PATH", ErrorCode.CONFIGURATION),
    12: ("SSH_FX_WRITE_PROTECT", ErrorCode.PERMISSION),
    14: ("SSH_FX_NO_SPACE_ON_FILESYSTEM", ErrorCode.DESTINATION_DOWN),
    15: ("SSH_FX_QUOTA_EXCEEDED", ErrorCode.DESTINATION_DOWN),
    19: ("SSH_FX_NOT_A_DIRECTORY", ErrorCode.CONFIGURATION),
    20: ("SSH_FX_INVALID_FILENAME", ErrorCode.CONFIGURATION),
}
CODES: Mapping[str, ErrorCode] = MappingProxyType(dict([*_DISCONNECTS.values(), *_STATUSES.values()]))
"""Others: `DESTINATION_UNAVAILABLE`."""


def meaning_of_disconnect(reason: int) -> tuple[str, ErrorCode]:
    """Name and meaning of a reason for which SSH disconnects."""
    return _DISCONNECTS.get(reason, (f"SSH_DISCONNECT_{reason}", ErrorCode.DESTINATION_UNAVAILABLE))


def meaning_of_status(status: int) -> tuple[str, ErrorCode]:
    """Name and meaning of a status code of SFTP."""
    return _STATUSES.get(status, (f"SSH_FX_{status}", ErrorCode.DESTINATION_UNAVAILABLE))
