"""Rows and batches for tests, serialised as the engine serialises them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from dagster_retl.model.rows import Batch, Operation, Row, WireForm


@dataclass(frozen=True, slots=True)
class MadeRow:
    """A `Row` whose parts are given."""

    key: str
    key_values: Mapping[str, Any]
    values: Mapping[str, Any]
    json: orjson.Fragment
    record_id: str | None = None
    idempotency_key: str = ""


def wire_value(value: Any, form: WireForm) -> Any:
    """A value as it is sent in a wire form: text, numbers (exact, so decimals stay `Decimal`), booleans, containers."""
    if isinstance(value, Mapping):
        return {name: wire_value(inner, form) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [wire_value(inner, form) for inner in value]
    if isinstance(value, datetime):
        return _timestamp(value, form.timestamp)
    if isinstance(value, Decimal):
        return format(value, "f") if form.decimal == "string" else value
    return _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case int() if not -(2**63) <= value < 2**64:
            return Decimal(value)  # exact, where `orjson` takes no int
        case _:
            return value


def _timestamp(value: datetime, form: str) -> str | int:
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if form == "rfc3339":
        return moment.isoformat().replace("+00:00", "Z")
    if form == "spaced":
        return moment.replace(microsecond=0, tzinfo=None).isoformat(" ") + " +00:00"
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // datetime.resolution
    return microseconds // (1_000 if form == "epoch_ms" else 1_000_000)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested objects: `{"a.b": 1}` is `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return tree


def _fields(key: str | Iterable[str]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)


def make_row(
    values: Mapping[str, Any],
    *,
    key: str | Sequence[str] = "id",
    record_id: str | None = None,
    idempotency_key: str | None = None,
    wire: WireForm | None = None,
) -> MadeRow:
    """A row of mapped values; `key` names its key fields.

    Its identity is the text of its only key value, or the JSON list of several. The idempotency
    key, unless given, follows from the row's content.
    """
    form = wire or WireForm()
    key_values = {name: wire_value(values[name], form) for name in _fields(key)}
    wired = {name: wire_value(value, form) for name, value in values.items()}
    json = orjson.dumps(nested(wired) if form.nest else wired, default=_digits)
    return MadeRow(
        key=_identity([values[name] for name in _fields(key)]),
        key_values=key_values,
        values=dict(values),
        json=orjson.Fragment(json),
        record_id=record_id,
        idempotency_key=hashlib.sha256(json).hexdigest() if idempotency_key is None else idempotency_key,
    )


def _digits(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _identity(values: list[Any]) -> str:
    return str(values[0]) if len(values) == 1 else orjson.dumps(values, default=str).decode()


def make_batch(
    rows: Iterable[Row | Mapping[str, Any]],
    *,
    operation: Operation | str = Operation.UPSERT,
    object_name: str = "contacts",
    key: str | Sequence[str] = "id",
    wire: WireForm | None = None,
    idempotency_key: str | None = None,
) -> Batch:
    """A batch of rows; mappings become rows by `make_row`. Its idempotency key follows from its rows unless given."""
    made = [make_row(row, key=key, wire=wire) if isinstance(row, Mapping) else row for row in rows]
    if idempotency_key is None:
        idempotency_key = hashlib.sha256("\n".join(row.idempotency_key for row in made).encode()).hexdigest()
    return Batch(object_name, Operation(operation), made, _fields(key), idempotency_key)
