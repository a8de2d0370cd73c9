"""Settings of the `sftp` connector."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from dagster_retl.connectors.files_config import FileSettings

_PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/]+={0,2}( .*)?")


class SftpConfig(FileSettings):
    """A folder of an SFTP server. `timeout` is for connecting, and for a server that says nothing any more."""

    host: str = Field(min_length=1)
    """Name or address of the server."""
    port: int = Field(22, ge=1, le=65_535)
    """Port of the server."""
    username: str = Field(min_length=1)
    """Who logs in."""
    password: SecretStr | None = None
    """Password of the user."""
    private_key: SecretStr | None = None
    """Private key of the user, as the text of its file (OpenSSH, PEM)."""
    private_key_file: str | None = Field(None, min_length=1)
    """File of the private key, in place of its text."""
    passphrase: SecretStr | None = None
    """Passphrase of the private key."""
    host_key: str | None = None
    """Public key that the server must have, such as `ssh-ed25519 AAAA…`."""
    known_hosts: str = Field("~/.ssh/known_hosts", min_length=1)
    """File with the public keys of servers, used where there is no `host_key`."""
    folder: str = Field(".", min_length=1)
    """Folder that files go to, from the one that the user is in after login, or absolute."""

    @field_validator("private_key_file", "known_hosts")
    @classmethod
    def _beside(cls, value: str | None, info: ValidationInfo) -> str | None:
        """A file is looked for beside retl.yaml, the `base` of the validation's context."""
        base = (info.context or {}).get("base")
        return value if value is None or base is None else str(base / Path(value).expanduser())

    @field_validator("host_key")
    @classmethod
    def _public(cls, value: str | None) -> str | None:
        if value is not None and not _PUBLIC_KEY.fullmatch(value.strip()):
            raise ValueError("is not a public key of a server, such as 'ssh-ed25519 AAAA…'")
        return value

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.private_key and self.private_key_file:
            raise ValueError("set 'private_key' or 'private_key_file', not both")
        keyed = self.private_key or self.private_key_file
        if not keyed and self.password is None:
            raise ValueError("needs 'password', 'private_key' or 'private_key_file'")
        if self.passphrase and not keyed:
            raise ValueError("'passphrase' is for a private key, and there is none")
        return self
