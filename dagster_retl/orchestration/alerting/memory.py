"""What each channel has heard: the alerts' memory in the store."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import quote, unquote

from dagster_retl.orchestration.alerting.channels import Channel
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.store.notices import Notice, Notices

_PREFIX = "alert"


class State(StrEnum):
    """How far the news of a trouble got."""

    DUE = "due"
    """It is being told: nobody knows yet that it arrived. Written down before the first attempt."""
    TOLD = "told"
    WATCHED = "watched"
    """Only its end will be told."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a channel knows of a subject. at: when it heard last. entries: dead letters at that time."""

    state: State
    at: datetime
    syncs: tuple[str, ...]
    entries: int
    since: datetime


class Memory:
    """Of one project: (channel, subject) → what was said. Everybody else's notices stay out of sight."""

    def __init__(self, notices: Notices, project: str) -> None:
        self._notices = notices
        self._prefix = f"{_PREFIX}/{_quoted(project)}/"

    def all(self) -> dict[tuple[str, Subject], Said]:
        """Everything, by channel id and subject."""
        return {self._parts(notice.key): _said(notice) for notice in self._notices.all(self._prefix)}

    def keep(self, channel: Channel, trouble: Trouble, state: State, before: Said | None) -> None:
        """Remember how far the news of a trouble got, as of now; `before`: what was remembered until now."""
        since = min(trouble.since, before.since) if before else trouble.since
        slugs = [sync.slug for sync in trouble.syncs]
        detail = {"syncs": slugs, "entries": trouble.entries, "since": since.isoformat()}
        self._notices.put(self._key(channel.id, trouble.subject), state, json.dumps(detail))

    def forget(self, channel_id: str, subject: Subject) -> None:
        """The trouble is over, and who had to hear of it did."""
        self._notices.delete(self._key(channel_id, subject))

    def _key(self, channel_id: str, subject: Subject) -> str:
        return self._prefix + "/".join(map(_quoted, (channel_id, *asdict(subject).values())))

    def _parts(self, key: str) -> tuple[str, Subject]:
        channel_id, kind, destination_id, code = map(unquote, key.removeprefix(self._prefix).split("/"))
        return channel_id, Subject(Kind(kind), destination_id, code)


def _said(notice: Notice) -> Said:
    detail = json.loads(notice.detail)
    since = datetime.fromisoformat(detail["since"])
    return Said(State(notice.state), notice.notified_at, tuple(detail["syncs"]), detail["entries"], since)


def _quoted(part: str) -> str:
    return quote(part, safe="")
