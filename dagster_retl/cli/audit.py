"""`retl audit`: who changed what, and when."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.text import Text

from dagster_retl.cli import output, words
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.session import Session


@click.command(cls=JsonCommand)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.pass_obj
def audit(session: Session, limit: int) -> None:
    """What people and API keys changed, newest first."""
    with session.service() as service:
        entries = [entry for _, entry in service.store.audit.list(limit=limit)]
    if session.json:
        output.document([asdict(entry) | {"at": words.rfc3339(entry.at)} for entry in entries])
    elif entries:
        rows = [
            [
                words.clock(each.at),
                Text(each.actor),
                Text(each.action, style="bold"),
                Text(each.subject),
                Text(each.detail),
            ]
            for each in entries
        ]
        output.table(session, ("=when", "=who", "=what", "=subject", "detail"), rows)
    else:
        output.line(session, "nobody changed anything yet")
