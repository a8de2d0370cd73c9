"""Which process holds a lease, and whether it still lives."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_SAME_START = 2.0  # seconds; the boot time that start times are measured from may move by one


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, so that another one on the same machine can tell whether it is gone.

    boot_id names the boot of the machine and the namespace that `pid` counts in: two containers
    on one machine see different processes. `started`: seconds from boot to the start of the
    process, which do not change when somebody sets the clock.
    """

    host: str
    boot_id: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> ProcessIdentity:
        """The process that asks."""
        process = psutil.Process()
        return cls(socket.gethostname(), _boot_id(), process.pid, _started(process))

    def gone(self) -> bool:
        """Whether the process certainly ended; false where that cannot be seen from here."""
        if (self.host, self.boot_id) != (socket.gethostname(), _boot_id()):
            return False
        try:
            process = psutil.Process(self.pid)
            reused = abs(_started(process) - self.started) > _SAME_START
            return reused or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def _started(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


def _boot_id() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()} {namespace.readlink()}"
    return f"boot {round(psutil.boot_time() / 60)}"
