"""`retl forget`: erase one row, which is often one person, from everything that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
from rich.text import Text

from dagster_retl.cli import output, words
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.documents import forgotten_document
from dagster_retl.cli.keys import parse_key
from dagster_retl.cli.session import Session, actor
from dagster_retl.engine.forget import Forgotten
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service

_WARNING = (
    "The key goes from dead letters, history, snapshots and messages, for good. Nothing is deleted in the warehouse or "
    "at the destinations: do that first. A row that a query still gives is sent again by the next run, as a new one; a "
    "record that is still at the destination stays there, also in mode mirror."
)


@click.command(cls=JsonCommand)
@click.argument("key")
@click.option("--sync", "chosen", metavar="SYNC", multiple=True, help="Only in this sync. Can be given several times.")
@click.option("--force", is_flag=True, help="Also an insert that is held because it may have arrived.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def forget(session: Session, key: str, chosen: tuple[str, ...], force: bool, yes: bool) -> None:
    """Erase KEY (or `field=value,field=value`) from everything that is kept about syncs, here all those it fits."""
    with session.service() as service:
        keys, others = _keys(service, key, chosen)
        if not yes:
            _confirm(session, service, keys)
        done = service.forget(keys, actor=actor(), force=force)
    if session.json:
        output.document([forgotten_document(each) for each in done])
    else:
        _show(session, done, others)


def _keys(service: Service, key: str, chosen: Sequence[str]) -> tuple[Mapping[str, Mapping[str, str]], list[Sync]]:
    """The key in each sync that it fits, by the sync's id; and the syncs that have other key fields."""
    if chosen:
        syncs = [service.find(name) for name in chosen]
        return {sync.id: parse_key(key, sync.key_fields, hint="KEY") for sync in syncs}, []
    keys: dict[str, Mapping[str, str]] = {}
    others: list[Sync] = []
    for sync in service.definitions():
        try:
            keys[sync.id] = parse_key(key, sync.key_fields, hint="KEY")
        except click.BadParameter:
            others.append(sync)
    if not keys:
        raise click.BadParameter(f"{key!r} is no key of any sync of this project", param_hint="KEY")
    return keys, others


def _confirm(session: Session, service: Service, keys: Mapping[str, Mapping[str, str]]) -> None:
    if session.json:
        raise click.UsageError("with --json nobody can be asked: say --yes")
    for sync_id, record_keys in keys.items():
        session.err.print(Text.assemble("  ", words.name(service.find(sync_id).slug), "  ", words.key(record_keys)))
    session.err.print(Text(_WARNING))
    click.confirm("Forget it?", abort=True, err=True)


def _show(session: Session, done: Sequence[Forgotten], others: Sequence[Sync]) -> None:
    columns = ("=forgotten in", ">dead letters", ">other records", ">messages", ">files")
    rows = [
        [words.name(each.sync.slug), *map(words.count, (each.letters, each.records, each.texts, each.files))]
        for each in done
    ]
    output.table(session, columns, rows)
    if others:
        names = ", ".join(sync.slug for sync in others)
        output.line(session, (f"! not looked at, because their keys have other fields: {names}", "yellow"))
    output.hint(session, "Dagster's own event log may quote keys, in run configuration and samples of failures.")
