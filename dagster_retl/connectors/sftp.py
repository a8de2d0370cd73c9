"""The `sftp` connector: rows as files on an SFTP server, with the formats and names of `files`.

A file is uploaded under another name, flushed where the server can do that (`fsync@openssh.com`), and renamed in one
step (`posix-rename@openssh.com`): https://github.com/openssh/openssh-portable/blob/master/PROTOCOL. The server has to
prove that it has the key which is configured; nothing is ever trusted at first sight.

Limits: as in `files`; each file is a connection of its own. A file is accepted as a whole; the rows that CSV cannot
hold are answered by themselves. Needs the extra `sftp` (asyncssh, https://asyncssh.readthedocs.io).
"""

from __future__ import annotations

from typing import ClassVar

from dagster_retl.connectors.base import ConnectorConfig, ConnectorSpec
from dagster_retl.connectors.files_handover import FileHandover, handover_spec
from dagster_retl.connectors.files_places import Place
from dagster_retl.connectors.sftp_codes import CODES
from dagster_retl.connectors.sftp_config import SftpConfig
from dagster_retl.errors import ConfigurationError


class SftpConnector(FileHandover):
    """Rows as files in a folder of an SFTP server."""

    spec: ClassVar[ConnectorSpec] = handover_spec("sftp", "SFTP", CODES, "https://asyncssh.readthedocs.io")
    Config: ClassVar[type[ConnectorConfig]] = SftpConfig

    def open(self) -> Place:
        """Raises `ConfigurationError` where the extra is not installed."""
        try:
            from dagster_retl.connectors.sftp_folder import SftpFolder  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError as error:
            if error.name != "asyncssh":
                raise
            raise ConfigurationError(
                "the connector 'sftp' needs asyncssh, which is not installed",
                hint="Install it with: pip install 'dagster-retl[sftp]'",
            ) from None
        return SftpFolder(self.config)
