"""The text of a message: a title of one line, and a body in Markdown that says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from dagster_retl.errors import ErrorCode
from dagster_retl.model.project import Destination
from dagster_retl.model.runs import DeadLetter, Guard, Run
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.alerting.memory import Said, State
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.orchestration.alerting.words import (
    SYNCS,
    counted,
    in_code,
    listed,
    moment,
    more,
    one_line,
    paragraphs,
    quoted,
)

EXAMPLES = 5
"""Dead letters that a message shows."""

_REASONS = 3
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

    def again(self) -> Message:
        """The same, to people who heard of it before."""
        return Message(f"Still: {self.title}", self.body, self.tone)


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


def troubled(trouble: Trouble, destination: Destination, links: Links, examples: Sequence[DeadLetter]) -> Message:
    """What is wrong. examples: dead letters to show."""
    if trouble.subject.kind is Kind.DEAD_LETTERS:
        return _dead_letters(trouble, destination, links, examples)
    return _failing(trouble, destination, links)


def recovered(ending: tuple[str, str], said: Said, links: Links) -> Message:
    """It is over. Of a trouble that could not be told while it lasted, this is all that people hear.

    ending: title, and how it ended.
    """
    title, text = ending
    late = "Nobody could be told while it lasted: the message about it could not be delivered."
    body = [
        text,
        late if said.state is State.DUE else "",
        "\n".join(f"- {link}" for slug in said.syncs[:SYNCS] if (link := links.asset(slug))),
    ]
    return Message(title, paragraphs(body), Tone.SUCCESS)


def how_it_ended(subject: Subject, said: Said, destination: Destination) -> tuple[str, str]:
    """Title and text when a trouble of this module is over."""
    return _recovery_title(subject, said, destination), _how_it_ended(subject, said)


def _failing(trouble: Trouble, destination: Destination, links: Links) -> Message:
    guard = trouble.subject.kind is Kind.GUARD_TRIPPED
    count, code = len(trouble.syncs), trouble.subject.code
    who = trouble.syncs[0].slug if count == 1 else f"{count} syncs"
    if guard:
        title = f"Guard {code!r} stopped {who} into {destination.name}"
    else:
        title = f"{who} into {destination.name} {'fails' if count == 1 else 'fail'}: {code}"
    actions = _guard_actions(trouble) if guard else _failure_actions(trouble, destination)
    return Message(title, paragraphs([*_reasons(trouble, links), *actions]), Tone.FAILURE)


def _reasons(trouble: Trouble, links: Links) -> Iterable[str]:
    """Each reason with the syncs that gave it; an expired token is said once, not 200 times."""
    by_reason: dict[str, list[Sync]] = {}
    for sync in trouble.syncs:
        by_reason.setdefault(trouble.runs[sync.slug].error_message or "no reason was given", []).append(sync)
    for reason, syncs in islice(by_reason.items(), _REASONS):
        yield quoted(reason)
        lines = [f"- {run_line(sync.slug, trouble.runs[sync.slug], links)}" for sync in syncs[:SYNCS]]
        yield "\n".join([*lines, *more(len(syncs) - SYNCS, "syncs")])
    yield from (line.removeprefix("- ") for line in more(len(by_reason) - _REASONS, "reasons"))


def run_line(slug: str, run: Run, links: Links) -> str:
    """When a run of a sync ended, and where its log is."""
    link = links.run(run)
    return f"`{slug}` at {moment(run.finished_at or run.created_at)}, run `{run.id}`" + (f", {link}" if link else "")


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
    shares = [f"`{sync.slug}` ({trouble.letters[sync.slug].entries:,})" for sync in trouble.syncs[:SYNCS]]
    names = ", ".join(shares) + ("" if len(trouble.syncs) <= SYNCS else f" and {len(trouble.syncs) - SYNCS} more")
    body = [
        f"{counted(trouble.entries, 'dead letter')} since {moment(trouble.since)}: {names}.",
        "\n".join([*map(_example, examples), *more(trouble.entries - len(examples), "dead letters")]),
        f"To see all: `retl dlq list {slug} --code {code}`. To send them again: `retl dlq replay --sync {slug}`.",
        _HELD if any(letter.held for letter in examples) else "",
        " · ".join(link for sync in trouble.syncs[:SYNCS] if (link := links.asset(sync.slug))),
    ]
    verb = "was" if trouble.rows == 1 else "were"
    title = f"{counted(trouble.rows, 'row')} {verb} not written to {destination.name}: {code}"
    return Message(title, paragraphs(body), Tone.WARNING)


def _example(letter: DeadLetter) -> str:
    vendor = f" {letter.vendor_code}:" if letter.vendor_code else ""
    key = _key(letter.record_keys) if letter.record_keys else counted(letter.rows, "row") + " without a key"
    return f"- {key}:{vendor} {one_line(letter.message)}"


def _key(values: Mapping[str, object]) -> str:
    return in_code(", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()))


def _recovery_title(subject: Subject, said: Said, destination: Destination) -> str:
    if subject.kind is Kind.DEAD_LETTERS:
        return f"No dead letters are left for {destination.name}: {subject.code}"
    one = len(said.syncs) == 1
    who = said.syncs[0] if one else f"{len(said.syncs)} syncs"
    what = f"guard {subject.code!r}" if subject.kind is Kind.GUARD_TRIPPED else subject.code
    return f"{who} into {destination.name} {'works' if one else 'work'} again: {what}"


def _how_it_ended(subject: Subject, said: Said) -> str:
    names, since, code = listed(said.syncs), moment(said.since), subject.code
    it = "It" if len(said.syncs) == 1 else "They"
    if subject.kind is Kind.DEAD_LETTERS:
        return f"All dead letters of {names} with `{code}` are resolved. The first was seen at {since}."
    if subject.kind is Kind.GUARD_TRIPPED:
        return f"{names} succeeded. Guard `{code}` had stopped {'it' if it == 'It' else 'them'} since {since}."
    return f"{names} succeeded. {it} had failed with `{code}` since {since}."
