"""`retl explain`: the timeline of one row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import click
from rich.console import RenderableType
from rich.text import Text

from dagster_retl.cli import output, words
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.documents import explanation_document
from dagster_retl.cli.keys import parse_key
from dagster_retl.cli.session import Session
from dagster_retl.engine.explain import Attempt, Explanation, Now
from dagster_retl.model.ids import DEAD_LETTER_PREFIX, RUN_PREFIX
from dagster_retl.model.partitions import named
from dagster_retl.model.runs import DeadLetter

_MARKS = {
    "written": ("✓ accepted", "green"),
    "unconfirmed": ("✓ accepted, on the word for its batch", "green"),
    "failed": ("✗ refused", "yellow"),
    "missing": ("· no such record", "yellow"),
    "not_sent": ("· not sent", "dim"),
    "unknown": ("? sent, no answer", "yellow"),
}

_NOW = {
    "create": ("+ create", "green"),
    "update": ("~ update", "cyan"),
    "delete": ("− delete", "red"),
    "unchanged": ("= nothing: it is at the destination as it is", "dim"),
    "absent": ("· nothing: the query does not give this row", "dim"),
}

_SKIPPED = {
    "held": "it may have arrived; resolve or replay its dead letter",
    "silenced": "somebody decided to leave this version alone",
    "parked": "it was refused too often; it waits for a change, a replay or a resolve",
    "mode": "the sync inserts, and this key was inserted before",
}


class _Entry(NamedTuple):
    """A line of the timeline."""

    at: datetime
    what: Text
    detail: Text


@click.command(cls=JsonCommand)
@click.argument("sync")
@click.argument("key")
@click.option("--offline", is_flag=True, help="Do not ask the warehouse what it gives now.")
@click.pass_obj
def explain(session: Session, sync: str, key: str, offline: bool) -> None:
    """All that is known of one row of SYNC: its KEY, or `field=value,field=value`."""
    with session.service() as service:
        definition = service.find(sync)
        told = service.explain(definition.id, parse_key(key, definition.key_fields, hint="KEY"), offline=offline)
    if session.json:
        output.document(explanation_document(told))
    else:
        _show(session, told)


def _show(session: Session, told: Explanation) -> None:
    output.line(session, words.name(told.sync.slug), "  ", words.key(told.record_keys))
    output.facts(session, list(_facts(told)))
    entries = sorted(_timeline(told), key=lambda entry: entry.at)
    if entries:
        rows: list[list[RenderableType]] = [[words.clock(each.at), each.what, each.detail] for each in entries]
        output.table(session, ("=when", "=what", "detail"), rows)
    elif told.delivered is None:
        output.line(session, ("nothing is known of this row", "dim"))
    for problem in told.missing:
        output.line(session, (f"! cannot be read: {problem}", "yellow"))
    _advise(session, told)


def _facts(told: Explanation) -> Iterator[tuple[str, RenderableType]]:
    if told.now is not None:
        yield "next run", _next(told.now)
        if told.now.values:
            yield "values", words.change(told.now.present, told.now.values)
        for guard in told.now.guards:
            yield "guard", Text(f"a run would be stopped: {guard.message}", style="red")
        for warning in told.now.warnings:
            yield "warning", Text(warning, style="yellow")
    yield "snapshot", _delivered(told)
    if told.partition is not None:
        yield "partition", Text(named(told.partition) or "")
    for question in told.suspects:
        sent = "a version of it" if question.content else "its removal"
        yield "suspect", Text.assemble((f"{sent} may still land until ", "yellow"), words.clock(question.until))
    for decision in told.decisions:
        said = "accepted by hand" if decision.accepted else "to be tried again"
        yield "decided", Text.assemble(f"{said}, and no run has seen it yet: ", words.clock(decision.at))
    for letter in told.letters:
        if (stands := _standing(told, letter)) is not None:
            yield "dead letter", Text.assemble((stands, "yellow"), (f"  {_short(letter)}", "dim"))


def _next(now: Now) -> Text:
    if now.error is not None:
        return Text(f"cannot be told: {now.error.message}", style="red")
    if now.outcome == "skipped":
        return Text.assemble(("· skip  ", "yellow"), _SKIPPED.get(now.reason or "", now.reason or ""))
    if now.failing is not None:
        return Text.assemble(("✗ fail  ", "yellow"), (now.failing.code, "yellow"), f"  {now.failing.message}")
    return Text(*_NOW[now.outcome or "absent"])


def _delivered(told: Explanation) -> Text:
    row = told.delivered
    if row is None:
        return Text("not there: the destination never accepted it, or it was deleted since", style="dim")
    said = "deleted" if row.deleted else "delivered" if row.content else "at the destination, content unknown"
    parts: list[Text | str | tuple[str, str]] = [said]
    if row.since is not None and row.run_id is not None:
        parts += [" ", words.age(row.since, datetime.now(UTC)), (f" in {row.run_id.removeprefix(RUN_PREFIX)}", "dim")]
    if row.record_id is not None:
        parts += [", record ", Text(row.record_id, style=f"link {row.record_url}" if row.record_url else "")]
        parts += [(f"  {row.record_url}", "dim")] if row.record_url else []
    if row.stale:
        parts.append((", a full refresh is under way", "yellow"))
    return Text.assemble(*parts)


def _standing(told: Explanation, letter: DeadLetter) -> str | None:
    """What an entry means for the next run."""
    if told.silences(letter):
        return "silenced: this version is left alone until it changes"
    if letter.resolved:
        return None
    if letter.held:
        return "held: it may have arrived, and no run sends it until somebody decides"
    if letter.replaying:
        return "a replay is under way"
    return "parked: refused too often" if told.parked(letter) else "open: the next run tries again"


def _timeline(told: Explanation) -> Iterator[_Entry]:
    for attempt in told.attempts:
        yield _Entry(attempt.at, Text(*_MARKS[attempt.outcome]), _attempt(attempt))
    for letter in told.letters:
        yield _Entry(letter.first_seen_at, Text("dead letter", style="yellow"), _opened(letter))
        if letter.attempts > 1:
            again = Text.assemble(f"failed again, {letter.attempts:,} times in all", (f"  {_short(letter)}", "dim"))
            yield _Entry(letter.last_seen_at, Text("dead letter", style="yellow"), again)
        if letter.resolved_at is not None:
            closed = Text.assemble(f"resolved: {letter.resolution}", (f"  {_short(letter)}", "dim"))
            yield _Entry(letter.resolved_at, Text("dead letter", style="green"), closed)


def _attempt(attempt: Attempt) -> Text:
    parts: list[str | tuple[str, str]] = ["removal" if attempt.removal else attempt.operation]
    if attempt.error_code is not None:
        parts.append((f"  {attempt.error_code}", "yellow"))
    if attempt.record_id is not None:
        parts.append(f"  record {attempt.record_id}")
    parts.append((f"  run {attempt.run_id.removeprefix(RUN_PREFIX)}", "dim"))
    if attempt.dagster_run_id is not None:
        parts.append((f", Dagster {attempt.dagster_run_id}", "dim"))
    if not attempt.folded:
        parts.append(("  the run is under way, or died", "yellow"))
    if not attempt.current:
        parts.append(("  before the sync was pointed elsewhere", "dim"))
    return Text.assemble(*parts)


def _opened(letter: DeadLetter) -> Text:
    return Text.assemble(
        (letter.error_code, "yellow"), f"  {' '.join(letter.message.split())}", (f"  {_short(letter)}", "dim")
    )


def _short(letter: DeadLetter) -> str:
    return letter.id.removeprefix(DEAD_LETTER_PREFIX)


def _advise(session: Session, told: Explanation) -> None:
    still_open = [letter for letter in told.letters if not letter.resolved]
    if still_open:
        output.hint(session, f"`retl dlq replay {_short(still_open[-1])}` sends the row again.")
    if told.kept_since is not None:
        output.hint(session, f"The history goes back to {words.clock(told.kept_since)}.")
