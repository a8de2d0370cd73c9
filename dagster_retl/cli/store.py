"""`retl db`, `retl clean`: the store's tables, and what goes from them."""

from __future__ import annotations

from dataclasses import asdict

import click

from dagster_retl.cli import output, words
from dagster_retl.cli.app import CommandGroup, JsonCommand
from dagster_retl.cli.session import Session
from dagster_retl.store.store import Store


@click.command(cls=JsonCommand)
@click.argument("sync", required=False)
@click.pass_obj
def clean(session: Session, sync: str | None) -> None:
    """Delete what `retention` keeps no longer, of all syncs or of SYNC. Runs do so as well, in small portions."""
    with session.service() as service:
        done = service.clean(sync)
        names = {each.id: each.slug for each in service.definitions()}
    if session.json:
        output.document([{**asdict(each), "sync_name": names[each.sync_id]} for each in done])
        return
    rows = [
        [words.name(names[each.sync_id]), *map(words.count, (each.runs, each.history, each.dead_letters, each.files))]
        for each in done
    ]
    output.table(session, ("=sync", ">runs", ">row history", ">dead letters", ">files"), rows)


@click.group(cls=CommandGroup)
def db() -> None:
    """The store of runs, dead letters and snapshots."""


@db.command()
@click.pass_obj
def upgrade(session: Session) -> None:
    """Bring the store's tables to this version; an empty store is created."""
    project = session.project()
    with Store.open(project.store_url, upgrade=True) as store:
        revision = store.upgrade()
        display = store.url_display
    if session.json:
        output.document({"store": display, "revision": revision})
    else:
        output.line(session, ("✓ ", "green"), f"{display} is at revision {revision}")
