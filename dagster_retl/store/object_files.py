"""State on an object store, through `pyarrow.fs`.

A file is written to this machine first, and uploaded under its name in one go: an object appears
when its upload is complete. Where a store shows part of an upload all the same, the checksum tells.
Readers read copies on this machine, each verified when it was made.
"""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from dagster_retl.errors import ConfigurationError, ErrorCode, RetlError, StateMissingError
from dagster_retl.model.object_prefix import ObjectPrefix
from dagster_retl.model.object_urls import ObjectLocation, denied
from dagster_retl.store.files import DIFFERS, Fill, Found, Stored, missing
from dagster_retl.store.local_files import LocalFiles

_BLOCK = 16 * 2**20
"""Bytes that are on their way at a time: pyarrow would queue a whole file in memory."""

_COPIES = 4
"""How many copies of one kind stay for each sync; a reader needs two at most."""


class ObjectFiles(ObjectPrefix):
    """Files under a prefix of a bucket. Safe to share between threads.

    spill: folder for the copies; None: the system's temporary folder.
    """

    def __init__(self, location: ObjectLocation, *, spill: str | None = None) -> None:
        super().__init__(location)
        self._spill = spill
        self._lock = threading.Lock()
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._room: tempfile.TemporaryDirectory[str] | None = None
        self._copies: LocalFiles | None = None

    @property
    def folder(self) -> Path:
        return self._copied.folder

    def put(self, name: str, fill: Fill) -> Stored:
        """Raises `RetlError` when there is no room for a copy, or the store cannot be written."""
        self._check_new(name)
        copies = self._copied
        stored = copies.put(name, fill)
        try:
            self._upload(copies.local_path(name, stored.checksum), name)
        except BaseException:
            copies.remove(name)
            raise
        self._forget_old(name)
        return stored

    def local_path(self, name: str, checksum: str) -> Path:
        """A copy, made when there is none yet; threads that ask for the same one at once wait for it."""
        with self._turn(name):
            with suppress(StateMissingError):  # no copy, or somebody damaged it
                return self._copied.local_path(name, checksum)
            return self._fetch(name, checksum)

    def files_in(self, folder: str) -> list[Found]:
        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        with self._reaching("listed"):
            infos = self._store.get_file_info(selector)
        return [Found(info.base_name, info.mtime.timestamp()) for info in infos if info.is_file]

    def remove(self, name: str) -> None:
        with self._reaching("cleared"), suppress(FileNotFoundError):
            self._store.delete_file(self._at(name))

    def close(self) -> None:
        """Remove the copies."""
        with self._lock:
            if self._room is not None:
                self._room.cleanup()
            self._room = self._copies = None

    # The store

    def _check_new(self, name: str) -> None:
        with self._reaching("written"):
            taken = self._store.get_file_info(self._at(name)).type is not fs.FileType.NotFound
        if taken:
            raise RetlError(f"{self._shown(name)} cannot be written: it exists already, and names are never used twice")
        self._check_bucket()

    def _check_bucket(self) -> None:
        """Raises `ConfigurationError` when there is none: nothing is missing from a bucket that is not there."""
        try:
            info = self._store.get_file_info(self._location.bucket)
        except (OSError, pa.ArrowException) as error:
            if denied(error):
                return  # some rights are for objects alone; the store answered about the object
            raise self._unavailable("reached", error) from None
        if info.type is fs.FileType.NotFound:
            raise ConfigurationError(
                f"the state at {self._location.shown} cannot be reached: there is no bucket {self._location.bucket!r}",
                hint="Create it, or correct `state` in retl.yaml: name, region and endpoint.",
            )

    def _upload(self, file: Path, name: str) -> None:
        """Whoever is killed meanwhile leaves no object. An upload that fails may leave one that nobody names."""
        with self._reaching("written"):
            with file.open("rb") as content, self._store.open_output_stream(self._at(name)) as upload:
                while block := content.read(_BLOCK):
                    upload.write(block)
                    upload.flush()
            size = self._store.get_file_info(self._at(name)).size
        if size != file.stat().st_size:
            raise RetlError(
                f"{self._shown(name)} cannot be written: {size} bytes arrived of {file.stat().st_size}",
                hint="Run the sync again. If it stays, look at what stands between this machine and the store.",
                code=ErrorCode.STATE_UNAVAILABLE,
            )

    def _download(self, name: str, file: Path) -> None:
        if self._gone(name):
            raise missing(self._shown(name), "is not there")
        with self._reading(name):
            content = self._store.open_input_stream(self._at(name))
        with content, file.open("wb") as copy:
            while block := self._block(content, name):
                copy.write(block)

    def _block(self, content: Any, name: str) -> bytes:
        with self._reading(name):
            return bytes(content.read(_BLOCK))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if self._gone(name):
                raise missing(self._shown(name), "was removed while it was read") from None
            raise self._unavailable("read", error) from None

    def _gone(self, name: str) -> bool:
        with self._reaching("read"):
            gone = self._store.get_file_info(self._at(name)).type is fs.FileType.NotFound
        if gone:
            self._check_bucket()
        return bool(gone)

    @contextmanager
    def _reaching(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise self._unavailable(doing, error) from None

    def _unavailable(self, doing: str, error: Exception) -> RetlError:
        """Raise it `from None`: only here is the text free of secrets."""
        reason = self._location.redact(error).partition("\n")[0]
        message = f"the state at {self._location.shown} cannot be {doing}: {reason}"
        hint = (
            "Check the credentials. They must allow to list the bucket, and to read, write and delete objects."
            if denied(reason)
            else "Check `state` in retl.yaml (bucket, region, endpoint) and the network. What is there stays as it is."
        )
        return RetlError(message, hint=hint, code=ErrorCode.STATE_UNAVAILABLE)

    # Copies

    @property
    def _copied(self) -> LocalFiles:
        with self._lock:
            if self._copies is None:
                if self._spill is not None:
                    Path(self._spill).mkdir(parents=True, exist_ok=True)
                self._room = tempfile.TemporaryDirectory(prefix="retl-state-", dir=self._spill)
                self._copies = LocalFiles(Path(self._room.name), setting="engine.spill", durable=False)
            return self._copies

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with self._lock:
            turn = self._turns[name]
        with turn:
            yield

    def _fetch(self, name: str, checksum: str) -> Path:
        copies = self._copied
        copies.remove(name)
        stored = copies.put(name, partial(self._download, name))
        if stored.checksum != checksum:
            copies.remove(name)
            raise missing(self._shown(name), DIFFERS)
        self._forget_old(name)
        return copies.local_path(name, checksum)

    def _forget_old(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        alike = [copy for copy in self._copied.files_in(folder) if copy.name[:2] == file[:2]]
        alike.sort(key=lambda copy: copy.modified)
        for copy in alike[:-_COPIES]:
            self._copied.remove(f"{folder}/{copy.name}")
