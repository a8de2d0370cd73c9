"""`retl init`, `check`, `connectors`, `schema`: a project before its first run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import RenderableType
from rich.text import Text

from dagster_retl.cli import exits, output, words
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.documents import finding_document
from dagster_retl.cli.session import PROJECT_FILE, Session
from dagster_retl.cli.settings import Setting, connector_document, notes_of, settings_of
from dagster_retl.cli.template import write_project
from dagster_retl.connectors.base import AnyConnector, ConnectorConfig
from dagster_retl.connectors.registry import connector_class, connector_names
from dagster_retl.demo.story import demo_advice
from dagster_retl.errors import RetlError
from dagster_retl.model.json_schema import json_schema
from dagster_retl.service import Finding


@click.command(cls=JsonCommand)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.pass_obj
def init(session: Session, folder: Path) -> None:
    """Write a commented retl.yaml and a small example that runs. Overwrites nothing."""
    written = write_project(folder)
    if session.json:
        output.document({"written": [str(path) for path in written]})
        return
    for path in written:
        output.line(session, ("✓ ", "green"), str(path))
    go = "" if folder == Path() else f"cd {folder} && "
    output.hint(
        session,
        f"`{go}retl plan customers` shows what would be written, `retl run customers` writes it.",
        f"Then make it yours: {PROJECT_FILE} says where.",
    )


@click.command(cls=JsonCommand)
@click.argument("destination", required=False)
@click.option("--offline", is_flag=True, help="Contact nobody: only check what is written.")
@click.pass_obj
def check(session: Session, destination: str | None, offline: bool) -> int:
    """Check the project, its warehouses and destinations, or just DESTINATION."""
    with session.service() as service:
        findings = list(service.check(destination, offline=offline))
        advice = demo_advice(service.project) if any(finding.error for finding in findings) else None
    if session.json:
        output.document([finding_document(finding) for finding in findings])
    else:
        for finding in findings:
            _show_finding(session, finding)
        if advice:
            output.prose(session, advice)
    return exits.FAILED if any(finding.error for finding in findings) else exits.OK


@click.command(cls=JsonCommand)
@click.pass_obj
def schema(session: Session) -> None:
    """The JSON Schema of retl.yaml, for editors: `retl schema > retl.schema.json`."""
    output.document(json_schema())


@click.command(cls=JsonCommand)
@click.argument("name", required=False)
@click.pass_obj
def connectors(session: Session, name: str | None) -> int:
    """The kinds of destinations, or the settings of the one called NAME."""
    if name is not None:
        _show_connector(session, connector_class(name))
        return exits.OK
    kinds, broken = _load(connector_names())
    if session.json:
        output.document([connector_document(kind) for kind in kinds])
    else:
        rows = [_connector_row(kind) for kind in kinds]
        output.table(session, ("=connector", "what", "modes", ">rows", ">per second"), rows)
        output.hint(session, "`retl connectors NAME` lists the settings of one.")
    for problem in broken:
        session.err.print(Text(problem, style="red"), soft_wrap=True)
    return exits.FAILED if broken else exits.OK


def _load(names: Sequence[str]) -> tuple[list[type[AnyConnector]], list[str]]:
    """The connectors that can be loaded, and what is wrong with the others."""
    kinds, broken = [], []
    for name in names:
        try:
            kinds.append(connector_class(name))
        except (RetlError, ImportError, AttributeError) as error:  # somebody else's package
            broken.append(f"connector {name}: {error}")
    return kinds, broken


def _show_finding(session: Session, finding: Finding) -> None:
    subject = Text(f"{finding.subject}  ", style="bold")
    if finding.error is None:
        output.line(session, ("✓ ", "green"), subject, finding.detail)
        return
    output.line(session, ("✗ ", "bold red"), subject, (finding.detail, "red"))
    if finding.error.hint:
        output.line(session, f"  {finding.error.hint}")


def _connector_row(kind: type[AnyConnector]) -> list[RenderableType]:
    spec = kind.spec
    return [
        words.name(spec.name),
        Text(spec.title),
        Text(", ".join(sorted(spec.modes))),
        words.count(spec.batch_rows),
        Text("–" if spec.rate_limit is None else f"{spec.rate_limit:g}"),
    ]


def _show_connector(session: Session, kind: type[AnyConnector]) -> None:
    if session.json:
        output.document(connector_document(kind))
        return
    spec = kind.spec
    output.line(session, words.name(spec.name), f"  {spec.title}")
    limit = "no rate limit" if spec.rate_limit is None else f"{spec.rate_limit:g} requests a second"
    output.facts(
        session,
        [
            ("modes", Text(", ".join(sorted(spec.modes)))),
            ("a request", Text(f"{spec.batch_rows:,} rows, {spec.batch_bytes:,} bytes at most")),
            ("at once", Text(f"{spec.concurrency} requests, {limit}")),
            *([("answers", Text(spec.matching))] if spec.matching else []),
            *([("documentation", Text(spec.documentation))] if spec.documentation else []),
        ],
    )
    shared = ConnectorConfig.model_fields
    own_first = sorted(settings_of(kind), key=lambda setting: (not setting.required, setting.name in shared))
    rows = [_setting_row(setting) for setting in own_first]
    output.table(session, ("=setting", "type", "=default", "what it is"), rows)
    for note in notes_of(kind):
        output.line(session, (note, "dim"))


def _setting_row(setting: Setting) -> list[RenderableType]:
    default = Text("required", style="yellow") if setting.required else Text(setting.default, style="dim")
    return [Text(setting.name, style="bold"), Text(setting.type, style="cyan"), default, Text(setting.description)]
