"""`retl run`, `retl runs`: run a sync, and look at what runs did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from dagster_retl.cli import exits, options, output, words
from dagster_retl.cli.app import CommandGroup, JsonCommand
from dagster_retl.cli.documents import run_document
from dagster_retl.cli.keys import with_prefix
from dagster_retl.cli.launching import launch
from dagster_retl.cli.session import Session
from dagster_retl.model.ids import RUN_PREFIX
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunStatus

_ALWAYS = ("read", "written", "unchanged", "failed")
_WHEN_NOT_ZERO = (
    ("unconfirmed", "of them without an answer for each row"),
    ("skipped", "not tried: silenced, parked, over a limit, or the run ended before"),
    ("unknown", "sent and never answered"),
    ("deleted", "left the query"),
    ("delete_failed", "left the query, and could not be deleted"),
    ("delete_skipped", "left the query, and were not deleted"),
    ("delete_unknown", "left the query; whether they are deleted is unknown"),
)


@click.command(cls=JsonCommand)
@click.argument("sync")
@options.run_options
@click.option("--dry-run", is_flag=True, help="Read and compare, write nothing.")
@click.pass_obj
def run(session: Session, /, sync: str, dry_run: bool, **chosen: Any) -> int:
    """Run SYNC (its name or id) now, through the project's Dagster instance."""
    project = session.project()
    definition = session.definition(project, sync)
    done = launch(session, project, definition.slug, options.build(definition, chosen, dry_run=dry_run))
    if session.json:
        output.document(run_document(done))
    else:
        show_run(session, done)
        _next(session, done)
    return exits.of_run(done)


@click.group(cls=CommandGroup)
def runs() -> None:
    """Look at runs."""


@runs.command("list")
@click.argument("sync", required=False)
@click.option("--status", type=click.Choice([status.value for status in RunStatus]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.pass_obj
def list_runs(session: Session, sync: str | None, status: str | None, limit: int) -> None:
    """The last runs, of all syncs or of SYNC, newest first."""
    with session.service() as service:
        found = service.runs(sync, RunStatus(status) if status else None, limit=limit)
    if session.json:
        output.document([run_document(each) for each in found])
    elif found:
        show_runs(session, found)
        output.hint(session, "`retl runs show RUN` tells more of one.")
    else:
        output.line(session, "no runs yet")
        output.hint(session, "`retl run SYNC` makes one.")


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def show(session: Session, run_id: str) -> None:
    """One run: what was asked, what became of each row."""
    with session.service() as service:
        found = service.run_of(with_prefix(run_id, RUN_PREFIX))
    if session.json:
        output.document(run_document(found))
        return
    show_run(session, found)
    output.facts(session, _circumstances(found))
    _next(session, found)


def show_runs(session: Session, found: Sequence[Run]) -> None:
    """Runs as a table."""
    now = datetime.now(UTC)
    rows = [_row(each, now) for each in found]
    output.table(session, ("=run", "=sync", "=status", ">read", ">written", ">failed", ">took", "=started"), rows)


def _row(each: Run, now: datetime) -> list[RenderableType]:
    counters = each.counters
    return [
        Text(each.id.removeprefix(RUN_PREFIX)),
        words.run_name(each),
        words.status(each),
        words.count(counters.read),
        words.count(counters.written),
        words.count(counters.failed + counters.delete_failed, "yellow"),
        words.duration(each.duration_s),
        words.age(each.started_at or each.created_at, now),
    ]


def show_run(session: Session, done: Run) -> None:
    """What became of a run, and of its rows."""
    mark = {RunStatus.SUCCEEDED: ("✓ ", "green"), RunStatus.FAILED: ("✗ ", "red")}.get(done.status, ("· ", "cyan"))
    took = "" if done.duration_s is None else Text.assemble(" in ", words.duration(done.duration_s))
    output.line(session, mark, words.run_name(done), "  ", words.status(done), took, (_kind(done), "dim"))
    if done.error_message:
        output.line(session, "  ", (f"{done.error_code}: ", "bold red"), (done.error_message, "red"))
    for warning in done.warnings:
        output.line(session, "  ", (f"! {warning}", "yellow"))
    counted(session, done.counters)


def _kind(done: Run) -> str:
    if done.dry_run:
        return " (dry run: nothing was written)"
    if done.options.get("baseline"):
        return " (baseline: nothing was sent)"
    return " (full refresh)" if done.full_refresh else ""


def counted(session: Session, counters: Counters) -> None:
    """Where the rows ended, numbers aligned."""
    named = [(name, getattr(counters, name), _remark(name, counters)) for name in _ALWAYS]
    named += [(name, getattr(counters, name), remark) for name, remark in _WHEN_NOT_ZERO if getattr(counters, name)]
    width = max(len(f"{number:,}") for _, number, _ in named)
    output.facts(session, [(_label(name), _number(name, number, width, remark)) for name, number, remark in named])


def _label(name: str) -> str:
    return name.replace("_", " ")


def _remark(name: str, counters: Counters) -> str:
    if name == "written" and counters.requests:
        return f"in {counters.requests:,} {'request' if counters.requests == 1 else 'requests'}"
    if name != "failed" or not (counters.dead_letters_opened or counters.dead_letters_resolved):
        return ""
    return f"dead letters: {counters.dead_letters_opened:,} opened, {counters.dead_letters_resolved:,} resolved"


def _number(name: str, number: int, width: int, remark: str) -> Text:
    style = "yellow" if "fail" in name or "unknown" in name else ""
    text = words.count(number, style)
    text.pad_left(width - len(text))
    return Text.assemble(text, (f"   {remark}" if remark else "", "dim"))


def _circumstances(found: Run) -> list[tuple[str, RenderableType]]:
    return [
        ("run", Text(found.id)),
        ("dagster run", Text(found.dagster_run_id or "–")),
        ("trigger", Text(found.trigger)),
        *([("partition", Text(found.partition))] if found.partition else []),
        ("created", words.clock(found.created_at)),
        ("started", words.clock(found.started_at)),
        ("finished", words.clock(found.finished_at)),
        ("options", words.values(_special(found)) or Text("–", style="dim")),
    ]


def _special(found: Run) -> dict[str, Any]:
    """The options that somebody chose."""
    return {
        name: value
        for name, value in found.options.items()
        if name != "partition" and value not in (None, False, [], {}, "refuse")
    }


def _next(session: Session, done: Run) -> None:
    if done.counters.failed and not done.dry_run:
        output.hint(session, f"`retl dlq list {done.sync_name}` shows which rows failed, and why.")
    elif done.dry_run:
        output.hint(session, f"`retl plan {done.sync_name}` shows examples of what would be written.")
