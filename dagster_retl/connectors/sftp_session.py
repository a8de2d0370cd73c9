"""A session with an SFTP server: who it is, is verified; what goes wrong, is explained."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncssh
from pydantic import SecretStr

from dagster_retl.connectors.sftp_codes import meaning_of_disconnect, meaning_of_status
from dagster_retl.connectors.sftp_config import SftpConfig
from dagster_retl.errors import DestinationError, ErrorCode

_SILENT = 3
"""After so many questions without an answer, `timeout` seconds together, a connection is given up."""


@asynccontextmanager
async def session(config: SftpConfig) -> AsyncIterator[asyncssh.SFTPClient]:
    """A client that is logged in. Raises `DestinationError`; nothing but `config` decides how it connects."""
    where = f"{config.host}:{config.port}"
    options: dict[str, Any] = {**_credentials(config), "known_hosts": _trusted(config)}
    client = _Client()
    with explained(f"connect to {where}"):
        try:
            connection = await asyncssh.connect(
                config.host,
                config.port,
                username=config.username,
                client_factory=lambda: client,
                config=None,
                agent_path=None,
                gss_kex=False,
                gss_auth=False,
                connect_timeout=config.timeout,
                login_timeout=config.timeout,
                keepalive_interval=config.timeout / _SILENT,
                keepalive_count_max=_SILENT,
                **options,
            )
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
            raise _not_trusted(config, client, error) from error
    async with connection:
        with explained(f"open a session of SFTP with {where}"):
            sftp = await connection.start_sftp_client()
        async with sftp:
            yield sftp


class _Client(asyncssh.SSHClient):
    """Remembers the key of a server that is not trusted, and does not trust it."""

    def __init__(self) -> None:
        self.shown: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key
        return False


def _credentials(config: SftpConfig) -> dict[str, Any]:
    """Without a key, none is looked for."""
    text = _revealed(config.private_key)
    if config.private_key_file:
        with explained(f"read the private key {config.private_key_file}", code=ErrorCode.CONFIGURATION):
            text = Path(config.private_key_file).read_text(encoding="utf-8")
    return {"password": _revealed(config.password), "client_keys": [_private_key(config, text)] if text else None}


def _private_key(config: SftpConfig, text: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(text, _revealed(config.passphrase))
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise DestinationError(
            f"the private key of {config.username!r} cannot be read: {error}",
            code=ErrorCode.CONFIGURATION,
            hint="Check `private_key` or `private_key_file`, and `passphrase`.",
        ) from None


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _trusted(config: SftpConfig) -> Any:
    """Keys that the server may have, as asyncssh takes them."""
    if config.host_key:
        return ([_public_key(config.host_key)], [], [])
    path = Path(config.known_hosts).expanduser()
    if not path.is_file():
        raise DestinationError(
            f"there is no file {path} with keys of servers to trust",
            code=ErrorCode.CONFIGURATION,
            hint="Set `host_key` to the public key of the server, or `known_hosts` to a file that has it.",
        )
    return str(path)


def _public_key(text: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(text)
    except asyncssh.KeyImportError as error:
        raise DestinationError(f"`host_key` cannot be read: {error}", code=ErrorCode.CONFIGURATION) from None


def _not_trusted(config: SftpConfig, client: _Client, error: asyncssh.DisconnectError) -> DestinationError:
    trusted = "`host_key`" if config.host_key else config.known_hosts
    if client.shown is None:
        told = f"no key of {config.host}:{config.port} is of a kind that {trusted} has: {error.reason}"
    else:
        key = client.shown.export_public_key().decode().strip()
        told = (
            f"{config.host}:{config.port} has a key that {trusted} does not: {key} ({client.shown.get_fingerprint()})"
        )
    return DestinationError(
        f"the server is not the one that is trusted: {told}",
        code=ErrorCode.CONFIGURATION,
        vendor_code=meaning_of_disconnect(error.code)[0],
        hint="Ask who runs the server for its key, by another way than this one. Only if it is that, trust it.",
    )


@contextmanager
def explained(doing: str, *, ambiguous: bool = False, code: ErrorCode | None = None) -> Iterator[None]:
    """Raise errors of the server and of the network as the `DestinationError` that they are.

    doing: what failed, such as `write a.csv`. ambiguous: it may have been done all the same. code: what it means,
    where that is known.
    """
    try:
        yield
    except asyncssh.SFTPError as error:
        raise _failure(doing, error.reason, meaning_of_status(error.code), ambiguous) from error
    except asyncssh.Error as error:
        raise _failure(doing, error.reason, meaning_of_disconnect(error.code), ambiguous) from error
    except OSError as error:
        meaning = (type(error).__name__, code or ErrorCode.DESTINATION_UNAVAILABLE)
        raise _failure(doing, error.strerror or str(error) or "no answer in time", meaning, ambiguous) from error


def _failure(doing: str, reason: str, meaning: tuple[str, ErrorCode], ambiguous: bool) -> DestinationError:
    vendor_code, code = meaning
    unclear = ambiguous and code is ErrorCode.DESTINATION_UNAVAILABLE
    return DestinationError(
        f"cannot {doing}: {reason}",
        code=ErrorCode.TIMEOUT if unclear else code,
        vendor_code=vendor_code,
        ambiguous=unclear,
    )
