"""Numbers, times, keys and statuses as people read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from dagster_retl.documents import rfc3339
from dagster_retl.model.partitions import Partitions
from dagster_retl.model.runs import Run, RunStatus

__all__ = ["age", "clock", "count", "duration", "key", "name", "rfc3339", "status", "values"]

_STATUS_STYLES = {
    RunStatus.QUEUED: "cyan",
    RunStatus.RUNNING: "cyan",
    RunStatus.SUCCEEDED: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "magenta",
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def count(number: int, style: str = "") -> Text:
    """A number with its thousands apart; zero steps back."""
    return Text(f"{number:,}", style=style if number else "dim")


def status(run: Run) -> Text:
    """A run's status in its colour; yellow when some rows failed."""
    style = _STATUS_STYLES[run.status]
    if run.status is RunStatus.SUCCEEDED and run.counters.failed + run.counters.delete_failed:
        style = "yellow"
    return Text(run.status.value, style=style)


def name(text: str) -> Text:
    """The name of a sync."""
    return Text(text, style="bold")


def run_name(run: Run) -> Text:
    """The name of a run's sync, and the partition that it read."""
    return Text.assemble(name(run.sync_name), (f" {run.partition}" if run.partition else "", "cyan"))


def partitions(parted: Partitions) -> Text:
    """How a sync is parted: `daily from 2026-01-01, Europe/Berlin`, or the fixed keys."""
    if not parted.windowed:
        return Text(", ".join(parted.keys))
    until = f" to {parted.end}" if parted.end else ""
    zone = "" if parted.timezone == "UTC" else f", {parted.timezone}"
    return Text(f"{parted.type} from {parted.start}{until}{zone}")


def age(moment: datetime | None, now: datetime) -> Text:
    """How long ago: `3m ago`; `–` for what has not happened."""
    if moment is None:
        return Text("–", style="dim")
    seconds = int((now - moment).total_seconds())
    if seconds < 1:
        return Text("now")
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    return Text(f"{seconds // size}{unit} ago")


def duration(seconds: float | None) -> Text:
    """`0.8s`, `2m 5s`, `1h 4m`."""
    if seconds is None:
        return Text("–", style="dim")
    if seconds < 60:
        return Text(f"{seconds:.1f}s")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return Text(f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s")


def clock(moment: datetime | None) -> Text:
    """A moment in full, to the second, UTC."""
    if moment is None:
        return Text("–", style="dim")
    return Text(moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))


def key(record_keys: Mapping[str, Any]) -> Text:
    """`external_id=42`, several after each other; `–` for rows without a key."""
    if not record_keys:
        return Text("–", style="dim")
    parts = [Text.assemble((f"{field}=", "dim"), _plain(value)) for field, value in record_keys.items()]
    return Text(", ").join(parts)


def values(record: Mapping[str, Any]) -> Text:
    """A mapped row on one line."""
    return Text(", ").join(Text.assemble((f"{field}: ", "dim"), _plain(value)) for field, value in record.items())


def change(present: Mapping[str, Any] | None, record: Mapping[str, Any]) -> Text:
    """A mapped row on one line, beside what the destination holds now: `name: Ann → Anna`.

    present: as a plan has it; None where nobody asked, empty where there is no such record.
    """
    if not present:
        return values(record)
    return Text(", ").join(_changed(field, present.get(field), value) for field, value in record.items())


def _changed(field: str, now: Any, value: Any) -> Text:
    if _plain(now) == _plain(value):
        return Text.assemble((f"{field}: ", "dim"), (_plain(value), "dim"))
    return Text.assemble((f"{field}: ", "dim"), (_plain(now), "red"), " → ", (_plain(value), "green"))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
