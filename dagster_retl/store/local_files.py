"""State in a folder of this machine.

A file is written under a temporary name, flushed to the disk and renamed, and its folder is flushed.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from dagster_retl.errors import RetlError
from dagster_retl.store.files import DIFFERS, Fill, Found, Stored, checksum_of, missing

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("No space left", "File too large", "quota exceeded")  # strerror of those, in DuckDB's message


class LocalFiles:
    """Files in a folder, which is made when the first one is written. Safe to share between threads.

    setting: what in retl.yaml decides where the folder is. durable: a file that was put survives a
    power cut.
    """

    def __init__(self, folder: Path, *, setting: str = "state", durable: bool = True) -> None:
        self.folder = folder
        self._setting = setting
        self._durable = durable
        self._verified: dict[str, tuple[str, int, int]] = {}
        self._lock = threading.Lock()

    def put(self, name: str, fill: Fill) -> Stored:
        """Raises `RetlError` when the disk is full or the folder cannot be written; nothing is left behind then."""
        target = self.folder / name
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with self._explained(target.parent):
                target.parent.mkdir(parents=True, exist_ok=True)
                rows = fill(temporary)
                self._flush(temporary, os.O_RDWR)
                checksum = checksum_of(temporary)
                self._publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        self._remember(name, checksum, target)
        return Stored(name, rows, checksum)

    def local_path(self, name: str, checksum: str) -> Path:
        """Verified once in the life of this object, and again when the file was touched meanwhile."""
        path = self.folder / name
        try:
            stat = path.stat()
            if self._verified.get(name) == (checksum, stat.st_size, stat.st_mtime_ns):
                return path
            actual = checksum_of(path)
        except OSError as error:
            raise missing(path, f"cannot be read ({error.strerror})") from error
        if actual != checksum:
            raise missing(path, DIFFERS)
        self._remember(name, checksum, path)
        return path

    def files_in(self, folder: str) -> list[Found]:
        path = self.folder / folder
        found = []
        for file in path.iterdir() if path.is_dir() else ():
            with suppress(FileNotFoundError):  # somebody removes the same files
                found.append(Found(file.name, file.stat().st_mtime))
        return found

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        return

    def _remember(self, name: str, checksum: str, path: Path) -> None:
        stat = path.stat()
        with self._lock:
            self._verified[name] = (checksum, stat.st_size, stat.st_mtime_ns)

    def _publish(self, temporary: Path, target: Path) -> None:
        """Give the file its name; never an existing one."""
        if target.exists():
            raise FileExistsError(errno.EEXIST, f"{target.name} exists already: names are never used twice")
        temporary.rename(target)
        if os.name == "posix":  # elsewhere a folder cannot be opened; its entries are written through
            self._flush(target.parent, os.O_RDONLY)

    def _flush(self, path: Path, flags: int) -> None:
        if not self._durable:
            return
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _explained(self, folder: Path) -> Iterator[None]:
        """Say what to do when a write to the folder fails, whoever wrote."""
        try:
            yield
        except OSError as error:
            raise self._unwritable(folder, error.strerror or str(error), full=error.errno in _FULL) from error
        except duckdb.IOException as error:
            full = any(words in str(error) for words in _FULL_WORDS)
            raise self._unwritable(folder, str(error), full=full) from error

    def _unwritable(self, folder: Path, reason: str, *, full: bool) -> RetlError:
        hint = (
            f"The disk is full (or a quota is reached): free some space, or set `{self._setting}` in retl.yaml "
            "to another disk."
            if full
            else f"Make the folder writable, or set `{self._setting}` in retl.yaml to another one."
        )
        return RetlError(f"the state folder {folder} cannot be written: {reason}", hint=hint)
