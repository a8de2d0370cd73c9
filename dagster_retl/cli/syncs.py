"""`retl syncs`, `retl plan`: the syncs of the project, and what a run of one would do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from dagster_retl.cli import options, output, words
from dagster_retl.cli.app import CommandGroup, JsonCommand
from dagster_retl.cli.documents import plan_document, sync_document
from dagster_retl.cli.session import Session, actor
from dagster_retl.cli.stored import export, history, list_retired, purge
from dagster_retl.engine.plan import Plan
from dagster_retl.model.sync import FieldMapping, Sync
from dagster_retl.model.sync_settings import Schedule
from dagster_retl.service import RetiredView, SyncView

_CHANGES = {"create": ("+ create", "green"), "update": ("~ update", "cyan"), "delete": ("− delete", "red")}


@click.group(cls=CommandGroup)
def syncs() -> None:
    """List, show, enable and disable syncs."""


@syncs.command("list")
@click.option("--retired", is_flag=True, help="Those that are gone, and of which something is kept.")
@click.pass_obj
def list_syncs(session: Session, retired: bool) -> None:
    """All syncs of the project: of its file, and those made through the API."""
    if retired:
        list_retired(session)
        return
    with session.service() as service:
        views = service.syncs()
        gone = [] if session.json else service.retired()
    if session.json:
        output.document([sync_document(view) for view in views])
    elif views or gone:
        now = datetime.now(UTC)
        columns = ("=sync", "into", "=mode", "=schedule", "=last run", "=when", ">dead letters")
        rows = [*(_row(view, now) for view in views), *(_retired_row(view, now) for view in gone)]
        output.table(session, columns, rows)
        output.hint(session, "`retl plan SYNC` shows what a run would do, `retl run SYNC` does it.")
    else:
        output.line(session, f"{session.project_path} defines no sync")


@syncs.command("show")
@click.argument("sync")
@click.pass_obj
def show(session: Session, sync: str) -> None:
    """One sync: its query, its mapping, how it stands."""
    with session.service() as service:
        view = service.sync(sync)
    if session.json:
        output.document(sync_document(view))
        return
    output.line(session, words.name(view.sync.name), ("" if view.enabled else "  disabled", "yellow"))
    output.facts(session, _facts(view))
    output.line(session)
    output.line(session, (view.sync.source_query.strip(), "dim"))
    columns = ("=destination field", "from", "=key", "=null")
    output.table(session, columns, [_mapping_row(mapping) for mapping in view.sync.field_mappings])


@syncs.command()
@click.argument("sync")
@click.pass_obj
def enable(session: Session, sync: str) -> None:
    """Let SYNC's schedule start runs."""
    _toggle(session, sync, enabled=True)


@syncs.command()
@click.argument("sync")
@click.pass_obj
def disable(session: Session, sync: str) -> None:
    """Let SYNC's schedule start no more runs; a running one goes on."""
    _toggle(session, sync, enabled=False)


for _command in (history, export, purge):
    syncs.add_command(_command)


@click.command(cls=JsonCommand)
@click.argument("sync")
@options.run_options
@click.pass_obj
def plan(session: Session, /, sync: str, **chosen: Any) -> None:
    """What a run of SYNC would write. Writes nothing."""
    with session.service() as service:
        definition = service.find(sync)
        found = service.plan(definition.id, options.build(definition, chosen))
    if session.json:
        output.document(plan_document(definition, found))
    else:
        _show_plan(session, definition, found)


def _toggle(session: Session, sync: str, *, enabled: bool) -> None:
    with session.service() as service:
        view = service.set_enabled(sync, enabled, actor=actor())
    if session.json:
        output.document(sync_document(view))
    else:
        output.line(session, words.name(view.sync.slug), "  ", "enabled" if enabled else "disabled")


def _row(view: SyncView, now: datetime) -> list[RenderableType]:
    sync, last = view.sync, view.last_run
    return [
        words.name(sync.slug),
        Text.assemble((f"{sync.destination_id}.", "dim"), sync.object_name),
        Text(sync.sync_mode.value),
        _schedule(sync.schedule) if view.enabled else Text("disabled", style="yellow"),
        words.status(last) if last else Text("–", style="dim"),
        words.age((last.started_at or last.created_at) if last else None, now),
        words.count(view.open_dead_letters, "yellow"),
    ]


