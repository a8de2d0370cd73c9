"""The command line: `retl …`. Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with dead letters."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import click

from dagster_retl.cli import api_keys, dlq, explain, forget, runs, store, syncs, up
from dagster_retl.cli.api import api
from dagster_retl.cli.app import App
from dagster_retl.cli.audit import audit
from dagster_retl.cli.baseline import baseline
from dagster_retl.cli.demo import demo as demo_command
from dagster_retl.cli.project import check, connectors, init, schema
from dagster_retl.cli.session import Session

__all__ = ["main"]


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--project",
    "path",
    type=click.Path(path_type=Path),
    envvar="RETL_PROJECT",
    help="The project file, or its folder; otherwise RETL_PROJECT, otherwise retl.yaml here.",
)
@click.version_option(version("dagster-retl"), prog_name="retl")
@click.pass_obj
def main(session: Session, path: Path | None) -> None:
    """Reverse ETL that is native to Dagster: write what your warehouse knows into the tools that people use.

    Every command takes --json. Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with dead letters.
    """
    session.path = path


for _command in (
    init,
    demo_command,
    check,
    syncs.syncs,
    syncs.plan,
    runs.run,
    baseline,
    runs.runs,
    dlq.dlq,
    explain.explain,
    forget.forget,
    api_keys.keys,
    audit,
    api,
    up.up,
    connectors,
    schema,
    store.clean,
    store.db,
):
    main.add_command(_command)
