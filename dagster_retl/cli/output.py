"""How answers look: tables and lines for people, one JSON document for programs, errors for both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dagster_retl.cli.session import Session
from dagster_retl.documents import error_document
from dagster_retl.errors import RetlError

Part = str | Text | tuple[str, str]
"""A piece of a line; a tuple is text with its style."""


def document(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str).encode())


def table(session: Session, columns: Sequence[str], rows: Sequence[Sequence[RenderableType]]) -> None:
    """Print a table. Columns whose names begin with `>` hold numbers and align right; those and `=` ones never wrap."""
    terminal = session.out.is_terminal
    shown = Table(
        box=box.SIMPLE_HEAD if terminal else None,
        header_style="dim",
        border_style="dim",
        padding=(0, 1, 0, 0) if terminal else (0, 2, 0, 0),
        pad_edge=False,
    )
    for name in columns:
        shown.add_column(
            name.lstrip(">="), justify="right" if name.startswith(">") else "left", no_wrap=name.startswith((">", "="))
        )
    for row in rows:
        shown.add_row(*row)
    session.out.print(shown)


def facts(session: Session, pairs: Sequence[tuple[str, RenderableType]]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in pairs:
        grid.add_row(name, value)
    session.out.print(Padding(grid, (0, 0, 0, 2 if session.out.is_terminal else 0), expand=False))


def pairs(session: Session, rows: Sequence[tuple[Text, Text]], *, width: int) -> None:
    """Print two columns; the left one `width` wide, or half of the terminal where that is less."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(width=min(width, session.out.width // 2), overflow="fold")
    grid.add_column(overflow="fold")
    for left, right in rows:
        grid.add_row(left, right)
    session.out.print(Padding(grid, (0, 0, 0, 2), expand=False))


def line(session: Session, *parts: Part) -> None:
    """Print a line. Text is shown as it is, whatever brackets it holds."""
    session.out.print(Text.assemble(*parts), soft_wrap=True)


def prose(session: Session, text: str) -> None:
    """Print sentences, broken between words where a terminal ends."""
    session.out.print(_with_commands(session.out, text))


def hint(session: Session, *sentences: str) -> None:
    """Say what to type next, to people at a terminal only."""
    if session.json or not session.out.is_terminal:
        return
    for sentence in sentences:
        session.out.print(Text.assemble(("→ ", "dim"), _with_commands(session.out, sentence)))


def error(session: Session, problem: RetlError) -> None:
    """Tell an error: a red line and a hint on stderr, or a JSON document on stdout."""
    if session.json:
        document({"error": error_document(problem)})
        return
    _tell(session, problem.message, problem.hint)


def usage_error(session: Session, problem: click.ClickException) -> None:
    """Tell a mistake in the arguments."""
    if isinstance(problem, click.exceptions.NoArgsIsHelpError):
        click.echo(problem.format_message(), err=True)
        return
    context = getattr(problem, "ctx", None)
    where = f"`{context.command_path} --help` shows what can be said." if context else None
    if session.json:
        document({"error": {"code": "USAGE", "message": problem.format_message(), "hint": where}})
        return
    _tell(session, problem.format_message(), where)


def _tell(session: Session, message: str, advice: str | None) -> None:
    first, _, rest = message.partition("\n")
    session.err.print(Text.assemble(("✗ ", "bold red"), (first, "red")), soft_wrap=True)
    if rest:
        session.err.print(Text(rest), soft_wrap=True)
    if advice:
        session.err.print(Text.assemble("  ", _with_commands(session.err, advice)), soft_wrap=True)


def _with_commands(console: Console, sentence: str) -> Text:
    """The sentence; where there are colours, what stands between backticks in bold, without them."""
    if console.color_system is None or console.no_color:
        return Text(sentence)
    text = Text()
    for index, part in enumerate(sentence.split("`")):
        text.append(part, style="bold" if index % 2 else "")
    return text
