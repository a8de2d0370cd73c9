"""The text of a message: a title of one line, and a body in Markdown that says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice

from dagster_retl.errors import ErrorCode
from dagster_retl.model.project import Destination
from dagster_retl.model.runs import DeadLetter, Guard, Run
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.alerting.memory import Said, State
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.service.health import Outage

EXAMPLES = 5
"""Dead letters that a message shows."""

_SYNCS = 20
_REASONS = 3
_LENGTH = 300  # characters of a vendor's message
_NOT_OF_DESTINATION = frozenset(
    {
        ErrorCode.SOURCE_UNAVAILABLE,
        ErrorCode.SOURCE_QUERY,
        ErrorCode.SOURCE_COLUMN_MISSING,
        ErrorCode.CONFIGURATION,
        ErrorCode.STORE_VERSION,
        ErrorCode.STATE_MISSING,
        ErrorCode.STATE_UNAVAILABLE,
    }
)
_HELD = "Look at the destination first: `retl dlq resolve ID` where the record arrived, `retl dlq replay ID` where not."


class Tone(StrEnum):
    """How bad the news is."""

    FAILURE = "failure"
    WARNING = "warning"
    SUCCESS = "success"


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent. `body` is Markdown."""

    title: str
    body: str
    tone: Tone


class Links:
    """Links into Dagster's pages, where its address is known."""

    def __init__(self, dagster_url: str | None) -> None:
        self._url = dagster_url.rstrip("/") if dagster_url else None

    def asset(self, slug: str) -> str:
        """The page of a sync; empty without an address."""
        return f"[{slug} in Dagster]({self._url}/assets/retl/{slug})" if self._url else ""

    def run(self, run: Run) -> str:
        """The page of a Dagster run; empty without an address, or for a run that Dagster does not know."""
        return f"[log]({self._url}/runs/{run.dagster_run_id})" if self._url and run.dagster_run_id else ""


def troubled(
    trouble: Trouble, destination: Destination, links: Links, examples: Sequence[DeadLetter], *, again: bool
) -> Message:
    """What is wrong. examples: dead letters to show. again: people heard of it before."""
    if trouble.subject.kind is Kind.DEAD_LETTERS:
        message = _dead_letters(trouble, destination, links, examples)
    elif trouble.outage is not None:
        message = _down(trouble, trouble.outage, destination, links)
    else:
        message = _failing(trouble, destination, links)
    return Message(f"Still: {message.title}" if again else message.title, message.body, message.tone)


def recovered(subject: Subject, said: Said, destination: Destination, links: Links) -> Message:
    """It is over. Of a trouble that could not be told while it lasted, this is all that people hear."""
    late = "Nobody could be told while it lasted: the message about it could not be delivered."
    body = [
        _how_it_ended(subject, said),
        late if said.state is State.DUE else "",
        "\n".join(f"- {link}" for slug in said.syncs[:_SYNCS] if (link := links.asset(slug))),
    ]
    return Message(_recovery_title(subject, said, destination), _paragraphs(body), Tone.SUCCESS)


def _failing(trouble: Trouble, destination: Destination, links: Links) -> Message:
    guard = trouble.subject.kind is Kind.GUARD_TRIPPED
    count, code = len(trouble.syncs), trouble.subject.code
    who = trouble.syncs[0].slug if count == 1 else f"{count} syncs"
    if guard:
        title = f"Guard {code!r} stopped {who} into {destination.name}"
    else:
        title = f"{who} into {destination.name} {'fails' if count == 1 else 'fail'}: {code}"
    actions = _guard_actions(trouble) if guard else _failure_actions(trouble, destination)
    return Message(title, _paragraphs([*_reasons(trouble, links), *actions]), Tone.FAILURE)


def _down(trouble: Trouble, outage: Outage, destination: Destination, links: Links) -> Message:
    slugs = [sync.slug for sync in trouble.syncs]
    wait = "waits" if len(slugs) == 1 else "wait"
    failed = [f"- {_run_line(slug, run, links)}" for slug, run in trouble.runs.items()]
    body = [
        _quote(f"{outage.code}: {outage.reason}"),
        f"{_names(slugs)} {wait} until it answers, and then go on by schedule." if slugs else "",
        "\n".join([*failed[:_SYNCS], *_more(len(failed) - _SYNCS, "failed runs")]),
        f"To find out more: `retl check {destination.id}`.",
    ]
    return Message(f"{destination.name} is down", _paragraphs(body), Tone.FAILURE)


def _reasons(trouble: Trouble, links: Links) -> Iterable[str]:
    """Each reason with the syncs that gave it; an expired token is said once, not 200 times."""
    by_reason: dict[str, list[Sync]] = {}
    for sync in trouble.syncs:
        by_reason.setdefault(trouble.runs[sync.slug].error_message or "no reason was given", []).append(sync)
    for reason, syncs in islice(by_reason.items(), _REASONS):
        yield _quote(reason)
        lines = [f"- {_run_line(sync.slug, trouble.runs[sync.slug], links)}" for sync in syncs[:_SYNCS]]
        yield "\n".join([*lines, *_more(len(syncs) - _SYNCS, "syncs")])
    yield from (line.removeprefix("- ") for line in _more(len(by_reason) - _REASONS, "reasons"))


