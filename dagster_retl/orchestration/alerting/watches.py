"""Since when each sync is expected to run by its schedule: what nobody else writes down."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from dagster_retl.model.sync import Sync
from dagster_retl.store.notices import Notices
from dagster_retl.store.store import Store

_PREFIX = "watch"
_SEEN = "seen"
_CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Watch:
    """Since when a sync is watched. changed: it was scheduled, enabled or given another schedule at that time.

    Before that it was expected at other times, or never: its last success says nothing about its schedule of now.
    """

    since: datetime
    changed: bool


class Watches:
    """The watches of one project, kept among the notices of its store."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._notices: Notices = store.notices
        self._prefix = f"{_PREFIX}/{quote(project, safe='')}/"

    def follow(self, syncs: Iterable[Sync], scheduled: Collection[str]) -> dict[str, Watch]:
        """Look at all syncs, those expected by their schedule (ids in `scheduled`) and the others; the watch of each.

        One that nobody saw before is watched from now on. Writes what has changed, and nothing else.
        """
        known = {notice.key: notice for notice in self._notices.all(self._prefix)}
        wanted = {self._prefix + sync.id: _times(sync) if sync.id in scheduled else "" for sync in syncs}
        changed = [key for key, times in wanted.items() if key not in known or known[key].detail != times]
        gone = known.keys() - wanted.keys()
        if changed or gone:
            with self._store.begin() as conn:
                for key in changed:
                    self._notices.put(key, _CHANGED if key in known else _SEEN, wanted[key], conn)
                for key in gone:
                    self._notices.delete(key, conn)
            known = {notice.key: notice for notice in self._notices.all(self._prefix)}
        return {
            key.removeprefix(self._prefix): Watch(known[key].notified_at, known[key].state == _CHANGED)
            for key in wanted
        }


def _times(sync: Sync) -> str:
    return f"{sync.schedule.expression} {sync.schedule.timezone}"
