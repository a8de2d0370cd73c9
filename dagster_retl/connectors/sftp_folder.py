"""A folder of an SFTP server as a place for files: uploaded under another name, and renamed when they are whole."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import asyncssh

from dagster_retl.connectors.files_places import PROBE, temporary_name
from dagster_retl.connectors.sftp_config import SftpConfig
from dagster_retl.connectors.sftp_session import explained, session
from dagster_retl.errors import DestinationError, ErrorCode

T = TypeVar("T")


class SftpFolder:
    """A folder that must exist. Each call is a session of its own. Safe to share between threads."""

    def __init__(self, config: SftpConfig) -> None:
        self._config = config

    @property
    def shown(self) -> str:
        """With `~` for the folder that the user is in after login."""
        folder = self._config.folder
        path = folder if folder.startswith("/") else f"/~/{folder}".removesuffix("/.")
        return f"sftp://{self._config.host}:{self._config.port}{path}"

    def put(self, name: str, content: bytes) -> None:
        _run(self._put(name, content))

    def probe(self) -> None:
        _run(self._probe())

    def folders(self) -> list[str]:
        return _run(self._folders())

    def close(self) -> None:
        return

    async def _put(self, name: str, content: bytes) -> None:
        async with session(self._config) as sftp:
            await self._write(sftp, name, content)

    async def _probe(self) -> None:
        async with session(self._config) as sftp:
            await self._write(sftp, PROBE, b"")
            with (
                explained(f"remove {self._at(PROBE)}"),
                suppress(asyncssh.SFTPPermissionDenied, asyncssh.SFTPNoSuchFile),
            ):
                await sftp.remove(self._at(PROBE))  # who may only write may hand files over

    async def _folders(self) -> list[str]:
        async with session(self._config) as sftp:
            await self._require_folder(sftp)
            with explained(f"list {self.shown}"):
                names = await sftp.readdir(self._config.folder)
        folders = [str(each.filename) for each in names if each.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY]
        return sorted(name for name in folders if not name.startswith("."))

    async def _write(self, sftp: asyncssh.SFTPClient, name: str, content: bytes) -> None:
        await self._require_folder(sftp)
        target, temporary = self._at(name), self._at(temporary_name(name))
        folder = target.rpartition("/")[0]
        try:
            with explained(f"write {target}"):
                if not await sftp.isdir(folder):
                    await sftp.makedirs(folder, exist_ok=True)
                await _upload(sftp, temporary, content)
            with explained(f"rename {temporary} to {target}", ambiguous=True):
                await _rename(sftp, temporary, target)
        except DestinationError:
            with suppress(asyncssh.Error, OSError):  # what failed before is what is told
                await sftp.remove(temporary)
            raise

    async def _require_folder(self, sftp: asyncssh.SFTPClient) -> None:
        with explained(f"look into {self.shown}"):
            there = await sftp.isdir(self._config.folder)
        if not there:
            raise DestinationError(
                f"there is no folder {self.shown}",
                code=ErrorCode.CONFIGURATION,
                hint="Create it, or correct `folder` of the destination.",
            )

    def _at(self, name: str) -> str:
        return f"{self._config.folder.rstrip('/')}/{name}"


async def _upload(sftp: asyncssh.SFTPClient, path: str, content: bytes) -> None:
    async with sftp.open(path, "xb") as file:
        await file.write(content)
        with suppress(asyncssh.SFTPOpUnsupported):
            await file.fsync()


async def _rename(sftp: asyncssh.SFTPClient, temporary: str, target: str) -> None:
    """In place of a file of that name, which older servers do not do: there it is gone for a moment."""
    try:
        await sftp.posix_rename(temporary, target)
    except asyncssh.SFTPOpUnsupported:
        if await sftp.exists(target):
            await sftp.remove(target)
        await sftp.rename(temporary, target)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: the caller's may have a loop that runs."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="retl-sftp") as thread:
        return thread.submit(asyncio.run, work).result()