def _run_line(slug: str, run: Run, links: Links) -> str:
    link = links.run(run)
    return f"`{slug}` at {_time(run.finished_at or run.created_at)}, run `{run.id}`" + (f", {link}" if link else "")


def _failure_actions(trouble: Trouble, destination: Destination) -> list[str]:
    slug, code = trouble.syncs[0].slug, trouble.subject.code
    if code == ErrorCode.INTERRUPTED:
        return [f"The next run finishes the work: `retl run {slug}`, or wait for the schedule."]
    check = "`retl check`" if code in _NOT_OF_DESTINATION else f"`retl check {destination.id}`"
    return [f"To find out more: {check}. To try again: `retl run {slug}`."]


def _guard_actions(trouble: Trouble) -> list[str]:
    slug, guard = trouble.syncs[0].slug, trouble.subject.code
    if guard == Guard.ACCOUNT:
        override = f"`retl run {slug} --reset` (send everything to it) or `retl run {slug} --keep-snapshot`"
    else:
        override = f"`retl run {slug} --override {guard}`"
    wrote = "Delivery was stopped." if guard == Guard.FAILURES else "Nothing was written."
    return [f"{wrote} To look first: `retl plan {slug}`. To go on all the same, once: {override}."]


def _dead_letters(trouble: Trouble, destination: Destination, links: Links, examples: Sequence[DeadLetter]) -> Message:
    code = trouble.subject.code
    slug = trouble.syncs[0].slug
    shares = [f"`{sync.slug}` ({trouble.letters[sync.slug].entries:,})" for sync in trouble.syncs[:_SYNCS]]
    names = ", ".join(shares) + ("" if len(trouble.syncs) <= _SYNCS else f" and {len(trouble.syncs) - _SYNCS} more")
    body = [
        f"{_count(trouble.entries, 'dead letter')} since {_time(trouble.since)}: {names}.",
        "\n".join([*map(_example, examples), *_more(trouble.entries - len(examples), "dead letters")]),
        f"To see all: `retl dlq list {slug} --code {code}`. To send them again: `retl dlq replay --sync {slug}`.",
        _HELD if any(letter.held for letter in examples) else "",
        " · ".join(link for sync in trouble.syncs[:_SYNCS] if (link := links.asset(sync.slug))),
    ]
    verb = "was" if trouble.rows == 1 else "were"
    title = f"{_count(trouble.rows, 'row')} {verb} not written to {destination.name}: {code}"
    return Message(title, _paragraphs(body), Tone.WARNING)


def _example(letter: DeadLetter) -> str:
    vendor = f" {letter.vendor_code}:" if letter.vendor_code else ""
    key = _key(letter.record_keys) if letter.record_keys else _count(letter.rows, "row") + " without a key"
    return f"- {key}:{vendor} {_line(letter.message)}"


def _key(values: Mapping[str, object]) -> str:
    return _code(", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()))


def _recovery_title(subject: Subject, said: Said, destination: Destination) -> str:
    if subject.kind is Kind.DEAD_LETTERS:
        return f"No dead letters are left for {destination.name}: {subject.code}"
    if subject.kind is Kind.DESTINATION_DOWN:
        return f"{destination.name} answers again"
    one = len(said.syncs) == 1
    who = said.syncs[0] if one else f"{len(said.syncs)} syncs"
    what = f"guard {subject.code!r}" if subject.kind is Kind.GUARD_TRIPPED else subject.code
    return f"{who} into {destination.name} {'works' if one else 'work'} again: {what}"


def _how_it_ended(subject: Subject, said: Said) -> str:
    names, since, code = _names(said.syncs), _time(said.since), subject.code
    it = "It" if len(said.syncs) == 1 else "They"
    if subject.kind is Kind.DESTINATION_DOWN:
        syncs = f" The schedules of {names} go on; `retl run` waits for none." if said.syncs else ""
        return f"It had been down since {since}.{syncs}"
    if subject.kind is Kind.DEAD_LETTERS:
        return f"All dead letters of {names} with `{code}` are resolved. The first was seen at {since}."
    if subject.kind is Kind.GUARD_TRIPPED:
        return f"{names} succeeded. Guard `{code}` had stopped {'it' if it == 'It' else 'them'} since {since}."
    return f"{names} succeeded. {it} had failed with `{code}` since {since}."


def _names(slugs: Sequence[str]) -> str:
    shown = ", ".join(f"`{slug}`" for slug in slugs[:_SYNCS])
    return shown if len(slugs) <= _SYNCS else f"{shown} and {len(slugs) - _SYNCS} more"


def _more(count: int, noun: str) -> list[str]:
    return [f"- … and {count:,} more {noun}"] if count > 0 else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _quote(text: str) -> str:
    return "\n".join(f"> {_shortened(line)}" for line in text.splitlines() if line.strip())


def _line(text: str) -> str:
    return _shortened(" ".join(text.split()))


def _shortened(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _paragraphs(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part)
