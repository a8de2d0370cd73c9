"""`retl syncs history`, `export`, `purge`: syncs that live in the store, and what is left of those that are gone."""

from __future__ import annotations

import io
from typing import Any

import click
from rich.text import Text
from ruamel.yaml import YAML

from dagster_retl.cli import output, words
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.session import Session, actor
from dagster_retl.syncs.definition import file_data


@click.command(cls=JsonCommand)
@click.argument("sync")
@click.pass_obj
def history(session: Session, sync: str) -> None:
    """The versions of a SYNC that was made through the API, newest first."""
    with session.service() as service:
        versions = service.editor.versions(service.find(sync).id)
    if session.json:
        output.document(
            [
                {
                    "version": each.version,
                    "name": each.name,
                    "actor": each.actor,
                    "created_at": words.rfc3339(each.created_at),
                    "definition": dict(each.definition),
                }
                for each in versions
            ]
        )
        return
    rows = [[words.count(each.version), words.clock(each.created_at), Text(each.actor)] for each in versions]
    output.table(session, (">version", "=since", "who"), rows)


@click.command(cls=JsonCommand)
@click.argument("sync", required=False)
@click.pass_obj
def export(session: Session, sync: str | None) -> None:
    """SYNC as retl.yaml says it, or all syncs that were made through the API.

    Put it under `syncs:` in retl.yaml: `adopt` gives it what the store's sync has delivered so far.
    """
    with session.service() as service:
        file = {each.id for each in service.project.syncs}
        found = [service.find(sync)] if sync else [each for each in service.definitions() if each.id not in file]
    documents = [file_data(each) for each in found]
    if session.json:
        output.document(documents)
    else:
        session.out.print(_yaml({"syncs": documents}), markup=False, soft_wrap=True, end="")


@click.command(cls=JsonCommand)
@click.argument("sync_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(session: Session, sync_id: str, yes: bool) -> None:
    """Delete all that is kept of a sync that is gone: runs, dead letters, snapshot. `list --retired` shows ids."""
    if not yes:
        if session.json:
            raise click.UsageError("with --json nobody can be asked: say --yes")
        click.confirm(f"Delete runs, dead letters and snapshot of {sync_id} for good?", abort=True, err=True)
    with session.service() as service:
        files = service.purge(sync_id, actor=actor())
    if session.json:
        output.document({"id": sync_id, "files": files})
    else:
        output.line(session, ("✓ ", "green"), f"{sync_id} is purged, with {files:,} files of the state")


def list_retired(session: Session) -> None:
    """Print the syncs that are gone, and of which something is kept."""
    with session.service() as service:
        gone = service.catalog.retired()
    if session.json:
        output.document(
            [{"id": each.sync_id, "name": each.name, "deleted_at": words.rfc3339(each.deleted_at)} for each in gone]
        )
    elif gone:
        rows = [[words.name(each.name), words.clock(each.deleted_at), Text(each.sync_id)] for each in gone]
        output.table(session, ("=sync", "=deleted", "=id"), rows)
        output.hint(session, "`retl syncs purge ID` deletes what is kept of one.")
    else:
        output.line(session, "nothing is kept of syncs that are gone")


def _yaml(document: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = YAML()
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.width = 120
    writer.dump(document, text)
    return text.getvalue()
