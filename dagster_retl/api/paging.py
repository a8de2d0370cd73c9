"""Pages: newest first, each beginning after the last entry of the one before, whatever was added meanwhile.

A cursor is opaque, and good for the list that it came from with the same filters only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from dagster_retl.api.answers import Answer, Document
from dagster_retl.api.problems import ApiError, Detail

T = TypeVar("T")

Position = tuple[datetime, str]
"""When an entry was made, and its id."""

LIMIT = 50
MOST = 200

_ID = re.compile(r"[a-z0-9_]{1,100}")


def encode(position: Position, filters: Mapping[str, Any]) -> str:
    """The cursor of a page that ended there."""
    said = json.dumps([position[0].isoformat(), position[1], _digest(filters)])
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


def decode(cursor: str, filters: Mapping[str, Any]) -> Position:
    """Where the page before ended. Raises `ApiError` for what is no cursor, or one of another list."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        moment, entry_id, digest = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        position = datetime.fromisoformat(moment), str(entry_id)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _malformed("this is not a cursor of this API") from None
    if position[0].tzinfo is None or not _ID.fullmatch(position[1]):
        raise _malformed("this is not a cursor of this API")
    if digest != _digest(filters):
        raise _malformed("this cursor belongs to a list with other filters: begin again without it")
    return position


def page(
    entries: Sequence[T],
    limit: int,
    filters: Mapping[str, Any],
    position: Callable[[T], Position],
    document: Callable[[T], Document],
) -> Answer:
    """A page of at most `limit` entries; one more was asked for, to see whether it is the last."""
    shown = entries[:limit]
    cursor = encode(position(shown[-1]), filters) if len(entries) > limit else None
    meta = {"page": {"limit": limit, "cursor": cursor}}
    return Answer({"data": [document(entry) for entry in shown], "meta": meta})


def _digest(filters: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(filters, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _malformed(message: str) -> ApiError:
    return ApiError(400, message, [Detail("cursor", "malformed", message)], code="MALFORMED_CURSOR")
