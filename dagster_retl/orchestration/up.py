"""`retl up`: Dagster's UI, daemon and code server for a folder that may hold only a retl.yaml."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dagster_retl.errors import ConfigurationError, RetlError
from dagster_retl.model.project import Project
from dagster_retl.orchestration.instance import DAGSTER_HOME, dagster_home, open_instance

_GRACE = 30.0  # seconds that Dagster's processes get to end by themselves


def up(
    project_path: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    ui_port: int = 3000,
    say: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Serve the UI and run schedules and sensors until Ctrl-C, SIGTERM or `stop`.

    Raises `ProjectFileError` for mistakes in the file, `ConfigurationError` when the port is
    taken, `RetlError` when Dagster ends by itself.
    """
    project = Project.load(project_path)
    check_port(host, ui_port)
    with open_instance(project.base):
        say(f"setting up in {dagster_home(project.base)}")
    ending = stop or threading.Event()
    with _signals(ending), _dagster(project, host, ui_port) as process:
        say(f"Dagster UI: http://{_shown(host)}:{ui_port}  (Ctrl-C stops everything)")
        while not ending.wait(0.5):
            if process.poll() is not None:
                raise RetlError(
                    f"Dagster ended with exit code {process.returncode}",
                    hint="Its last lines above say why; a process of it that dies ends all of them.",
                )
        say("stopping")


def check_port(host: str, port: int) -> None:
    """Raises `ConfigurationError` when nobody can listen there."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        # As servers do: a port whose last connections are still closing is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="Choose another port with `--ui-port`."
            ) from None


def dagster_command(host: str, port: int) -> list[str]:
    """The command that runs code server, webserver and daemon, and ends them all when one dies."""
    # Dagster recommends `dg dev`, which needs another package and a project folder of its own.
    python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
    return [
        *(*python, "-m", "dagster", "dev"),
        *("--module-name", "dagster_retl.definitions", "--host", host, "--port", str(port), "--log-level", "warning"),
    ]


@contextmanager
def _dagster(project: Project, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, DAGSTER_HOME: str(dagster_home(project.base))}
    if project.path is not None:
        environment["RETL_PROJECT"] = str(Path(project.path).absolute())
    # Its own session: Ctrl-C reaches us only, and we end it in good order.
    process = subprocess.Popen(  # noqa: S603 - our own command
        dagster_command(host, port), cwd=project.base, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask once, wait, insist: the processes that Dagster started are in its process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _signals(ending: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `ending`; in another thread than the main one they are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        ending.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shown(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - shown, not bound
