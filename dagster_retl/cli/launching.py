"""Running syncs through the project's Dagster instance, with a progress bar for people who watch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from dagster_retl.cli.session import Session
from dagster_retl.demo.story import home_of, is_demo
from dagster_retl.engine.phase import Phase, doing
from dagster_retl.model.project import Project
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunOptions


def launch(
    session: Session, project: Project, slug: str, options: RunOptions | None = None, *, queued: Run | None = None
) -> Run:
    """Run a sync to its end, whatever end that is. queued: the run to execute.

    Raises `RetlError` when it could not be begun.
    """
    # Dagster takes more than a second to import; only commands that run something should wait for it.
    from dagster_retl.orchestration.launch import launch as launch_in_dagster  # noqa: PLC0415 - as said

    choose_home(project)
    with _bar(session, slug) as bar:
        on_progress, on_phase = (bar.show, bar.enter) if bar else (None, None)
        return launch_in_dagster(project, slug, options, on_progress=on_progress, on_phase=on_phase, queued=queued)


def choose_home(project: Project) -> None:
    """Let the demo's runs go to an instance of its own, unless DAGSTER_HOME names one."""
    if is_demo(project):
        os.environ.setdefault("DAGSTER_HOME", str(home_of(project)))


class _Bar:
    """A line on a terminal: what a run is doing, and how many of its rows are settled."""

    def __init__(self, progress: Progress, slug: str) -> None:
        self._progress = progress
        self._slug = slug
        self._task: TaskID = progress.add_task(f"[bold]{slug}[/]  running", total=None, rows="")

    def enter(self, phase: Phase, counters: Counters) -> None:
        self._progress.update(self._task, description=f"[bold]{self._slug}[/]  {doing(phase, counters)}")

    def show(self, counters: Counters) -> None:
        total = counters.read + counters.removed
        done = total - counters.due - counters.removals_due
        rows = f"{done:,} of {total:,} rows"
        self._progress.update(self._task, total=total, completed=done, rows=rows)


@contextmanager
def _bar(session: Session, slug: str) -> Iterator[_Bar | None]:
    """A bar on stderr while the block lasts; None when nobody watches."""
    if session.json or not session.err.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"))
    with Progress(*columns, TimeElapsedColumn(), console=session.err, transient=True) as progress:
        yield _Bar(progress, slug)
