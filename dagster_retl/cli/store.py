"""`retl db`: the store's tables."""

from __future__ import annotations

import click

from dagster_retl.cli import output
from dagster_retl.cli.app import CommandGroup
from dagster_retl.cli.session import Session
from dagster_retl.store.store import Store


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
