"""`retl demo`: the story of a sync, told while it happens."""

from __future__ import annotations

import os
import signal
from typing import Any

import click
from rich.text import Text

from dagster_retl.cli import output
from dagster_retl.cli.app import JsonCommand
from dagster_retl.cli.dlq import show_letters
from dagster_retl.cli.documents import letter_document, run_document
from dagster_retl.cli.launching import launch
from dagster_retl.cli.runs import show_run
from dagster_retl.cli.session import Session
from dagster_retl.demo.proof import Proof
from dagster_retl.demo.story import ACCOUNTS, CRM, Step, is_demo, project_text, serving_crm, tell
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project

_SHOWN_OF_A_KIND = 3
_ENDINGS = (signal.SIGINT, signal.SIGTERM)
_AFTERWARDS = (
    ("retl up", "shows all this in Dagster's UI, the CRM beside it"),
    ("retl syncs list, retl runs list, retl dlq list", "show the same here"),
    ("retl init my_project", "begins a project of your own"),
)
_OWN_PLACES = frozenset({"RETL_STORE", "RETL_STATE", "RETL_WRITES"})


@click.command(cls=JsonCommand)
@click.option("--serve", is_flag=True, help="Only serve the demo's CRM, until Ctrl-C.")
@click.pass_obj
def demo(session: Session, serve: bool) -> None:
    """Build a warehouse and a CRM on this machine, and watch what a sync does between them.

    Everything is kept in the folder demo/, and made anew each time.
    """
    project = _project(session)
    if serve:
        _serve(session, project)
        return
    told = []
    for step in tell(project, lambda owner, slug, options: launch(session, owner, slug, options)):
        told.append(step)
        if not session.json:
            _show(session, step)
    if session.json:
        output.document({"steps": [_document(step) for step in told], "verified": all(_holds(step) for step in told)})
    else:
        _show_end(session)


def _project(session: Session) -> Project:
    """The demo's project, written where there is none. It keeps to its folder, whatever the environment says."""
    path = session.project_path
    if not path.exists():
        path.write_text(project_text(), encoding="utf-8")
        session.err.print(Text(f"wrote {path}, the demo's project"), style="dim")
    project = Project.load(path, environ={k: v for k, v in os.environ.items() if k not in _OWN_PLACES})
    if not is_demo(project):
        raise ConfigurationError(
            f"{path} is a project of its own: it has no destination {CRM!r}",
            hint="Run `retl demo` in an empty folder.",
        )
    return project


def _serve(session: Session, project: Project) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)  # before the CRM's threads begin: they wait for nobody's signals
    with serving_crm(project) as crm:
        session.err.print(Text(f"demo CRM: {crm.url}  (Ctrl-C stops it)"))
        signal.sigwait(_ENDINGS)
    if session.json:
        output.document({"crm": crm.url, "status": "stopped"})


def _show(session: Session, step: Step) -> None:
    output.line(session, (f"\n{step.number}  {step.title}", "bold cyan"))
    output.prose(session, step.text)
    for run in step.runs:
        show_run(session, run)
    if step.letters:
        names = {letter.sync_id: ACCOUNTS for letter in step.letters}
        show_letters(session, step.letters, names, most=_SHOWN_OF_A_KIND)
    if step.proof is not None:
        output.line(session, ("✓ ", "green"), _proof(step.proof))


def _proof(proof: Proof) -> str:
    text = f"The CRM holds {proof.held:,} accounts, each exactly as the query says"
    if proof.refused:
        return f"{text}; {proof.refused:,} others have a dead letter."
    return f"{text}: all of them."


def _holds(step: Step) -> bool:
    return step.proof is None or step.proof.holds


def _show_end(session: Session) -> None:
    output.line(session)
    width = max(len(command) for command, _ in _AFTERWARDS)
    for command, what in _AFTERWARDS:
        output.line(session, ("→ ", "dim"), (command.ljust(width), "bold"), f"  {what}")


def _document(step: Step) -> dict[str, Any]:
    proof = None
    if step.proof is not None:
        proof = {"holds": step.proof.holds, "held": step.proof.held, "refused": step.proof.refused}
    return {
        "step": step.number,
        "title": step.title,
        "text": step.text,
        **dict(step.facts),
        "runs": [run_document(run) for run in step.runs],
        "dead_letters": [letter_document(letter) for letter in step.letters],
        "proof": proof,
    }
