"""`retl baseline`: take what a query gives as delivered already, and send nothing."""

from __future__ import annotations

from typing import Any

import click

from dagster_retl.cli import exits, options, output
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.documents import run_document
from dagster_retl.cli.launching import launch
from dagster_retl.cli.runs import show_run
from dagster_retl.cli.session import Session


@click.command(cls=JsonCommand)
@click.argument("sync")
@options.circumstances
@click.pass_obj
def baseline(session: Session, /, sync: str, **chosen: Any) -> int:
    """Take the rows of SYNC as delivered, and send nothing.

    For a destination that holds them already, because another tool wrote them: from now on, changes are sent.
    """
    project = session.project()
    definition = session.definition(project, sync)
    done = launch(session, project, definition.slug, options.build_baseline(definition, chosen))
    if session.json:
        output.document(run_document(done))
    else:
        show_run(session, done)
        output.hint(session, f"`retl plan {definition.slug}` shows what a run would send now.")
    return exits.of_run(done)
