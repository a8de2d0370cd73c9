"""Times in the store: UTC text in RFC 3339 with microseconds, which sorts as the times do."""

from __future__ import annotations

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """`2025-03-27T17:00:00.000000Z`, always 27 characters. `moment` must know its zone."""
    if moment.tzinfo is None:
        raise ValueError("the store keeps times with a zone only")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_text(value: str) -> datetime:
    """The time that `to_text` wrote."""
    return datetime.fromisoformat(value)


def maybe_time(value: str | None) -> datetime | None:
    """`from_text`, where there may be no time."""
    return None if value is None else from_text(value)
