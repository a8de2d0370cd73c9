"""Where a run computes: a DuckDB database and a folder of its own in the spill folder, gone when the run ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from dagster_retl.engine.machine import processors, spare_memory
from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.project import EngineSettings


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


def _folder(spill: str | None) -> Path:
    try:
        if spill is not None:
            Path(spill).mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="retl-run-", dir=spill))
    except OSError as error:
        raise RetlError(
            f"the run cannot work in {spill or tempfile.gettempdir()}: {error.strerror}",
            hint="Set `engine: {spill: <a folder>}` in retl.yaml to one that can be written.",
        ) from error


def _no_room(error: duckdb.Error, folder: Path) -> RetlError:
    return RetlError(
        f"the run ran out of room in {folder.parent}: {str(error).splitlines()[0]}",
        code=ErrorCode.INTERNAL,
        hint="Free disk space there, or set `engine: {spill: <a larger folder>, memory: <more>}` in retl.yaml.",
    )
