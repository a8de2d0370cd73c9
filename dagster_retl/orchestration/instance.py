"""The Dagster instance of a project: where it lives, its settings, and its first use.

Settings: https://docs.dagster.io/deployment/oss/dagster-yaml
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg

DAGSTER_HOME = "DAGSTER_HOME"

_FIRST_USE_TIMEOUT = 60.0  # seconds

SETTINGS = """\
# Written once; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml

telemetry:
  enabled: false
nux:
  enabled: false

# All events are in the UI; the terminal does not repeat them.
python_logs:
  python_log_level: INFO

concurrency:
  pools:
    granularity: op

# A worker that is killed would hold its place in a pool otherwise.
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 30
  max_runtime_seconds: 86400

run_coordinator:
  module: dagster
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
"""


def dagster_home(base: Path) -> Path:
    """`DAGSTER_HOME`, or `.dagster` in the folder of retl.yaml. Absolute."""
    given = os.environ.get(DAGSTER_HOME)
    return Path(given).expanduser().absolute() if given else base.absolute() / ".dagster"


def prepare_home(home: Path) -> None:
    """Make the folder of an instance, with settings unless it has some."""
    home.mkdir(parents=True, exist_ok=True)
    try:
        with (home / "dagster.yaml").open("x", encoding="utf-8") as file:
            file.write(SETTINGS)
    except FileExistsError:
        return


@contextmanager
def open_instance(base: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of the project whose retl.yaml is in `base`; an empty one is set up, by one process at a time.

    Sets `DAGSTER_HOME` meanwhile, which is how Dagster is told.
    """
    home = dagster_home(base)
    prepare_home(home)
    with _environment(DAGSTER_HOME, str(home)):
        with _first_use(home):
            instance = dg.DagsterInstance.get()
        with instance:
            yield instance


@contextmanager
def _first_use(home: Path) -> Iterator[None]:
    """Processes that create the same SQLite files at the same time fail: a lock that dies with its holder."""
    with closing(sqlite3.connect(home / ".first_use.lock", timeout=_FIRST_USE_TIMEOUT, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
