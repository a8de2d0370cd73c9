"""One tick of the alerts: look at the store, decide, tell, remember.

A trouble is written down as `due` before the first attempt to tell it, and as `told` once it was
delivered: a message that cannot be delivered is tried again at each tick, also after a restart, and
also when the trouble is over by then. A process that dies between the two repeats one message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest

from dagster_retl.model.runs import DeadLetter
from dagster_retl.orchestration.alerting.channels import Channel, channels
from dagster_retl.orchestration.alerting.decisions import Verdict, when_it_is_over, while_it_lasts
from dagster_retl.orchestration.alerting.limit_messages import TEXTS, recovery
from dagster_retl.orchestration.alerting.look import Look
from dagster_retl.orchestration.alerting.memory import Memory, Said, State
from dagster_retl.orchestration.alerting.messages import EXAMPLES, Links, Message, how_it_ended, recovered, troubled
from dagster_retl.orchestration.alerting.notify import send
from dagster_retl.orchestration.alerting.outage_messages import answers_again, down
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.orchestration.alerting.watches import Watches
from dagster_retl.service import Service

_TEXTS = {**TEXTS, Kind.DESTINATION_DOWN: down}
_ENDINGS = {**dict.fromkeys(TEXTS, recovery), Kind.DESTINATION_DOWN: answers_again}

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
    """Something to say to one channel, and what to remember once it was said."""

    channel: Channel
    message: Callable[[], Message]
    remember: Callable[[], None]


def tick(
    service: Service, *, dagster_url: str | None = None, unreachable: Collection[str] = (), of: str | None = None
) -> TickReport:
    """Tell what is to be told.

    dagster_url: where Dagster's pages are, for links. unreachable: ids of channels that failed
    lately; they are tried last. of: the one sync that is watched, which remembers for itself what was said.
    """
    told = channels(service.project.alerts, service.store.uuid)
    told.sort(key=lambda channel: channel.id in unreachable)
    return _Tick(service, Links(dagster_url), of, told).run()


class _Tick:
    """A look at the store, and what follows from it."""

    def __init__(self, service: Service, links: Links, of: str | None, told: Sequence[Channel]) -> None:
        store = service.store
        self._service = service
        syncs = [sync for sync in service.definitions() if of in (None, sync.slug)]
        self._project = service.project.model_copy(update={"syncs": tuple(syncs)})
        self._links = links
        name = service.project.project if of is None else f"{service.project.project}/{of}"
        self._memory = Memory(store.notices, name)
        self._said = self._memory.all()
        self._told = told
        self._look = Look(service, self._project, Watches(store, name), told)

    def run(self) -> TickReport:
        report = TickReport()
        began = time.monotonic()
        self._forget_left_channels()
        for news in self._in_turns():
            enough = len(report.sent) >= MESSAGES or time.monotonic() - began > SECONDS
            if enough or news.channel.id in report.failures:
                report.waiting += 1
            else:
                self._tell(news, report)
        return report

    def _in_turns(self) -> Iterator[_News]:
        """All news, one of each channel after the other, so that none waits for another one's many."""
        by_channel = [[*self._news_of_present(channel), *self._news_of_past(channel)] for channel in self._told]
        for turn in zip_longest(*by_channel):
            yield from (news for news in turn if news is not None)

    def _news_of_present(self, channel: Channel) -> Iterator[_News]:
        for subject, trouble in self._look.present(channel).items():
            said = self._said.get((channel.id, subject))
            verdict = while_it_lasts(channel, trouble, said, self._look.now)
            if verdict is Verdict.WATCH:
                self._memory.keep(channel, trouble, State.WATCHED, said)
            elif verdict is not Verdict.NOTHING:
                if said is None or said.state is State.WATCHED:
                    self._memory.keep(channel, trouble, State.DUE, said)
                message = partial(self._troubled, trouble, again=verdict is Verdict.REMIND)
                yield _News(channel, message, partial(self._memory.keep, channel, trouble, State.TOLD, said))

    def _news_of_past(self, channel: Channel) -> Iterator[_News]:
        for (channel_id, subject), said in self._said.items():
            if channel_id != channel.id or subject in self._look.present(channel):
                continue
            if when_it_is_over(channel, subject.kind, said, well=self._look.well(subject, said)) is Verdict.FORGET:
                self._memory.forget(channel_id, subject)
            else:
                message = partial(self._recovered, subject, said)
                yield _News(channel, message, partial(self._memory.forget, channel_id, subject))

    def _forget_left_channels(self) -> None:
        present = {channel.id for channel in self._told}
        for channel_id, subject in self._said:
            if channel_id not in present:
                self._memory.forget(channel_id, subject)

    def _tell(self, news: _News, report: TickReport) -> None:
        message = news.message()
        reason = send(news.channel.url, message)
        if reason is None:
            report.sent.append(message.title)
            news.remember()
        else:
            report.failures[news.channel.id] = (news.channel.label, reason)
            report.waiting += 1

    def _troubled(self, trouble: Trouble, *, again: bool) -> Message:
        destination = self._project.destination(trouble.subject.destination_id)
        tell = _TEXTS.get(trouble.subject.kind)
        if tell is not None:
            message = tell(trouble, destination, self._links)
        else:
            message = troubled(trouble, destination, self._links, self._examples(trouble))
        return message.again() if again else message

    def _recovered(self, subject: Subject, said: Said) -> Message:
        destination = self._project.destination(subject.destination_id)
        ending = _ENDINGS.get(subject.kind, how_it_ended)
        return recovered(ending(subject, said, destination), said, self._links)

    def _examples(self, trouble: Trouble) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        for slug in trouble.letters:
            if len(found) < EXAMPLES:
                wanted = EXAMPLES - len(found)
                found += self._service.dead_letters(slug, error_code=trouble.subject.code, limit=wanted)
        return found
