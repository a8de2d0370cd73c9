"""What `State` asks of the place that its files are in, and the checksum that they are known by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dagster_retl.errors import StateMissingError

_CHECKSUM = "blake2b"

Fill = Callable[[Path], int | None]
"""Fills a new file of this machine; may return a row count."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the state: what the store remembers of it. rows: what its writer said, if it did."""

    name: str
    rows: int | None
    checksum: str


@dataclass(frozen=True, slots=True)
class Found:
    """A file in a folder of the state. modified: seconds since 1970, by the clock of the place."""

    name: str
    modified: float


class Files(Protocol):
    """A place for files that never change. Names are `<folder>/<file>`; `State` has checked them."""

    @property
    def folder(self) -> Path:
        """Where they can be read on this machine."""

    def put(self, name: str, fill: Fill) -> Stored:
        """Have a file filled, and give it its name when it is whole and lasting; never a name that is taken."""

    def local_path(self, name: str, checksum: str) -> Path:
        """Where to read a file, verified. Raises `StateMissingError` when it is gone or differs."""

    def files_in(self, folder: str) -> list[Found]:
        """The files of a folder; of one that does not exist: none."""

    def remove(self, name: str) -> None:
        """Remove a file, unless it is gone already."""

    def close(self) -> None:
        """Give up what reading took on this machine."""


def checksum_of(file: Path) -> str:
    """Algorithm, digest and size in bytes."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, _CHECKSUM).hexdigest()
        return f"{_CHECKSUM}:{digest[:64]}:{stream.tell()}"


def missing(file: object, problem: str) -> StateMissingError:
    """The error for a file that the store names and that cannot be read as it was written."""
    return StateMissingError(
        f"the state file {file} {problem}; the store says that it holds what was delivered",
        hint="Restore the file from a backup. Without one, `retl run SYNC --reset` starts from an empty snapshot: "
        "it sends every row again.",
    )


DIFFERS = "is not what was written: it is damaged, or was replaced"
