"""`up`: what it says when it cannot serve, or no longer can."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest
from programs import ROOT, UP, free_port
from scene import Scene

from dagster_retl.errors import ConfigurationError
from dagster_retl.listening import check_port
from dagster_retl.orchestration.up import up


def test_a_taken_port_is_named(scene: Scene) -> None:
    (scene.folder / "retl.yaml").write_text(json.dumps(scene.data()))
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            up(scene.folder / "retl.yaml", ui_port=port)
    check_port("127.0.0.1", port, "--ui-port")


@pytest.mark.long
def test_a_process_that_dies_ends_all_and_is_told(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data()))
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [sys.executable, "-c", UP, str(path), str(free_port())]
    with subprocess.Popen(
        command, env={**environment, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            daemon = _daemon_of(psutil.Process(process.pid))
            family = psutil.Process(process.pid).children(recursive=True)
            daemon.kill()
            _, errors = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "Dagster ended with exit code" in errors
    assert [left for left in psutil.wait_procs(family, timeout=10)[1] if left.is_running()] == []


def _daemon_of(process: psutil.Process) -> psutil.Process:
    for _ in range(300):
        for child in process.children(recursive=True):
            if any(word.endswith("daemon") for word in child.cmdline()):
                return child
        time.sleep(0.1)
    pytest.fail("the daemon did not start")
