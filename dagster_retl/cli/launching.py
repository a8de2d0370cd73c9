"""Running syncs through the project's Dagster instance, with a progress bar for people who watch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dagster_retl.cli.session import Session
from dagster_retl.demo.story import home_of, is_demo
from dagster_retl.model.project import Project
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunOptions

OnProgress = Callable[[Counters], None]


def launch(session: Session, project: Project, slug: str, options: RunOptions, *, trigger: str = "cli") -> Run:
    """Run a sync to its end, whatever end that is. Raises `RetlError` when it could not be begun."""
    # Dagster takes more than a second to import; only commands that run something should wait for it.
    from dagster_retl.orchestration.launch import launch as launch_in_dagster  # noqa: PLC0415 - as said

    choose_home(project)
    with _progress(session, slug) as show:
        return launch_in_dagster(project, slug, options, on_progress=show, trigger=trigger)


def choose_home(project: Project) -> None:
    """Let the demo's runs go to an instance of its own, unless DAGSTER_HOME names one."""
    if is_demo(project):
        os.environ.setdefault("DAGSTER_HOME", str(home_of(project)))


@contextmanager
def _progress(session: Session, slug: str) -> Iterator[OnProgress | None]:
    """A bar on stderr while the block lasts; nothing when nobody watches."""
    if session.json or not session.err.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, TimeElapsedColumn(), console=session.err, transient=True) as bar:
        task = bar.add_task(f"[bold]{slug}[/]  reading", total=None, rows="")

        def show(counters: Counters) -> None:
            total, done = counters.read + counters.removed, settled(counters)
            rows = f"{done:,} of {total:,} rows"
            bar.update(task, description=f"[bold]{slug}[/]  writing", total=total, completed=done, rows=rows)

        yield show


def settled(counters: Counters) -> int:
    """The rows and removals of which the run knows the outcome."""
    rows = counters.written + counters.failed + counters.unchanged + counters.skipped
    return rows + counters.deleted + counters.delete_failed + counters.delete_skipped
