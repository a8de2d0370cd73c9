"""What a destination answered to a batch, row by row, as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson
import pyarrow as pa


class Status(StrEnum):
    """Where a row of a batch that was started ended. The letters are stored."""

    WRITTEN = "w"
    UNCONFIRMED = "c"
    """Written, on the vendor's word for the batch as a whole."""
    FAILED = "f"
    MISSING = "m"
    """An update found no record: the key leaves the snapshot, the row counts as skipped."""
    GONE = "g"
    """The same, where the sync wants that to be a failure."""
    NOT_SENT = "n"
    UNKNOWN = "u"
    """Sent, and no answer."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The answers to one batch, in the order of its rows.

    ambiguous: positions of rows that had an attempt whose effect is unknown, whatever a later
    attempt answered. record_ids: position → the destination's id.
    """

    statuses: Sequence[Status]
    ambiguous: Sequence[int] = ()
    record_ids: dict[int, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        ids = {str(position): record_id for position, record_id in self.record_ids.items()}
        return orjson.dumps({"s": "".join(self.statuses), "a": list(self.ambiguous), "i": ids})

    @classmethod
    def decode(cls, stored: bytes) -> Outcomes:
        data = orjson.loads(stored)
        ids = {int(position): record_id for position, record_id in data["i"].items()}
        return cls([Status(letter) for letter in data["s"]], data["a"], ids)


_SCHEMA = pa.schema(
    [
        ("batch", pa.int32()),
        ("position", pa.int32()),
        ("status", pa.string()),
        ("ambiguous", pa.bool_()),
        ("record_id", pa.string()),
        ("started_at", pa.string()),
    ]
)


def outcome_table(batches: Iterable[tuple[int, str, bytes]]) -> pa.Table:
    """Answered batches (number, started_at, outcomes) as one table.

    A row for each row answered; or one without position for all of a batch, where they have the same status
    and nothing else is known of them.
    """
    decoded = [(number, started_at, orjson.loads(stored)) for number, started_at, stored in batches]
    whole = [(number, at, data["s"][0]) for number, at, data in decoded if _alike(data)]
    parts = [_by_row(number, at, data) for number, at, data in decoded if not _alike(data)]
    return pa.Table.from_batches([_of_whole_batches(whole), *parts], schema=_SCHEMA)


def _alike(data: Mapping[str, Any]) -> bool:
    statuses: str = data["s"]
    return not data["a"] and not data["i"] and statuses.count(statuses[0]) == len(statuses)


def _of_whole_batches(batches: Sequence[tuple[int, str, str]]) -> pa.RecordBatch:
    count = len(batches)
    numbers, times, statuses = ([batch[place] for batch in batches] for place in range(3))
    return pa.record_batch(
        [
            pa.array(numbers, pa.int32()),
            pa.nulls(count, pa.int32()),
            pa.array(statuses, pa.string()),
            pa.repeat(pa.scalar(False), count),
            pa.nulls(count, pa.string()),
            pa.array(times, pa.string()),
        ],
        schema=_SCHEMA,
    )


def _by_row(number: int, started_at: str, data: Mapping[str, Any]) -> pa.RecordBatch:
    count = len(data["s"])
    ambiguous = set(data["a"])
    ids = data["i"]
    return pa.record_batch(
        [
            pa.repeat(pa.scalar(number, pa.int32()), count),
            pa.array(range(count), pa.int32()),
            pa.array(list(data["s"]), pa.string()),
            pa.array([i in ambiguous for i in range(count)]) if ambiguous else pa.repeat(pa.scalar(False), count),
            pa.array([ids.get(str(i)) for i in range(count)], pa.string()) if ids else pa.nulls(count, pa.string()),
            pa.repeat(pa.scalar(started_at), count),
        ],
        schema=_SCHEMA,
    )
