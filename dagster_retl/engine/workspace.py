"""Where a run computes: a DuckDB database and a folder of its own in the spill folder, gone when the run ends.

A run that is killed leaves its folder behind, which the next run that works there removes: an owner
holds a lock on the file `owner` in it for as long as its process lives.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from dagster_retl.engine.machine import processors, spare_memory
from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.project import EngineSettings

if sys.platform != "win32":
    import fcntl

_PREFIX = "retl-run-"
_OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The run's DuckDB connection, its folder for files, and how many threads it may keep busy."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    threads: int


@contextmanager
def workspace(settings: EngineSettings) -> Iterator[Workspace]:
    """Open a workspace with the memory, threads and spill folder of `engine:`."""
    folder = _folder(settings.spill)
    lock = _own(folder)
    threads = settings.threads or processors()
    memory = settings.memory or spare_memory()
    try:
        connection = duckdb.connect(
            str(folder / "run.duckdb"), config={"memory_limit": f"{memory // 1_000_000}MB", "threads": threads}
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET arrow_lossless_conversion = true")  # a UUID as 16 bytes, not as text
            connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
            yield Workspace(connection, folder, threads)
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise _no_room(error, folder) from error
        finally:
            connection.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _folder(spill: str | None) -> Path:
    try:
        parent = Path(spill or tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise RetlError(
            f"the run cannot work in {spill or tempfile.gettempdir()}: {error.strerror}",
            hint="Set `engine: {spill: <a folder>}` in retl.yaml to one that can be written.",
        ) from error


def _own(folder: Path) -> int | None:
    """Lock the folder; the file gets its name when it is locked, so that nobody finds it free before."""
    locked = _lock(folder / f".{_OWNER}", os.O_RDWR | os.O_CREAT)
    if locked is not None:
        (folder / f".{_OWNER}").rename(folder / _OWNER)
    return locked


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder whose owner is dead. Nobody knows that of one without a lock, or of another user's."""
    locked = _lock(folder / _OWNER, os.O_RDWR)
    if locked is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(locked)


def _lock(file: Path, flags: int) -> int | None:
    """A descriptor that holds the file's lock; None where that cannot be had."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(file, flags | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else has it, or this file system knows no locks
        os.close(descriptor)
        return None
    return descriptor


def _no_room(error: duckdb.Error, folder: Path) -> RetlError:
    return RetlError(
        f"the run ran out of room in {folder.parent}: {str(error).splitlines()[0]}",
        code=ErrorCode.INTERNAL,
        hint="Free disk space there, or set `engine: {spill: <a larger folder>, memory: <more>}` in retl.yaml.",
    )
