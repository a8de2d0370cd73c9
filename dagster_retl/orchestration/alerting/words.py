"""Pieces of messages: numbers, times and names as people read them, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

SYNCS = 20
"""Syncs that a message names."""

_LENGTH = 300  # characters of a vendor's message


def listed(slugs: Sequence[str]) -> str:
    """The first names, and how many there are beyond them."""
    shown = ", ".join(f"`{slug}`" for slug in slugs[:SYNCS])
    return shown if len(slugs) <= SYNCS else f"{shown} and {len(slugs) - SYNCS} more"


def more(count: int, noun: str) -> list[str]:
    """The last line of a list that is not shown to its end."""
    return [f"- … and {count:,} more {noun}"] if count > 0 else []


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def quoted(text: str) -> str:
    """What somebody else said."""
    return "\n".join(f"> {_shortened(line)}" for line in text.splitlines() if line.strip())


def one_line(text: str) -> str:
    """The text without line breaks."""
    return _shortened(" ".join(text.split()))


def in_code(text: str) -> str:
    """The text to the letter."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def moment(at: datetime) -> str:
    """A time, to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def paragraphs(parts: Iterable[str]) -> str:
    """The parts that say something, apart from each other."""
    return "\n\n".join(part for part in parts if part)


def _shortened(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
