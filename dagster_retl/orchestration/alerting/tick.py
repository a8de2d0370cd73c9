"""One tick of the alerts: look at the store, decide, tell, remember.

A trouble is written down as `due` before the first attempt to tell it, and as `told` once it was
delivered: a message that cannot be delivered is tried again at each tick, also after a restart, and
also when the trouble is over by then. A process that dies between the two repeats one message.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from dagster_retl.model.runs import DeadLetter
from dagster_retl.orchestration.alerting.channels import Channel, channels
from dagster_retl.orchestration.alerting.decisions import Verdict, when_it_is_over, while_it_lasts
from dagster_retl.orchestration.alerting.memory import Memory, Said, State
from dagster_retl.orchestration.alerting.messages import EXAMPLES, Links, Message, recovered, troubled
from dagster_retl.orchestration.alerting.notify import send
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble, failing, troubles
from dagster_retl.service import Service

MESSAGES = 30
"""Messages of one tick; the others wait for the next."""

SECONDS = 25.0
"""After this time a tick begins no other message: Dagster ends ticks after 60 s."""


@dataclass(slots=True)
class TickReport:
    """What a tick did. sent: titles. failures: channel id → (label, why). waiting: messages for a later tick."""

    sent: list[str] = field(default_factory=list)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _News:
    """Something to say to one channel. `trouble`: None when it is over."""

    channel: Channel
    verdict: Verdict
    subject: Subject
    trouble: Trouble | None
    said: Said | None


class Alerts:
    """The alerts of a project. dagster_url: where its web pages are, for links."""

    def __init__(self, service: Service, *, dagster_url: str | None = None) -> None:
        self._service = service
        self._project = service.project
        self._memory = Memory(service.store.notices, service.project.project)
        self._links = Links(dagster_url)
        self._now = service.store.now()
        self._attempts = service.store.runs.last_attempts(sync.id for sync in self._project.syncs)

    def tick(self, *, unreachable: Collection[str] = ()) -> TickReport:
        """Tell what is to be told. unreachable: ids of channels that failed lately and are tried last."""
        report = TickReport()
        told = channels(self._project.alerts, self._service.store.uuid)
        told.sort(key=lambda channel: channel.id in unreachable)
        began = time.monotonic()
        for news in self._in_turns(told):
            if news.channel.id in report.failures:
                report.waiting += 1
            elif len(report.sent) >= MESSAGES or time.monotonic() - began > SECONDS:
                report.waiting += 1
            else:
                self._tell(news, report)
        return report

    def _in_turns(self, told: Sequence[Channel]) -> Iterator[_News]:
        """All news, one of each channel after the other, so that none waits for another one's many."""
        said = self._memory.all()
        groups = self._service.store.dead_letters.open_groups()
        present = {trouble.subject: trouble for trouble in troubles(self._project, self._attempts, groups)}
        by_channel = [[*self._present(each, present, said), *self._gone(each, present, said)] for each in told]
        self._forget_left_channels(told, said)
        for turn in zip_longest(*by_channel):
            yield from (news for news in turn if news is not None)

    def _present(
        self, channel: Channel, present: dict[Subject, Trouble], said: dict[tuple[str, Subject], Said]
    ) -> Iterator[_News]:
        for subject, trouble in present.items():
            known = said.get((channel.id, subject))
            verdict = while_it_lasts(channel, trouble, known, self._now)
            if verdict is Verdict.WATCH:
                self._memory.keep(channel, trouble, State.WATCHED)
            elif verdict is not Verdict.NOTHING:
                yield _News(channel, verdict, subject, trouble, known)

    def _gone(
        self, channel: Channel, present: dict[Subject, Trouble], said: dict[tuple[str, Subject], Said]
    ) -> Iterator[_News]:
        for (channel_id, subject), known in said.items():
            if channel_id != channel.id or subject in present:
                continue
            if when_it_is_over(channel, subject.kind, known, well=self._well(subject, known)) is Verdict.FORGET:
                self._memory.forget(channel_id, subject)
            else:
                yield _News(channel, Verdict.RECOVERED, subject, None, known)

    def _forget_left_channels(self, told: Sequence[Channel], said: dict[tuple[str, Subject], Said]) -> None:
        present = {channel.id for channel in told}
        for channel_id, subject in said:
            if channel_id not in present:
                self._memory.forget(channel_id, subject)

    def _well(self, subject: Subject, said: Said) -> bool:
        """Whether the end of a trouble is good news: its syncs are still there, and fail for no other reason."""
        syncs = [sync for sync in self._project.syncs if sync.slug in said.syncs]
        if not syncs or subject.destination_id not in self._project.destinations:
            return False
        return subject.kind is Kind.DEAD_LETTERS or not failing(self._attempts) & {sync.id for sync in syncs}

    def _tell(self, news: _News, report: TickReport) -> None:
        message = self._message(news)
        if news.trouble is not None and news.said is None:
            self._memory.keep(news.channel, news.trouble, State.DUE)
        reason = send(news.channel.url, message)
        if reason is not None:
            report.failures[news.channel.id] = (news.channel.label, reason)
            report.waiting += 1
            return
        report.sent.append(message.title)
        if news.trouble is None:
            self._memory.forget(news.channel.id, news.subject)
        else:
            self._memory.keep(news.channel, news.trouble, State.TOLD)

    def _message(self, news: _News) -> Message:
        destination = self._project.destination(news.subject.destination_id)
        if news.trouble is not None:
            again = news.verdict is Verdict.REMIND
            return troubled(news.trouble, destination, self._links, self._examples(news.trouble), again=again)
        if news.said is None:
            raise ValueError(f"nothing was said of {news.subject}, so nothing is over")
        return recovered(news.subject, news.said, destination, self._links)

    def _examples(self, trouble: Trouble) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        for slug in trouble.letters:
            if len(found) < EXAMPLES:
                wanted = EXAMPLES - len(found)
                found += self._service.dead_letters(slug, error_code=trouble.subject.code, limit=wanted)
        return found
