"""The state beside the store: snapshot generations, manifests and row history, immutable files (PROTOCOL 9).

A file is written under a temporary name, flushed to the disk and renamed; its name is never used
again. The store holds its name and checksum. Each sync has a folder:

    <state>/<sync id>/g-<store uuid>-<fencing token>-<random>.parquet     a generation
    <state>/<sync id>/m-<store uuid>-<fencing token>-<random>.parquet     a manifest
    <state>/<sync id>/h-<store uuid>-<fencing token>-<random>.parquet     what became of a run's rows
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb

from dagster_retl.errors import ConfigurationError, RetlError, StateMissingError

GRACE = timedelta(hours=24)
"""How long a file that nobody names any more is kept: a reader may still be at it."""

KEPT_GENERATIONS = 2
"""How many generations of a sync stay, named or not: a reader may still be at one."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FILE = re.compile(r"(?P<kind>[gmh])-(?P<store>[0-9a-z]+)-(?P<token>\d{12})-[0-9a-f]+\.parquet")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("No space left", "File too large", "quota exceeded")  # strerror of those, in DuckDB's message
_CHECKSUM = "blake2b"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the state: what the store remembers of it. rows: what its writer said, if it did."""

    name: str
    rows: int | None
    checksum: str


def generation_name(store_uuid: str, sync_id: str, token: int) -> str:
    """A fresh name for a snapshot generation, written under the lease with this fencing token."""
    return _fresh_name("g", store_uuid, sync_id, token)


def manifest_name(store_uuid: str, sync_id: str, token: int) -> str:
    """A fresh name for a run's manifest."""
    return _fresh_name("m", store_uuid, sync_id, token)


def history_name(store_uuid: str, sync_id: str, token: int) -> str:
    """A fresh name for the history of the rows of a run."""
    return _fresh_name("h", store_uuid, sync_id, token)


class State:
    """The files of one state folder. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: dict[str, tuple[str, int, int]] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, url: str, *, base: Path | None = None) -> State:
        """The state at a path or `file://` URL; a relative path is relative to `base`.

        Raises `ConfigurationError` for places that this version cannot keep state in. Nothing is
        created before the first write.
        """
        return cls((base or Path.cwd()) / _local_folder(url))

    def write(self, name: str, write: Callable[[Path], int | None]) -> Stored:
        """Have `write` fill a file (it may return a row count) and give it its name for good.

        When this returns, file and name survive a power cut. Raises `RetlError` when the disk is
        full or the folder cannot be written; nothing is left behind then.
        """
        target = self._path(name)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with _explained(target.parent):
                target.parent.mkdir(parents=True, exist_ok=True)
                rows = write(temporary)
                _flush(temporary)
                checksum = _checksum(temporary)
                _publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        self._remember(name, checksum, target)
        return Stored(name, rows, checksum)

    def local_path(self, name: str, checksum: str) -> Path:
        """Where to read a file; verified against its checksum once in the life of this object.

        Raises `StateMissingError` when the file is gone or differs from what was written.
        """
        path = self._path(name)
        try:
            stat = path.stat()
            if self._verified.get(name) == (checksum, stat.st_size, stat.st_mtime_ns):
                return path
            actual = _checksum(path)
        except OSError as error:
            raise _missing(path, f"cannot be read ({error.strerror})") from error
        if actual != checksum:
            raise _missing(path, "is not what was written: it is damaged, or was replaced")
        self._remember(name, checksum, path)
        return path

    def delete(self, name: str) -> None:
        """Remove a file that the store names no more; there may be none."""
        self._path(name).unlink(missing_ok=True)

    def collect(
        self,
        sync_id: str,
        keep: set[str],
        older_than: timedelta = GRACE,
        *,
        store_uuid: str,
        generations: int = KEPT_GENERATIONS,
    ) -> list[str]:
        """Remove files of a sync that nobody needs; returns their names.

        They are older than `older_than`, not in `keep`, not among the last `generations`, and
        of this store (another one may share the folder) or left over from a write that was killed.
        """
        folder = self._path(f"{sync_id}/x").parent
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        kept = {name.rpartition("/")[2] for name in keep} | _newest_generations(files, store_uuid, generations)
        oldest = time.time() - older_than.total_seconds()
        removed = []
        for file in files:
            if file.name not in kept and _collectable(file, store_uuid) and file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)
                removed.append(f"{sync_id}/{file.name}")
        return removed

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if not all(_PART.fullmatch(part) for part in parts):
            raise ValueError(f"{name!r} is not the name of a state file")
        return self.folder.joinpath(*parts)

    def _remember(self, name: str, checksum: str, path: Path) -> None:
        stat = path.stat()
        with self._lock:
            self._verified[name] = (checksum, stat.st_size, stat.st_mtime_ns)


def _fresh_name(kind: str, store_uuid: str, sync_id: str, token: int) -> str:
    return f"{sync_id}/{kind}-{store_uuid}-{token:012d}-{secrets.token_hex(8)}.parquet"


def _local_folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.scheme and "://" in url:
        raise ConfigurationError(
            f"state on {parts.scheme}:// is not supported by this version",
            hint="Set `state` in retl.yaml to a folder, such as .retl/state.",
        )
    if not url.strip():
        raise ConfigurationError("`state` is empty", hint="Set it to a folder, such as .retl/state.")
    return Path(url).expanduser()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say what to do when a write to the folder fails, whoever wrote."""
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error), full=error.errno in _FULL) from error
    except duckdb.IOException as error:
        raise _unwritable(folder, str(error), full=any(words in str(error) for words in _FULL_WORDS)) from error


def _unwritable(folder: Path, reason: str, *, full: bool) -> RetlError:
    hint = (
        "The disk is full (or a quota is reached): free some space, or set `state` in retl.yaml to another disk."
        if full
        else "Make the folder writable, or set `state` in retl.yaml to another one."
    )
    return RetlError(f"the state folder {folder} cannot be written: {reason}", hint=hint)


def _missing(path: Path, problem: str) -> StateMissingError:
    return StateMissingError(
        f"the state file {path} {problem}; the store says that it holds what was delivered",
        hint="Restore the file from a backup. Without one, `retl run SYNC --reset` starts from an empty snapshot: "
        "it sends every row again.",
    )


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, target: Path) -> None:
    """Give the file its name; never an existing one."""
    if target.exists():
        raise FileExistsError(errno.EEXIST, f"{target.name} exists already: names are never used twice")
    temporary.rename(target)
    if os.name == "posix":  # elsewhere a folder cannot be opened; its entries are written through
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, _CHECKSUM).hexdigest()
        return f"{_CHECKSUM}:{digest[:64]}:{stream.tell()}"


def _newest_generations(files: list[Path], store_uuid: str, count: int) -> set[str]:
    generations = [match for file in files if (match := _FILE.fullmatch(file.name)) and match["kind"] == "g"]
    mine = sorted(match.string for match in generations if match["store"] == store_uuid)
    return set(mine[max(0, len(mine) - count) :])


def _collectable(file: Path, store_uuid: str) -> bool:
    if file.name.startswith(".") and file.name.endswith(".tmp"):
        return True
    match = _FILE.fullmatch(file.name)
    return match is not None and match["store"] == store_uuid
