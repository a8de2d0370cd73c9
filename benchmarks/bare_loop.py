"""Driver: the least that moves rows. ADBC → Python rows → orjson → httpx, a client a thread; no diff, no ledger.

Settings: warehouse (URL), destination (URL), batch_rows, concurrency; optional: one_by_one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

import httpx
import orjson
from adbc_driver_postgresql import dbapi
from data import QUERY
from measure import drive


def rows(warehouse: str) -> Iterator[dict[str, Any]]:
    """The result of the query as dicts; ADBC delivers a NUMERIC as text."""
    with dbapi.connect(warehouse) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        for block in cursor.fetch_record_batch():
            yield from block.to_pylist()


def work(batches: queue.Queue[list[dict[str, Any]] | None], address: str, one_by_one: bool) -> None:
    """Send batches until there are no more."""
    with httpx.Client(timeout=30) as client:
        while (batch := batches.get()) is not None:
            content = orjson.dumps(batch[0] if one_by_one else batch, default=_number)
            answer = client.post(address, content=content, headers={"Content-Type": "application/json"})
            answer.raise_for_status()


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Send everything."""
    size = 1 if settings.get("one_by_one") else settings["batch_rows"]
    workers = settings["concurrency"]
    batches: queue.Queue[list[dict[str, Any]] | None] = queue.Queue(maxsize=2 * workers)
    address = f"{settings['destination']}/v1/people"
    threads = [
        threading.Thread(target=work, args=(batches, address, bool(settings.get("one_by_one")))) for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    source = rows(settings["warehouse"])
    sent = 0
    while batch := list(islice(source, size)):
        sent += len(batch)
        batches.put(batch)
    for _ in threads:
        batches.put(None)
    for thread in threads:
        thread.join()
    return {"written": sent}


if __name__ == "__main__":
    drive(run)
