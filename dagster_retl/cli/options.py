"""The options of `run`, `plan` and `baseline`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from dagster_retl.cli.keys import keys_of
from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import AccountChange, Guard, RunOptions
from dagster_retl.model.sync import Sync

_ROWS = (
    click.option("--full-refresh", is_flag=True, help="Send the whole result, changed or not."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Send at most N rows."),
    click.option(
        "--key",
        "keys",
        multiple=True,
        metavar="KEY",
        help="Send only this row: its key, or `field=value,field=value`. Can be given several times.",
    ),
)
_CIRCUMSTANCES = (
    click.option("--partition", metavar="KEY", help="Of a sync with partitions: the one to read."),
    click.option(
        "--override",
        "overrides",
        multiple=True,
        type=click.Choice([guard.value for guard in Guard]),
        help="Let this guard not stop this run. Can be given several times.",
    ),
    click.option("--reset", is_flag=True, help="Another account: begin with an empty snapshot, send everything."),
    click.option("--keep-snapshot", is_flag=True, help="Another account id, the same data: go on."),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what is special about a run."""
    return _with(command, (*_ROWS, *_CIRCUMSTANCES))


def circumstances(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command those of them that do not say which rows are sent."""
    return _with(command, _CIRCUMSTANCES)


def _with(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def build(sync: Sync, chosen: dict[str, Any], *, dry_run: bool = False) -> RunOptions:
    """What was chosen. Raises `click.UsageError` for what cannot go together."""
    return RunOptions(
        full_refresh=chosen["full_refresh"],
        dry_run=dry_run,
        limit=chosen["limit"],
        keys=keys_of(sync, chosen["keys"]),
        overrides=_overrides(chosen),
        account_change=_account_change(chosen),
        partition=_partition(sync, chosen),
    )


def build_baseline(sync: Sync, chosen: dict[str, Any]) -> RunOptions:
    """The same for a baseline."""
    return RunOptions(
        baseline=True,
        overrides=_overrides(chosen),
        account_change=_account_change(chosen),
        partition=_partition(sync, chosen),
    )


def _partition(sync: Sync, chosen: dict[str, Any]) -> Partition | None:
    return sync.partition(chosen["partition"], datetime.now(UTC))


def _overrides(chosen: dict[str, Any]) -> frozenset[Guard]:
    return frozenset(Guard(name) for name in chosen["overrides"])


def _account_change(chosen: dict[str, Any]) -> AccountChange:
    if chosen["reset"] and chosen["keep_snapshot"]:
        raise click.UsageError("--reset and --keep-snapshot say opposite things: choose one")
    if chosen["reset"]:
        return AccountChange.RESET
    return AccountChange.KEEP_SNAPSHOT if chosen["keep_snapshot"] else AccountChange.REFUSE
