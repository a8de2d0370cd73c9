"""Where a run computes: a DuckDB database of its own in the spill folder, gone when the run ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.project import EngineSettings


@dataclass(frozen=True, slots=True)
class Workspace:
    """The run's DuckDB connection and its folder for files."""

    connection: duckdb.DuckDBPyConnection
    folder: Path


@contextmanager
def workspace(settings: EngineSettings) -> Iterator[Workspace]:
    """Open a workspace with the memory, threads and spill folder of `engine:`."""
    folder = _folder(settings.spill)
    try:
        connection = duckdb.connect(
            str(folder / "run.duckdb"),
            config={"memory_limit": f"{settings.memory // 1_000_000}MB", "threads": settings.threads},
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
            yield Workspace(connection, folder)
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
