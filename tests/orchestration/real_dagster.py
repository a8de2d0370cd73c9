"""A real Dagster beside the tests: webserver, daemon and code server, as `retl up` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import dagster_retl

ROOT = Path(dagster_retl.__file__).parents[1]
UP = "import sys; from dagster_retl.orchestration.up import up; up(sys.argv[1], ui_port=int(sys.argv[2]))"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, look: object, *, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if callable(look) and look():
            return
        time.sleep(0.3)
    pytest.fail(f"{what} did not happen within {seconds:g} s")


@contextmanager
def up(path: Path) -> Iterator[str]:
    """Webserver, daemon and code server; the URL."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [sys.executable, "-c", UP, str(path), str(port)]
    with subprocess.Popen(command, env={**environment, "PYTHONPATH": str(ROOT)}) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
