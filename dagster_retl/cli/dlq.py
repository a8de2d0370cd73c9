"""`retl dlq`: the rows that could not be written; resolve them, send them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.console import RenderableType
from rich.text import Text

from dagster_retl.cli import exits, output, words
from dagster_retl.cli.app import CommandGroup
from dagster_retl.cli.documents import letter_document, run_document, stats_document
from dagster_retl.cli.keys import with_prefix
from dagster_retl.cli.launching import launch
from dagster_retl.cli.runs import show_run
from dagster_retl.cli.session import Session, actor
from dagster_retl.errors import ErrorCode
from dagster_retl.model.ids import DEAD_LETTER_PREFIX, RUN_PREFIX
from dagster_retl.model.runs import DeadLetter, Run, RunStatus
from dagster_retl.service import Replay, Service
from dagster_retl.webserver import WebserverError

_MOST = 10_000
"""Dead letters that one replay takes."""

_ID_LENGTH = 26


@click.group(cls=CommandGroup)
def dlq() -> None:
    """Dead letters: the rows that could not be written."""


@dlq.command("list")
@click.argument("sync", required=False)
@click.option("--resolved", is_flag=True, help="The resolved ones, not the open ones.")
@click.option("--run", "run_id", metavar="RUN", help="Only those that this run saw last.")
@click.option("--code", type=click.Choice([code.value for code in ErrorCode]), metavar="CODE", help="Only this error.")
@click.option("--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most so many.")
@click.pass_obj
def list_letters(
    session: Session, sync: str | None, resolved: bool, run_id: str | None, code: str | None, limit: int
) -> None:
    """The open dead letters, of all syncs or of SYNC, newest first."""
    with session.service() as service:
        letters = service.dead_letters(
            sync,
            resolved=resolved,
            run_id=with_prefix(run_id, RUN_PREFIX) if run_id else None,
            error_code=code,
            limit=limit,
        )
        names = {each.id: each.slug for each in service.definitions()}
    if session.json:
        output.document([letter_document(letter) for letter in letters])
    elif letters:
        show_letters(session, letters, names)
        _after_list(session, letters, limit, resolved=resolved)
    else:
        output.line(session, "no resolved dead letters" if resolved else "no open dead letters")


@dlq.command("show")
@click.argument("entry", metavar="ID")
@click.option("--payload", "with_payload", is_flag=True, help="Decrypt the document that was refused.")
@click.pass_obj
def show(session: Session, entry: str, with_payload: bool) -> None:
    """One dead letter in full."""
    with session.service() as service:
        letter = service.dead_letter(with_prefix(entry, DEAD_LETTER_PREFIX))
        payload = service.payload(letter.id) if with_payload else None
        names = {each.id: each.slug for each in service.definitions()}
    if session.json:
        decrypted = {"payload": None if payload is None else json.loads(payload)} if with_payload else {}
        output.document(letter_document(letter) | decrypted)
        return
    output.line(session, (letter.error_code, "bold yellow"), "  ", letter.message)
    output.facts(session, _facts(letter, names.get(letter.sync_id, letter.sync_id)))
    if with_payload:
        output.line(session, ("what was sent was not kept", "dim") if payload is None else payload.decode())
    if not letter.resolved:
        output.hint(session, f"`retl dlq replay {_short(letter)}` sends the row again, as the warehouse has it now.")


@dlq.command()
@click.argument("sync", required=False)
@click.pass_obj
def stats(session: Session, sync: str | None) -> None:
    """How many dead letters there are, and why the open ones failed."""
    with session.service() as service:
        found = service.dead_letter_stats(sync)
    if session.json:
        output.document(stats_document(found))
        return
    output.facts(
        session, [("open", words.count(found.open_count, "yellow")), ("resolved", words.count(found.resolved_count))]
    )
    by_code = sorted(found.by_error_code.items(), key=lambda item: (-item[1], item[0]))
    if by_code:
        output.table(session, ("=open by error", ">"), [[Text(code), words.count(number)] for code, number in by_code])


@dlq.command()
@click.argument("entries", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--resolution",
    required=True,
    metavar="WORD",
    help="Why it is resolved: skipped (leave this version alone), manual_push (it was written by hand), "
    "or a word of your own, such as fixed_upstream (the next run tries again).",
)
@click.pass_obj
def resolve(session: Session, entries: tuple[str, ...], resolution: str) -> None:
    """Close dead letters; all of them or, when one does not exist, none."""
    ids = _ids(entries)
    with session.service() as service:
        closed = service.resolve(ids, resolution, actor=actor())
    if session.json:
        output.document({"resolved_ids": closed, "resolution": resolution})
        return
    earlier = len(set(ids)) - len(closed)
    remark = f", {earlier:,} had been resolved before" if earlier else ""
    output.line(session, f"{len(closed):,} resolved as {resolution}{remark}")


@dlq.command()
@click.argument("entries", metavar="[ID...]", nargs=-1)
@click.option("--sync", metavar="SYNC", help="All open dead letters of this sync.")
@click.option("--all", "everything", is_flag=True, help="All open dead letters of the project.")
@click.pass_obj
def replay(session: Session, entries: tuple[str, ...], sync: str | None, everything: bool) -> int:
    """Read the rows of dead letters again and write what is true now: one run for each sync.

    While a sync is running, or Dagster cannot be reached, its replay is queued and goes on by itself.
    """
    if sum((bool(entries), sync is not None, everything)) != 1:
        raise click.UsageError("say which dead letters: ids, --sync SYNC, or --all")
    with session.service() as service:
        ids = _ids(entries) if entries else _open(service, sync)
        done = _replayed(session, service, ids)
        left = service.dead_letter_stats(sync).open_count
    if session.json:
        output.document([run_document(each) for each in done])
        return exits.of_runs(done)
    for each in done:
        show_run(session, each)
    if any(each.status is RunStatus.QUEUED for each in done):
        output.hint(session, "What is queued is on record: Dagster's sensor `retl_replays` launches it.")
    output.line(session, f"{left:,} dead letters open now" if done else "no open dead letters")
    return exits.of_runs(done)


def show_letters(
    session: Session, letters: Sequence[DeadLetter], names: Mapping[str, str], *, most: int | None = None
) -> None:
    """Dead letters: at a terminal by sync and error, two lines each; otherwise a line each.

    names: of syncs by id. most: so many of each sync and error at a terminal.
    """
    if session.out.is_terminal:
        _show_grouped(session, letters, names, most)
    else:
        columns = ("=sync", "=key", "=error", "=why", ">tries", "=last seen", "=id")
        now = datetime.now(UTC)
        output.table(session, columns, [_row(letter, names, now) for letter in letters])


def _show_grouped(session: Session, letters: Sequence[DeadLetter], names: Mapping[str, str], most: int | None) -> None:
    groups: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.sync_id, letter.error_code), []).append(letter)
    now = datetime.now(UTC)
    width = max(len(_keys(letter)) for letter in letters)
    for (sync_id, code), members in groups.items():
        heading = f"{len(members):,} dead letters" if len(members) > 1 else "1 dead letter"
        output.line(session)
        output.line(session, words.name(names.get(sync_id, sync_id)), "  ", (code, "yellow"), (f"  {heading}", "dim"))
        shown = members[:most]
        output.pairs(session, [_two_lines(letter, now) for letter in shown], width=max(width, _ID_LENGTH))
        if len(shown) < len(members):
            output.line(session, (f"  … and {len(members) - len(shown):,} more", "dim"))
    output.line(session)


def _two_lines(letter: DeadLetter, now: datetime) -> tuple[Text, Text]:
    tries = "tried once" if letter.attempts == 1 else f"tried {letter.attempts:,} times"
    seen = Text.assemble(tries, ", last ", words.age(letter.last_seen_at, now), style="dim")
    left = Text("\n").join([_keys(letter), Text(_short(letter), style="dim")])
    return left, Text("\n").join([Text(letter.message), seen])


def _row(letter: DeadLetter, names: Mapping[str, str], now: datetime) -> list[RenderableType]:
    return [
        words.name(names.get(letter.sync_id, letter.sync_id)),
        _keys(letter),
        Text(letter.error_code),
        Text(" ".join(letter.message.split())),
        words.count(letter.attempts),
        words.age(letter.last_seen_at, now),
        Text(_short(letter)),
    ]


def _keys(letter: DeadLetter) -> Text:
    return words.key(letter.record_keys) if letter.record_keys else Text(f"{letter.rows:,} rows", style="dim")


def _after_list(session: Session, letters: Sequence[DeadLetter], limit: int, *, resolved: bool) -> None:
    if len(letters) == limit:
        output.hint(session, "There may be more: `--limit` shows them, `retl dlq stats` counts them.")
    if not resolved:
        output.hint(session, "`retl dlq replay --all` sends their rows again, as the warehouse has them now.")


def _facts(letter: DeadLetter, sync: str) -> list[tuple[str, RenderableType]]:
    facts: list[tuple[str, RenderableType]] = [
        ("id", Text(letter.id)),
        ("sync", words.name(sync)),
        ("key", words.key(letter.record_keys)),
        ("operation", Text(letter.operation)),
        ("vendor code", Text(letter.vendor_code or "–")),
        ("tries", words.count(letter.attempts)),
        ("rows", words.count(letter.rows)),
        ("first seen", words.clock(letter.first_seen_at)),
        ("last seen", words.clock(letter.last_seen_at)),
        ("last run", Text(letter.run_id)),
    ]
    if letter.held:
        facts.append(("held", Text("it may have arrived: no run sends it until somebody decides", style="yellow")))
    if letter.resolved:
        facts.append(("resolved", Text.assemble(words.clock(letter.resolved_at), f"  {letter.resolution}")))
    return facts


def _short(letter: DeadLetter) -> str:
    return letter.id.removeprefix(DEAD_LETTER_PREFIX)


def _ids(entries: Sequence[str]) -> list[str]:
    return [with_prefix(entry, DEAD_LETTER_PREFIX) for entry in entries]


def _open(service: Service, sync: str | None) -> list[str]:
    """The open dead letters of a sync, or of all syncs that the project still has."""
    syncs = {each.id for each in service.definitions()}
    return [letter.id for letter in service.dead_letters(sync, limit=_MOST) if letter.sync_id in syncs]


def _replayed(session: Session, service: Service, ids: Sequence[str]) -> list[Run]:
    """The runs that send these dead letters again: at their ends, or queued where something is in the way."""
    replays = service.queue_replays(ids, actor=actor())
    return [_ended_or_queued(session, service, replay) for replay in replays]


def _ended_or_queued(session: Session, service: Service, replay: Replay) -> Run:
    run = replay.run
    if not replay.mine and not service.can_begin(run):
        return service.run_of(run.id)
    try:
        return launch(session, service.project, run.sync_id, queued=run)
    except WebserverError as error:
        if error.refused:
            raise
        session.err.print(Text(error.message, style="yellow"), soft_wrap=True)
        return service.run_of(run.id)
