"""The text of messages about syncs that are stale, and dead letters beyond a limit."""

from __future__ import annotations

from collections.abc import Callable

from dagster_retl.model.project import Destination
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.alerting.limits import failure_rate
from dagster_retl.orchestration.alerting.memory import Said
from dagster_retl.orchestration.alerting.messages import Links, Message, Tone
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.orchestration.alerting.words import SYNCS, counted, listed, moment, more, paragraphs


def stale(trouble: Trouble, destination: Destination, links: Links) -> Message:
    """No run has succeeded for longer than the schedule allows."""
    slug, one = trouble.syncs[0].slug, len(trouble.syncs) == 1
    who = f"{slug} into {destination.name} is" if one else f"{len(trouble.syncs)} syncs into {destination.name} are"
    why = f"Do its runs fail, or does nothing start them? `retl runs list {slug}` shows those that there were."
    daemon = "Without any, see whether Dagster's daemon runs, and whether the schedule is on there."
    act = f"To run it now: `retl run {slug}`. If it is not to run: `retl syncs disable {slug}`."
    body = paragraphs([_list(trouble, _late, links), f"{why} {daemon}", act])
    return Message(f"{who} stale: no run has succeeded for too long", body, Tone.FAILURE)


def above_rate(trouble: Trouble, destination: Destination, links: Links) -> Message:
    """A larger share of a run's rows failed than a rule allows."""
    slug, failed = trouble.syncs[0].slug, sum(run.counters.failed for run in trouble.runs.values())
    title = f"More than {trouble.limit} of the rows into {destination.name} failed: {counted(failed, 'row')}"
    act = f"To see why: `retl dlq list {slug}`. The next run sends them again, or `retl dlq replay --sync {slug}` now."
    return Message(title, paragraphs([_list(trouble, _rate, links), act]), Tone.WARNING)


def beyond_age(trouble: Trouble, destination: Destination, links: Links) -> Message:
    """Dead letters have been open for longer than a rule allows."""
    slug, code = trouble.syncs[0].slug, trouble.subject.code
    title = f"Dead letters of {destination.name} have been open for more than {trouble.limit}: {code}"
    see = f"To see all: `retl dlq list {slug} --code {code}`. To send them again: `retl dlq replay --sync {slug}`."
    let_be = "To let one be until its row changes: `retl dlq resolve ID --resolution skipped`."
    return Message(title, paragraphs([_list(trouble, _age, links), f"{see} {let_be}"]), Tone.WARNING)


TEXTS = {Kind.STALE: stale, Kind.FAILURE_RATE: above_rate, Kind.LETTER_AGE: beyond_age}
"""How the troubles of this module are told."""


def recovery(subject: Subject, said: Said, destination: Destination) -> tuple[str, str]:
    """Title and text when such a trouble is over."""
    names, since = listed(said.syncs), moment(said.since)
    if subject.kind is Kind.STALE:
        one = len(said.syncs) == 1
        who = said.syncs[0] if one else f"{len(said.syncs)} syncs"
        title = f"{who} into {destination.name} {'is' if one else 'are'} up to date again"
        return title, f"{names}: a run succeeded, which had been overdue since {since}."
    if subject.kind is Kind.FAILURE_RATE:
        title = f"Few enough rows into {destination.name} fail again"
        return title, f"The last runs of {names} are within the limit, which they had passed since {since}."
    title = f"No dead letters of {destination.name} are too old any more: {subject.code}"
    return title, f"Those of {names} with `{subject.code}` are resolved. The first was seen at {since}."


def _list(trouble: Trouble, about: Callable[[Trouble, Sync], str], links: Links) -> str:
    lines = []
    for sync in trouble.syncs[:SYNCS]:
        link = links.asset(sync.slug)
        lines.append(f"- `{sync.slug}`: {about(trouble, sync)}" + (f", {link}" if link else ""))
    return "\n".join([*lines, *more(len(trouble.syncs) - SYNCS, "syncs")])


def _late(trouble: Trouble, sync: Sync) -> str:
    late, schedule = trouble.late[sync.slug], sync.schedule
    last = "has never succeeded" if late.succeeded is None else f"last succeeded at {moment(late.succeeded)}"
    return f"{last}, and was due by {moment(late.due)} (schedule `{schedule.expression}` {schedule.timezone})"


def _rate(trouble: Trouble, sync: Sync) -> str:
    run = trouble.runs[sync.slug]
    counters = run.counters
    return f"{failure_rate(run):.1%} failed, {counters.failed:,} of {counters.read:,} rows, run `{run.id}`"


def _age(trouble: Trouble, sync: Sync) -> str:
    group = trouble.letters[sync.slug]
    return f"{counted(group.entries, 'dead letter')} open, the oldest since {moment(group.oldest)}"
