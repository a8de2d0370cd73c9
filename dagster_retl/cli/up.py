"""`retl up`: Dagster's UI, schedules and sensors for the project, and its API."""

from __future__ import annotations

from contextlib import ExitStack

import click

from dagster_retl.cli import output
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.launching import choose_home
from dagster_retl.cli.session import Session
from dagster_retl.demo.story import is_built, is_demo, serving_crm
from dagster_retl.model.project import Project


@click.command(cls=JsonCommand)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--ui-port", type=click.IntRange(1, 65_535), default=3000, show_default=True, help="Port of the UI.")
@click.option("--api-port", type=click.IntRange(1, 65_535), default=3030, show_default=True, help="Port of the API.")
@click.pass_obj
def up(session: Session, host: str, ui_port: int, api_port: int) -> None:
    """Serve Dagster's UI and the API, and run schedules, until Ctrl-C. The demo's CRM runs beside the demo."""
    from dagster_retl.orchestration.up import up as serve  # noqa: PLC0415 - Dagster takes a second to import

    project = session.project()
    with ExitStack() as beside:
        if is_demo(project):
            _serve_demo(session, project, beside)
        serve(project.path, host=host, ui_port=ui_port, api_port=api_port, say=lambda text: _say(session, text))
    if session.json:
        output.document({"ui": f"http://{host}:{ui_port}", "api": f"http://{host}:{api_port}", "status": "stopped"})


def _serve_demo(session: Session, project: Project, beside: ExitStack) -> None:
    choose_home(project)
    crm = beside.enter_context(serving_crm(project))
    _say(session, f"demo CRM: {crm.url}")
    if not is_built(project):
        _say(session, "the demo's warehouse is not there yet: run `retl demo` first")


def _say(session: Session, text: str) -> None:
    session.err.print(text, markup=False, soft_wrap=True)
