"""The contract of connectors, for `sftp`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from file_readers import parts, read
from sftp_server import PASSWORD, SftpPlace

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.sftp import SftpConnector
from dagster_retl.testing.contract import ConnectorContract


class TestSftp(ConnectorContract):
    connector_type = SftpConnector
    secrets = (PASSWORD, "a wrong password")
    examples = 3

    def destination(self) -> AbstractContextManager[SftpPlace]:
        return self._server()

    @contextmanager
    def _server(self) -> Iterator[SftpPlace]:
        with TemporaryDirectory() as folder, SftpPlace(Path(folder)) as place:
            yield place

    def connector(self, destination: SftpPlace) -> AnyConnector:
        return destination.connector(format="jsonl", batch_rows=20)

    def unauthorised(self, destination: SftpPlace) -> AnyConnector:
        return destination.connector(password="a wrong password")

    def stored(self, destination: SftpPlace) -> Mapping[str, Mapping[str, Any]]:
        return {str(row["id"]): row for path in parts(destination.out) for row in read(path)}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return None
