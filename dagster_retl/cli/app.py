"""The frame of the command line: `--json` on every command, errors as people or programs read them, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from dagster_retl.cli import output
from dagster_retl.cli.exits import FAILED, OK
from dagster_retl.cli.session import Session
from dagster_retl.errors import CancelledError, RetlError

PROGRAM = "retl"

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class JsonCommand(click.Command):
    """A command that can answer in JSON."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_choose_json,
                help="Print one JSON document.",
            )
        )


class CommandGroup(click.Group):
    """A group of commands that can all answer in JSON."""

    command_class = JsonCommand
    group_class = type


class App(CommandGroup):
    """The program: ends the process with an exit code, whatever happens."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        session = Session(json=_wants_json(arguments))
        sys.exit(self._run(arguments, complete_var, session, extra))

    def _run(self, arguments: list[str], complete_var: str | None, session: Session, extra: dict[str, Any]) -> int:
        try:
            result = super().main(arguments, PROGRAM, complete_var, standalone_mode=False, obj=session, **extra)
        except click.ClickException as error:
            output.usage_error(session, error)
            return error.exit_code
        except RetlError as error:
            output.error(session, error)
            return FAILED
        except (click.Abort, KeyboardInterrupt):
            output.error(session, CancelledError("stopped"))
            return _INTERRUPTED
        return result if isinstance(result, int) else OK


def _choose_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).json = True


def _wants_json(arguments: list[str]) -> bool:
    """Known before anything is parsed, for mistakes in the arguments themselves."""
    return "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
