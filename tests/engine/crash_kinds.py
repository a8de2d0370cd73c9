"""Kinds of runs that are killed or stand still, and the tables that they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
from capricious import Fate

from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import Guard, RunOptions
from dagster_retl.testing.fake_http import Rules

Rows = Mapping[int, str]
"""A table: id → name."""

DELIVERED: Rows = dict.fromkeys(range(1, 9), "old") | {8: "bad"}
"""What the first run found. The destination refuses "bad"."""

WANTED: Rows = {4: "new", 5: "new", 6: "old", 7: "old", 8: "mended", 9: "new", 10: "new", 11: "new", 12: "new"}
"""What the killed run finds: three rows left, two changed, one was mended, four came."""

BACK: Rows = {**DELIVERED, 8: "mended"}
"""As if nothing had changed after the first run: what a killed run sent must be taken back."""

ALL_GUARDS = frozenset(Guard)
ALL = Partition("all")

WIRE: tuple[tuple[str, Fate], ...] = (("arrived", "kill"), ("applied", "kill_applied"), ("late", "kill_late"))
"""Moments of a request: it has arrived, it is applied and not answered, it is applied long after its client died."""


@dataclass(frozen=True)
class Kind:
    """A kind of run. header: inserts carry an idempotency key; refresh: it is a full refresh.

    parted: it is of one partition.
    """

    name: str
    mode: str = "mirror"
    header: bool = False
    refresh: bool = False
    parted: bool = False

    @property
    def holds(self) -> bool:
        """Whether rows in flight are held, because nobody may send them again."""
        return self.mode == "insert" and not self.header

    @property
    def rules(self) -> Rules:
        return Rules(
            refuse=lambda record: "that is bad" if record["name"] == "bad" else None,
            idempotency_header="Idempotency-Key" if self.header else None,
            remembers_refusals=False,
        )

    @property
    def config(self) -> dict[str, Any]:
        keyed = {"body": "object", "results": None, "batch_rows": None, "idempotency_header": "Idempotency-Key"}
        return {"concurrency": 2, "batch_rows": 2, "timeout": 20.0, "settle": 900.0} | (keyed if self.header else {})

    @property
    def sync(self) -> dict[str, Any]:
        if not self.parted:
            return {"sync_mode": self.mode}
        query = f"SELECT id, name, score FROM t WHERE :partition = '{ALL.key}'"
        return {"sync_mode": self.mode, "source_query": query, "partitions": [ALL.key]}

    @property
    def plain(self) -> RunOptions:
        """Of a run that is nothing special."""
        return RunOptions(overrides=ALL_GUARDS, partition=ALL if self.parted else None)

    @property
    def options(self) -> RunOptions:
        return replace(self.plain, full_refresh=self.refresh)

    @property
    def wanted(self) -> Rows:
        """What the destination holds in the end."""
        if self.mode == "mirror":
            return WANTED
        return {key: "old" if key < 8 else name for key, name in {**DELIVERED, **WANTED}.items()}


KINDS = [
    Kind("mirror"),
    Kind("insert", mode="insert"),
    Kind("insert-keyed", mode="insert", header=True),
    Kind("refresh", refresh=True),
    Kind("parted", refresh=True, parted=True),
]


def write_table(folder: Path, rows: Rows) -> None:
    """A new warehouse in place of the old one, which a process that stands still may have open."""
    fresh = folder / "fresh.duckdb"
    with duckdb.connect(str(fresh)) as connection:
        connection.execute("CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2))")
        connection.executemany("INSERT INTO t VALUES (?, ?, 1)", [[key, name] for key, name in rows.items()])
    fresh.replace(folder / "warehouse.duckdb")
