"""Where files go: a folder of this machine. A file appears under its name when it is whole and lasting."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from dagster_retl.connectors.files_errors import explained
from dagster_retl.errors import DestinationError, ErrorCode

PROBE = ".retl-check"
"""The name of the file by which it is tried whether files can be written; readers skip names with a dot in front."""


class Place(Protocol):
    """Takes files. All methods raise `DestinationError` only. shown: its address, without credentials."""

    @property
    def shown(self) -> str: ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole, in place of one of the same name. Folders are made where they are missing."""

    def probe(self) -> None:
        """Write a file under `PROBE` as `put` does, and remove it."""

    def folders(self) -> list[str]:
        """The names of the folders that are there."""

    def close(self) -> None:
        """Let go of connections."""


def temporary_name(name: str) -> str:
    """A fresh name beside a file, while that is being written."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}.{file}.{secrets.token_hex(4)}.tmp"


class LocalFolder:
    """A folder of this machine, which must exist: a mistyped path, or a disk that is missing, is an error."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def shown(self) -> str:
        return str(self._root)

    def put(self, name: str, content: bytes) -> None:
        self._require_root()
        target = self._root / name
        with explained(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(self._root / temporary_name(name), target, content)
        with explained(f"write {target} for good", ambiguous=True):
            self._flush_folders(target)

    def probe(self) -> None:
        self.put(PROBE, b"")
        with explained(f"remove {self._root / PROBE}"):
            (self._root / PROBE).unlink(missing_ok=True)  # another process may be trying the same

    def folders(self) -> list[str]:
        self._require_root()
        with explained(f"list {self._root}"):
            return sorted(path.name for path in self._root.iterdir() if path.is_dir() and path.name[0] != ".")

    def close(self) -> None:
        return

    def _write(self, temporary: Path, target: Path, content: bytes) -> None:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _flush_folders(self, target: Path) -> None:
        """The names of a file and of the folders above it, which may be new, up to the root."""
        if os.name != "posix":  # elsewhere a folder cannot be opened; its entries are written through
            return
        for name in target.relative_to(self._root).parents:
            descriptor = os.open(self._root / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _require_root(self) -> None:
        with explained(f"look into {self._root}"):
            there = self._root.is_dir()
        if not there:
            raise DestinationError(
                f"there is no folder {self._root}",
                code=ErrorCode.CONFIGURATION,
                hint="Create it, mount it, or correct `url` of the destination.",
            )
