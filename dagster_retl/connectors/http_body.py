"""Request bodies of the `http` connector: rows that are JSON already, wrapped and never decoded."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from dagster_retl.connectors.http_config import BodyKind
from dagster_retl.model.rows import Row

CONTENT_TYPES: Mapping[BodyKind, str] = {
    "array": "application/json",
    "object": "application/json",
    "envelope": "application/json",
    "ndjson": "application/x-ndjson",
}


def encode(kind: BodyKind, rows: Sequence[bytes], envelope_key: str | None = None) -> bytes:
    """A body of serialised rows; `object` takes exactly one."""
    match kind:
        case "object":
            (row,) = rows
            return row
        case "ndjson":
            return b"\n".join([*rows, b""])
        case "envelope":
            return orjson.dumps({envelope_key: orjson.Fragment(_array(rows))})
        case "array":
            return _array(rows)


def _array(rows: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(rows) + b"]"


def key_document(row: Row) -> bytes:
    """A row's key fields as JSON; dotted names nest, decimals keep their digits."""
    nested: dict[str, Any] = {}
    for name, value in row.key_values.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return orjson.dumps(nested, default=_exact)


def _exact(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"a key of type {type(value).__name__} has no JSON form")


def signature(secret: str, content: bytes) -> str:
    """HMAC-SHA256 over the exact bytes sent, in hexadecimal."""
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
