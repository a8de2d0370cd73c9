"""Free text of the store that quotes a row: messages of dead letters, errors, warnings and options of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from sqlalchemy import Connection, Table, select, update

from dagster_retl.store.database import Database
from dagster_retl.store.schema import dead_letters, runs

_PAGE = 5_000

_TEXTS: tuple[tuple[Table, tuple[str, ...], tuple[str, ...]], ...] = (
    (dead_letters, ("message", "vendor_code"), ()),
    (runs, ("error_message", "guard"), ("warnings", "options")),
)
"""Tables, their columns of text, and those of JSON."""


class Mask(Protocol):
    """Takes something out of a text, or out of all texts inside a JSON value."""

    def __call__(self, text: str) -> str: ...

    def inside(self, value: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the row `id` of a table is to say instead."""

    table: Table
    id: str
    values: Mapping[str, str]


class Mentions:
    """Finds texts that a mask changes, and changes them."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, sync_id: str, mask: Mask) -> Iterator[Rewrite]:
        """What the mask changes in the texts of a sync. Reads all of them, a page at a time."""
        for table, texts, documents in _TEXTS:
            changers: dict[str, Callable[[str], str]] = dict.fromkeys(texts, mask)
            changers |= dict.fromkeys(documents, lambda text: _masked_json(text, mask))
            for row in self._rows(table, sync_id, list(changers)):
                said = {name: row[name] for name in changers if row[name] is not None}
                values = {name: changers[name](text) for name, text in said.items()}
                changed = {name: text for name, text in values.items() if text != said[name]}
                if changed:
                    yield Rewrite(table, row["id"], changed)

    def rewrite(self, conn: Connection, rewrite: Rewrite) -> None:
        """Change a row, in the transaction of whoever holds the sync's lease."""
        conn.execute(update(rewrite.table).where(rewrite.table.c.id == rewrite.id).values(**rewrite.values))

    def _rows(self, table: Table, sync_id: str, names: list[str]) -> Iterator[Mapping[str, Any]]:
        last = ""
        while True:
            query = select(table.c.id, *(table.c[name] for name in names)).order_by(table.c.id).limit(_PAGE)
            with self._db.read() as conn:
                page = conn.execute(query.where(table.c.sync_id == sync_id, table.c.id > last)).mappings().all()
            if not page:
                return
            yield from map(dict, page)
            last = page[-1]["id"]


def _masked_json(text: str, mask: Mask) -> str:
    value = orjson.loads(text)
    masked = mask.inside(value)
    return text if masked == value else orjson.dumps(masked).decode()