def _retired_row(view: RetiredView, now: datetime) -> list[RenderableType]:
    last, nothing = view.last_run, Text("–", style="dim")
    return [
        Text(view.retired.name, style="dim"),
        nothing,
        nothing,
        Text("retired", style="yellow"),
        words.status(last) if last else nothing,
        words.age((last.started_at or last.created_at) if last else None, now),
        words.count(view.open_dead_letters, "yellow"),
    ]


def _schedule(schedule: Schedule) -> Text:
    if schedule.expression is None:
        return Text(schedule.type, style="dim")
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    return Text.assemble(schedule.expression, (zone, "dim"))


def _facts(view: SyncView) -> list[tuple[str, RenderableType]]:
    sync, last = view.sync, view.last_run
    run = Text("–", style="dim")
    if last is not None:
        started = last.started_at or last.created_at
        run = Text.assemble(words.status(last), "  ", words.age(started, datetime.now(UTC)), (f"  {last.id}", "dim"))
    about: list[tuple[str, RenderableType]] = [("about", Text(sync.description))] if sync.description else []
    return [
        *about,
        ("id", Text(sync.id)),
        ("into", Text(f"{sync.destination_id}.{sync.object_name}")),
        ("mode", Text(sync.sync_mode.value)),
        ("schedule", _schedule(sync.schedule)),
        *([("partitions", words.partitions(sync.partitions))] if sync.partitions else []),
        *([("after", Text(", ".join(sync.after)))] if sync.after else []),
        ("warehouse", Text(sync.warehouse)),
        ("last run", run),
        ("dead letters", words.count(view.open_dead_letters, "yellow")),
    ]


def _mapping_row(mapping: FieldMapping) -> list[RenderableType]:
    constant = Text.assemble(("constant ", "dim"), words.values({"": mapping.value}).plain.removeprefix(": "))
    return [
        Text(mapping.destination),
        constant if mapping.source is None else Text(mapping.source),
        Text("key" if mapping.key else "", style="bold"),
        Text("left out" if mapping.on_null == "omit" else "sent", style="dim"),
    ]


def _show_plan(session: Session, sync: Sync, found: Plan) -> None:
    totals = found.totals
    output.line(session, words.name(sync.slug), (f"  {found.reason}", "dim"))
    counts = [
        ("read", totals.read, ""),
        ("create", totals.added, "green"),
        ("update", totals.changed, "cyan"),
        ("delete", totals.removals_sent, "red"),
        ("unchanged", totals.unchanged, ""),
        ("fail", totals.rows_failed, "yellow"),
        ("skip", totals.rows_skipped, ""),
    ]
    width = max(len(f"{number:,}") for _, number, _ in counts)
    output.facts(session, [(name, _aligned(number, style, width)) for name, number, style in counts])
    _show_samples(session, found)
    for warning in found.warnings:
        output.line(session, (f"! {warning}", "yellow"))
    for guard in found.guards:
        output.line(session, ("✗ a run would be stopped: ", "bold red"), (guard.message, "red"))
        output.line(session, f"  {guard.hint}")
    if not found.guards:
        output.hint(session, f"`retl run {sync.slug}` does this.")


def _show_samples(session: Session, found: Plan) -> None:
    if found.samples:
        rows: list[list[RenderableType]] = [
            [
                Text(*_CHANGES[row.change]),
                words.key(row.record_keys),
                words.change(row.present, row.values or row.present or {}),
            ]
            for row in found.samples
        ]
        output.table(session, ("=for example", "key", "values"), rows)
    if found.failing:
        failing: list[list[RenderableType]] = [
            [Text(row.code, style="yellow"), words.key(row.record_keys), Text(row.message)] for row in found.failing
        ]
        output.table(session, ("=would fail", "key", "why"), failing)


def _aligned(number: int, style: str, width: int) -> Text:
    text = words.count(number, style)
    text.pad_left(width - len(text))
    return text
