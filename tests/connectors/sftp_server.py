"""An SFTP server on loopback (asyncssh's), in a thread: real keys, real logins, files in a folder of this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import asyncssh

from dagster_retl.connectors.sftp import SftpConnector
from dagster_retl.connectors.sftp_config import SftpConfig

USER, PASSWORD = "partner", "very secret password"


class Files(asyncssh.SFTPServer):
    """The files of a user, below the root of the server. Subclasses are servers that cannot do everything."""

    root: Path

    def __init__(self, channel: Any) -> None:
        super().__init__(channel, chroot=str(self.root).encode())


class OldFiles(Files):
    """A server without OpenSSH's extensions."""

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        raise asyncssh.SFTPOpUnsupported("not in this version")

    def fsync(self, file_obj: object) -> None:
        raise asyncssh.SFTPOpUnsupported("not in this version")


class DropBox(Files):
    """Nothing can be removed."""

    def remove(self, path: bytes) -> None:
        raise asyncssh.SFTPPermissionDenied("not here")


class ReadOnly(Files):
    """Nothing can be written."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        raise asyncssh.SFTPPermissionDenied("read only")


class WithoutRename(Files):
    """Files cannot be renamed."""

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        raise asyncssh.SFTPPermissionDenied("no renaming")


class Full(Files):
    """There is no room."""

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        raise asyncssh.SFTPFailure("No space left on device")


class SftpPlace:
    """A server with an empty folder `out`. host_key: its public key. authorized: keys that log in.

    hang_up_at: bytes of a write at which the server cuts the connection, and takes no more.
    """

    def __init__(self, root: Path, files: type[Files] = Files, *, hang_up_at: int | None = None) -> None:
        self.root = root
        self.out = root / "out"
        self.out.mkdir()
        self.logins = 0
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._files: type[Files] = type("_Files", (_hanging_up(files, self, hang_up_at),), {"root": root})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def host_key(self) -> str:
        return self._key.export_public_key().decode().strip()

    def known_hosts(self, path: Path, host_key: str | None = None) -> Path:
        path.write_text(f"[127.0.0.1]:{self.port} {host_key or self.host_key}\n")
        return path

    def settings(self, **others: Any) -> dict[str, Any]:
        usual = {"host": "127.0.0.1", "port": self.port, "username": USER, "folder": "out", "timeout": 10}
        trust = {} if "known_hosts" in others else {"host_key": self.host_key}
        login = {} if {"private_key", "private_key_file"} & others.keys() else {"password": PASSWORD}
        return {**usual, **trust, **login, **others}

    def connector(self, **others: Any) -> SftpConnector:
        return SftpConnector(SftpConfig.model_validate(self.settings(**others)))

    def private_key(self, passphrase: str | None = None) -> str:
        return self.user_key.export_private_key(passphrase=passphrase, rounds=4, ignore_few_rounds=True).decode()

    def __enter__(self) -> Self:
        self._thread.start()
        self._acceptor = self._do(self._listen)
        self.port = int(self._acceptor.get_port())
        return self

    def __exit__(self, *exception: object) -> None:
        self._do(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Callable[[], Any]) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(what(), self._loop)
        return done.result(30)

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Doorman(self),
            server_host_keys=[self._key],
            sftp_factory=self._files,
        )

    async def _stop(self) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()
        for connection in self.connections:
            connection.abort()
            await connection.wait_closed()


def _hanging_up(files: type[Files], place: SftpPlace, at: int | None) -> type[Files]:
    class Hanging(files):  # type: ignore[misc,valid-type]
        def write(self, file_obj: object, offset: int, data: bytes) -> int:
            if at is not None and offset + len(data) > at:
                place.connections[-1].abort()
            return int(super().write(file_obj, offset, data))

    return Hanging


class _Doorman(asyncssh.SSHServer):
    """One user, who may log in with the password or the key."""

    def __init__(self, place: SftpPlace) -> None:
        self._place = place

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._place.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return self._welcome((username, password) == (USER, PASSWORD))

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        mine = self._place.user_key.get_fingerprint()
        return self._welcome(username == USER and key.get_fingerprint() == mine)

    def _welcome(self, known: bool) -> bool:
        self._place.logins += known
        return known
