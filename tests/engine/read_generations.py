"""A process that reads generations without a lease, while others replace and collect them.

Says the numbers of those that it read, and how often it was overtaken twice in a row.
"""

from __future__ import annotations

import json
import sys

import duckdb

from dagster_retl.engine.recall import Chosen, recall_latest
from dagster_retl.errors import StateMissingError
from dagster_retl.store.snapshots import Pointer
from dagster_retl.store.state import State
from dagster_retl.store.store import Store

ROWS = 2_000


def read_until(store_url: str, state_url: str, last: int) -> dict[str, object]:
    """Generation n holds `ROWS` rows with the key n, and its pointer says so in `source_rows`."""
    numbers: list[int] = []
    overtaken = 0
    with Store.open(store_url) as store, State.open(state_url) as state, duckdb.connect() as connection:
        while last not in numbers:
            try:
                chosen, memory = recall_latest(store, state, "s", _as_it_is)
            except StateMissingError:
                overtaken += 1
                continue
            query = f"SELECT count(*), min(key), max(key) FROM '{memory.generation}'"
            found = connection.execute(query).fetchall()[0]
            number = chosen.pointer.source_rows
            assert found == (ROWS, str(number), str(number)), (found, chosen)
            numbers.append(number)
    return {"numbers": numbers, "overtaken": overtaken}


def _as_it_is(pointer: Pointer | None) -> Chosen:
    assert pointer is not None
    return Chosen(pointer, "as it is")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_until(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
