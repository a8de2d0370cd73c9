"""The state beside the store: snapshot generations, manifests and row history, immutable files (PROTOCOL 9).

A file gets its name when it is whole and lasting; its name is never used again. The store holds its
name and checksum. Each sync has a folder:

    <state>/<sync id>/g-<store uuid>-<fencing token>-<random>.parquet     a generation
    <state>/<sync id>/m-<store uuid>-<fencing token>-<random>.parquet     a manifest
    <state>/<sync id>/h-<store uuid>-<fencing token>-<random>.parquet     what became of a run's rows

The state is a folder of this machine (`local_files`) or a prefix on an object store (`object_files`).
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from dagster_retl.errors import ConfigurationError
from dagster_retl.store.files import Files, Fill, Found, Stored
from dagster_retl.store.local_files import LocalFiles

GRACE = timedelta(hours=24)
"""How long a file that nobody needs any more is kept: a reader may still be at it."""

KEPT_GENERATIONS = 2
"""How many generations of a sync stay, needed or not."""

_GENERATION = "g"
_MANIFEST = "m"
_HISTORY = "h"
_KINDS = (_GENERATION, _MANIFEST, _HISTORY)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FILE = re.compile(rf"(?P<kind>[{''.join(_KINDS)}])-(?P<store>[0-9a-z]+)-(?P<token>\d{{12}})-[0-9a-f]+\.parquet")


def generation_name(store_uuid: str, sync_id: str, token: int) -> str:
    """A fresh name for a snapshot generation, written under the lease with this fencing token."""
    return _fresh_name(_GENERATION, store_uuid, sync_id, token)


def manifest_name(store_uuid: str, sync_id: str, token: int) -> str:
    """A fresh name for a run's manifest."""
    return _fresh_name(_MANIFEST, store_uuid, sync_id, token)


def history_name(store_uuid: str, sync_id: str, token: int) -> str:
    """A fresh name for the history of the rows of a run."""
    return _fresh_name(_HISTORY, store_uuid, sync_id, token)


class State:
    """The files of one state folder or prefix. Safe to share between threads. Close it when done."""

    def __init__(self, files: Files | Path) -> None:
        self._files = LocalFiles(files) if isinstance(files, Path) else files

    @classmethod
    def open(cls, url: str, *, base: Path | None = None, spill: str | None = None) -> State:
        """The state at a path, a `file://` URL, or a URL of an object store: `s3://`, `gs://`, `abfs://`.

        base: where a relative path starts. spill: folder for copies of what an object store holds;
        None: the system's temporary folder. Raises `ConfigurationError` for places that state cannot
        be kept in. Nothing is created, and nobody is asked, before the first use.
        """
        scheme, found, _ = url.partition("://")
        if not found or scheme.lower() == "file":
            return cls((base or Path.cwd()) / _local_folder(url))
        from dagster_retl.model.object_urls import locate  # noqa: PLC0415 - their libraries take long to load
        from dagster_retl.store.object_files import ObjectFiles  # noqa: PLC0415

        return cls(ObjectFiles(locate(url, setting="state"), spill=spill))

    @property
    def folder(self) -> Path:
        """Where files can be read on this machine: the state itself, or copies of it."""
        return self._files.folder

    def write(self, name: str, write: Fill) -> Stored:
        """Have `write` fill a file (it may return a row count) and give it its name for good.

        When this returns, file and name survive a power cut. Raises `RetlError` when it cannot be
        written; no file of that name is there then.
        """
        return self._files.put(_checked(name), write)

    def local_path(self, name: str, checksum: str) -> Path:
        """Where to read a file on this machine; verified against its checksum.

        A copy of what an object store holds stays until this object is closed, or four newer ones of
        the same sync and kind were read. Raises `StateMissingError` when the file is gone or differs
        from what was written, and another `RetlError` when nobody can tell.
        """
        return self._files.local_path(_checked(name), checksum)

    def delete(self, name: str) -> None:
        """Remove a file that the store names no more; there may be none."""
        self._files.remove(_checked(name))

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

        They are of this store (another one may share the folder) or left over from a write that was
        killed, not in `keep`, not among the last `generations`, and nobody needed them for
        `older_than`: a generation is needed until the next one was written.
        """
        found = sorted(self._files.files_in(_checked(sync_id)), key=lambda file: file.name)
        kept = {name.rpartition("/")[2] for name in keep} | _newest_generations(found, store_uuid, generations)
        needed_until = _needed_until(found, store_uuid)
        oldest = time.time() - older_than.total_seconds()
        unneeded = [
            f"{sync_id}/{file.name}"
            for file in found
            if file.name not in kept and _collectable(file.name, store_uuid) and needed_until[file.name] < oldest
        ]
        for name in unneeded:
            self._files.remove(name)
        return unneeded

    def close(self) -> None:
        """Remove the copies of what an object store holds."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fresh_name(kind: str, store_uuid: str, sync_id: str, token: int) -> str:
    return f"{sync_id}/{kind}-{store_uuid}-{token:012d}-{secrets.token_hex(8)}.parquet"


def _checked(name: str) -> str:
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"{name!r} is not the name of a state file")
    return name


def _local_folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ConfigurationError(
                f"`state` is a file:// URL of another host, {parts.netloc}", hint="Write file:///folder/of/the/state."
            )
        return Path(unquote(parts.path))
    if not url.strip():
        raise ConfigurationError("`state` is empty", hint="Set it to a folder, such as .retl/state.")
    return Path(url).expanduser()


def _generations(found: Sequence[Found], store_uuid: str) -> list[Found]:
    matches = [(file, _FILE.fullmatch(file.name)) for file in found]
    return [file for file, match in matches if match and match["kind"] == _GENERATION and match["store"] == store_uuid]


def _newest_generations(found: Sequence[Found], store_uuid: str, count: int) -> set[str]:
    mine = [file.name for file in _generations(found, store_uuid)]
    return set(mine[max(0, len(mine) - count) :])


def _needed_until(found: Sequence[Found], store_uuid: str) -> dict[str, float]:
    """Until when somebody may have begun to read each file."""
    by_age = sorted(_generations(found, store_uuid), key=lambda file: file.modified)
    replaced = {older.name: newer.modified for older, newer in pairwise(by_age)}
    return {file.name: replaced.get(file.name, file.modified) for file in found}


def _collectable(name: str, store_uuid: str) -> bool:
    if name.startswith(".") and name.endswith(".tmp"):
        return True
    match = _FILE.fullmatch(name)
    return match is not None and match["store"] == store_uuid
