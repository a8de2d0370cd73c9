"""Programs that tests start: where this package is for them, where they listen, and when they are there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import dagster_retl

ROOT = Path(dagster_retl.__file__).parents[1]
"""The folder that holds the package: `PYTHONPATH` of those that are to import it."""
UP = "import sys; from dagster_retl.orchestration.up import up; up(sys.argv[1], ui_port=int(sys.argv[2]))"
"""Code for `python -c`, then retl.yaml and a port: Dagster's webserver, daemon and code server."""


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, look: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """What `look` sees first that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.2)
    return pytest.fail(f"{what} did not happen within {seconds:g} s")
