"""Identifiers: a prefix that names the kind, then a lower-case token that sorts by time of creation."""

from __future__ import annotations

import hashlib
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as in ULID
_LENGTH = 26

SYNC_PREFIX = "retl_sync_"
RUN_PREFIX = "retl_run_"
DEAD_LETTER_PREFIX = "retl_dlq_"
KEY_PREFIX = "retl_key_"


def _token(number: int) -> str:
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """A fresh id: 48 bits of milliseconds since 1970, then 80 random bits."""
    return prefix + _token((time.time_ns() // 1_000_000 << 80) | secrets.randbits(80))


def sync_id_of(project: str, slug: str) -> str:
    """The id of a sync that a file owns: the same wherever and whenever the file is read."""
    digest = hashlib.sha256(f"{project}\0{slug}".encode()).digest()
    return SYNC_PREFIX + _token(int.from_bytes(digest[:16], "big"))
