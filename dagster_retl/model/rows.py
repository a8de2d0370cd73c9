"""What travels to a destination, and what comes back: rows, batches, faults and results."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any, Protocol, overload

import orjson

from dagster_retl.errors import ErrorCode


class Operation(StrEnum):
    """What a connector is asked to do with a row."""

    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class KeyForm:
    """How a destination compares keys: two keys that are equal in this form are one record.

    Numbers are always compared by value (42 = 42.0 = "42").
    """

    ignore_case: bool = False
    trim: bool = False


@dataclass(frozen=True, slots=True)
class WireForm:
    """How mapped values look in the JSON that a destination reads.

    timestamp: `rfc3339` (`2025-03-27T17:00:00Z`, microseconds only when they are not zero), `spaced`
    (`2025-03-27 17:00:00 +00:00`), `epoch_ms` or `epoch_s` (integers); all but the first are rounded down.
    A timestamp without zone is taken as UTC.
    decimal: `number` (exact digits) or `string`. nest: a dotted destination field
    (`address.city`) becomes a nested object.
    """

    timestamp: str = "rfc3339"
    decimal: str = "number"
    nest: bool = True


class Row(Protocol):
    """One mapped row.

    key: its identity, unique in the batch. key_values: the key fields as the destination is
    sent them. values: all mapped fields, exact Python values (int, Decimal, datetime, …);
    a field whose null policy is `omit` is absent when null. json: the same, serialised in the
    connector's `WireForm`. record_id: the destination's own id, where an earlier write
    returned one. idempotency_key: the same whenever this very write is sent again.
    """

    @property
    def key(self) -> str: ...
    @property
    def key_values(self) -> Mapping[str, Any]: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def json(self) -> orjson.Fragment: ...
    @property
    def record_id(self) -> str | None: ...
    @property
    def idempotency_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one operation on one object. `key_fields` are the destination's key fields, in order.

    run_id, number: of the run, and of the batch in it, from 0; a part of a batch has the same.
    """

    object_name: str
    operation: Operation
    rows: Sequence[Row]
    key_fields: tuple[str, ...] = ()
    idempotency_key: str = ""
    run_id: str = ""
    number: int = 0

    @property
    def documents(self) -> Sequence[bytes]:
        """The JSON of each row, for connectors that only wrap it."""
        documents: Sequence[bytes] | None = getattr(self.rows, "documents", None)
        return [orjson.dumps(row.json) for row in self.rows] if documents is None else documents

    @property
    def columns(self) -> Any:
        """The mapped fields as a `pyarrow.Table`, exact and in mapping order; None where the rows are not kept so.

        Removals have none: they are keys only.
        """
        return getattr(self.rows, "columns", None)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row was not accepted. `message` and `vendor_code` are the vendor's own words."""

    code: ErrorCode
    message: str
    vendor_code: str | None = None


@dataclass(frozen=True, slots=True)
class RowResult:
    """The answer for one row: accepted (`fault` is None) or not; `record_id` is the destination's id.

    warning: what a person should know of a row that was accepted (a field that was left out); the run's result
    counts the rows of each.
    """

    key: str
    fault: Fault | None = None
    record_id: str | None = None
    unconfirmed: bool = False
    warning: str | None = None


class AllAccepted(Sequence[RowResult]):
    """The answer to a batch of which every row was accepted; nothing is kept for single rows."""

    def __init__(self, rows: Sequence[Row], *, unconfirmed: bool = False) -> None:
        self._rows = rows
        self.unconfirmed = unconfirmed

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> RowResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[RowResult]: ...
    def __getitem__(self, index: int | slice) -> RowResult | list[RowResult]:
        if isinstance(index, slice):
            return [RowResult(row.key, unconfirmed=self.unconfirmed) for row in self._rows[index]]
        return RowResult(self._rows[index].key, unconfirmed=self.unconfirmed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list


@dataclass(frozen=True, slots=True)
class Account:
    """Who a destination's credentials reach: a Salesforce org, a HubSpot portal, a host."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object that can be written to."""

    api_name: str
    label: str
    supports_upsert: bool = True
    writable: bool = True


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A field of an object. `required`: a new record cannot be created without it."""

    name: str
    label: str
    data_type: str
    required: bool = False
    createable: bool = True
    updateable: bool = True
    external_id: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the rows of a run ended: `read = written + failed + unchanged + skipped + unknown`.

    `unconfirmed` is the part of `written` that was acknowledged without an answer per row.
    Removals (keys that left the query) are counted apart.
    """

    read: int = 0
    written: int = 0
    unconfirmed: int = 0
    failed: int = 0
    unchanged: int = 0
    skipped: int = 0
    unknown: int = 0
    removed: int = 0
    deleted: int = 0
    delete_failed: int = 0
    delete_skipped: int = 0
    delete_unknown: int = 0
    retries: int = 0
    requests: int = 0
    bytes_sent: int = 0
    dead_letters_opened: int = 0
    dead_letters_resolved: int = 0

    @property
    def due(self) -> int:
        """Rows of which nothing is known yet: those that are to be sent."""
        return self.read - self.written - self.failed - self.unchanged - self.skipped - self.unknown

    @property
    def removals_due(self) -> int:
        """Removals of which nothing is known yet."""
        return self.removed - self.deleted - self.delete_failed - self.delete_skipped - self.delete_unknown

    def __add__(self, other: Counters) -> Counters:
        return Counters(*map(operator.add, astuple(self), astuple(other)))

    def balanced(self) -> bool:
        """Whether every row and every removal ended in exactly one place."""
        return self.due == 0 and self.removals_due == 0


@dataclass(frozen=True, slots=True)
class FieldType:
    """A mapped field: destination name, Arrow type (`pyarrow.DataType`), key or not, what happens to a null."""

    name: str
    arrow_type: Any
    key: bool = False
    omit_null: bool = False
