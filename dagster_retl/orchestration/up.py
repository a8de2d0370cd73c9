"""`retl up`: Dagster's UI, daemon and code server for a folder that may hold only a retl.yaml."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from dagster_retl.errors import RetlError
from dagster_retl.listening import check_port
from dagster_retl.model.project import Project
from dagster_retl.orchestration.instance import DAGSTER_HOME, dagster_home, open_instance

_GRACE = 30.0  # seconds that Dagster's processes get to end by themselves


def up(
    project_path: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    ui_port: int = 3000,
    api_port: int | None = None,
    say: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Serve the UI and run schedules and sensors until Ctrl-C, SIGTERM or `stop`; on `api_port` the REST API as well.

    Raises `ProjectFileError` for mistakes in the file, `ConfigurationError` when a port is
    taken, `RetlError` when Dagster or the API ends by itself.
    """
    project = Project.load(project_path)
    check_port(host, ui_port, "--ui-port")
    if api_port is not None:
        check_port(host, api_port, "--api-port")
    with open_instance(project.base):
        say(f"setting up in {dagster_home(project.base)}")
    ending = stop or threading.Event()
    with ExitStack() as running:
        running.enter_context(_signals(ending))
        processes = {"Dagster": running.enter_context(_dagster(project, host, ui_port))}
        say(f"Dagster UI: http://{_shown(host)}:{ui_port}  (Ctrl-C stops everything)")
        if api_port is not None:
            processes["the API"] = running.enter_context(_api(project, host, ui_port, api_port))
            say(f"API: http://{_shown(host)}:{api_port}/api/reverse-etl/docs")
        while not ending.wait(0.5):
            _require_alive(processes)
        say("stopping")


def _require_alive(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise RetlError(
                f"{name} ended with exit code {process.returncode}",
                hint="Its last lines above say why; a process that dies ends all of them.",
            )


def dagster_command(host: str, port: int) -> list[str]:
    """The command that runs code server, webserver and daemon, and ends them all when one dies."""
    # Dagster recommends `dg dev`, which needs another package and a project folder of its own.
    python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
    return [
        *(*python, "-m", "dagster", "dev"),
        *("--module-name", "dagster_retl.definitions", "--host", host, "--port", str(port), "--log-level", "warning"),
    ]


def _dagster(project: Project, host: str, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return _process(project, dagster_command(host, port), {DAGSTER_HOME: str(dagster_home(project.base))})


def _api(project: Project, host: str, ui_port: int, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dagster_retl.api", "--host", host, "--port", str(port)]
    return _process(project, command, {"RETL_DAGSTER_URL": f"http://{_shown(host)}:{ui_port}"})


@contextmanager
def _process(
    project: Project, command: Sequence[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **variables}
    if project.path is not None:
        environment["RETL_PROJECT"] = str(Path(project.path).absolute())
    # Its own session: Ctrl-C reaches us only, and we end it in good order.
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=project.base, env=environment, start_new_session=True
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
