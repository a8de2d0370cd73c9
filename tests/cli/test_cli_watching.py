"""What a person at a terminal sees while a run goes on."""

from __future__ import annotations

import io

from cli_shop import Shop
from rich.console import Console

from dagster_retl.cli.launching import launch
from dagster_retl.cli.session import Session
from dagster_retl.model.project import Project
from dagster_retl.model.runs import RunOptions, RunStatus


def watched(shop: Shop, *, terminal: bool) -> str:
    """Run a sync that takes long enough to be seen; what was written to stderr meanwhile."""
    session = Session(shop.folder)
    session.err = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    shop.service.latency = 0.3
    run = launch(session, Project.load(session.project_path), "people_service", RunOptions())
    assert run.status is RunStatus.SUCCEEDED
    assert isinstance(session.err.file, io.StringIO)
    return session.err.file.getvalue()


def test_a_terminal_shows_what_the_run_is_doing(shop: Shop) -> None:
    shop.warehouse("UPDATE people SET email = NULL")
    shown = watched(shop, terminal=True)
    assert "asking who the destination is" in shown
    assert "sending 3 rows" in shown


def test_nobody_watches_a_pipe(shop: Shop) -> None:
    shop.warehouse("UPDATE people SET email = NULL")
    assert watched(shop, terminal=False) == ""
