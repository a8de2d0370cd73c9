"""A real Dagster beside the tests: webserver, daemon and code server, as `retl up` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import programs
from programs import ROOT, UP, free_port

eventually = partial(programs.eventually, seconds=120.0)


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
