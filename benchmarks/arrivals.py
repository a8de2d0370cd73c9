"""What a table of rows looks like, whoever delivered it: a digest that does not depend on order or on JSON style.

Only the standard library: the drivers of other tools import this in their own environments.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TEXTS = ("email", "first_name", "last_name", "company", "city", "country", "note")
COLUMNS = ("id", *TEXTS[:6], "amount", "score", "is_active", "updated_at", "note")


@dataclass(slots=True)
class Digest:
    """What arrived: rows in all, how many ids among them, the sum of the ids, of the amounts (cents), of row hashes.

    Sending a row twice changes `rows`, not `distinct`; a changed value changes `checksum`.
    """

    rows: int = 0
    distinct: int = 0
    ids: int = 0
    cents: int = 0
    checksum: int = 0

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def digest(rows: Iterable[Mapping[str, Any]]) -> Digest:
    """The digest of rows as they come out of JSON, or of a database."""
    found = Digest()
    seen: set[int] = set()
    for row in rows:
        number, cents = int(row["id"]), round(float(row["amount"]) * 100)
        found.rows += 1
        found.ids += number
        found.cents += cents
        found.checksum += zlib.crc32(_text(row, number, cents).encode())
        seen.add(number)
    found.distinct = len(seen)
    return found


def _text(row: Mapping[str, Any], number: int, cents: int) -> str:
    moment = str(row["updated_at"])[:19].replace(" ", "T")
    values = [str(number), str(cents), f"{float(row['score']):.6f}", str(bool(row["is_active"])), moment]
    return "\x1f".join([*values, *(row[name] for name in TEXTS)])
