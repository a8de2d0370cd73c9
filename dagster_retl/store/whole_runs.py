"""The last runs of many syncs that read all that their query gives: two questions, whatever the number of syncs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, Text, column, select, values

from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.store.database import Database
from dagster_retl.store.runs import run_of, tried_to_write
from dagster_retl.store.schema import runs
from dagster_retl.store.sql import chunks

_PARTS = ("limit", "keys", "replay")  # options of runs that send a part


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """Runs that tried to write and were not limited to some rows, by the sync's id; the newest of each sync."""

    _db: Database

    def successes(self, sync_ids: Iterable[str]) -> dict[str, Run]:
        """The last one that succeeded, of each sync that ever did."""
        return self._newest(sync_ids, runs.c.status == RunStatus.SUCCEEDED.value)

    def attempts(self, sync_ids: Iterable[str]) -> dict[str, Run]:
        """The last one that ended, of each sync that was ever tried."""
        return self._newest(sync_ids, tried_to_write(runs.c))

    def _newest(self, sync_ids: Iterable[str], ended: ColumnElement[bool]) -> dict[str, Run]:
        found: dict[str, Run] = {}
        with self._db.read() as conn:
            for chunk in chunks(sync_ids):
                found |= {row.sync_id: run_of(row) for row in conn.execute(_newest_of(chunk, ended))}
        return found


def _newest_of(sync_ids: list[str], ended: ColumnElement[bool]) -> Select[tuple[object, ...]]:
    wanted = values(column("sync_id", Text), name="wanted").data([(each,) for each in sync_ids]).cte()
    of_one = select(runs.c.id).where(runs.c.sync_id == wanted.c.sync_id, ended, ~runs.c.dry_run, *_whole())
    newest = of_one.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(1).correlate(wanted).scalar_subquery()
    outer = runs.alias("newest")
    return select(outer).select_from(wanted).join(outer, outer.c.id == newest)


def _whole() -> list[ColumnElement[bool]]:
    return [~runs.c.options.contains(f'"{part}":', autoescape=True) for part in _PARTS]
