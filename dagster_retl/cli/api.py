"""`retl api`: the REST server."""

from __future__ import annotations

import click

from dagster_retl.cli import output
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.session import Session
from dagster_retl.listening import check_port


@click.command(cls=JsonCommand)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65_535), default=3030, show_default=True, help="Port to listen on.")
@click.option(
    "--rate-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=50.0,
    show_default=True,
    help="Requests a second of one key.",
)
@click.pass_obj
def api(session: Session, host: str, port: int, rate_limit: float) -> None:
    """Serve the REST API, until Ctrl-C. RETL_DAGSTER_URL (http://127.0.0.1:3000) names Dagster's webserver."""
    from dagster_retl.api.serve import serve  # noqa: PLC0415 - FastAPI takes a while to import

    project = session.project()
    check_port(host, port, "--port")
    session.err.print(f"API: http://{host}:{port}/api/reverse-etl/docs", markup=False, soft_wrap=True)
    serve(project, host=host, port=port, rate_limit=rate_limit)
    if session.json:
        output.document({"api": f"http://{host}:{port}", "status": "stopped"})
