"""The contract of connectors, for `files`: each format in a folder, and one on an object store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from file_readers import make_connector, parts, read
from object_server import KEY, SECRET, Bucket, ObjectServer

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.files import FilesConnector
from dagster_retl.testing.contract import ConnectorContract


def as_text(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row as CSV has it."""
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(value, "f") if isinstance(value, Decimal) else str(value)


class _InAFolder(ConnectorContract):
    connector_type = FilesConnector
    settings: ClassVar[Mapping[str, Any]] = {}

    def destination(self) -> AbstractContextManager[Path]:
        return self._folder()

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder)

    def connector(self, destination: Path) -> AnyConnector:
        return make_connector(destination, batch_rows=20, **self.settings)

    def stored(self, destination: Path) -> Mapping[str, Mapping[str, Any]]:
        return {str(row["id"]): row for path in parts(destination) for row in read(path)}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return None


class TestCsv(_InAFolder):
    settings: ClassVar[Mapping[str, Any]] = {"format": "csv"}

    def expected(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return as_text(values)

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "name": "a\0b"}


class TestCompressedCsv(TestCsv):
    settings: ClassVar[Mapping[str, Any]] = {"format": "csv", "compression": "gzip"}
    examples = 5


class TestJsonl(_InAFolder):
    settings: ClassVar[Mapping[str, Any]] = {"format": "jsonl"}


class TestCompressedJsonl(_InAFolder):
    settings: ClassVar[Mapping[str, Any]] = {"format": "jsonl", "compression": "zstd"}
    examples = 5


class TestParquet(_InAFolder):
    settings: ClassVar[Mapping[str, Any]] = {"format": "parquet"}


class TestOnAnObjectStore(ConnectorContract):
    connector_type = FilesConnector
    secrets = (KEY, SECRET, quote(SECRET, safe=""))
    examples = 3
    server: ObjectServer

    @pytest.fixture(autouse=True)
    def _started(self, _object_server: ObjectServer) -> None:
        self.server = _object_server

    def destination(self) -> AbstractContextManager[Bucket]:
        return self._bucket()

    @contextmanager
    def _bucket(self) -> Iterator[Bucket]:
        yield self.server.bucket()

    def connector(self, destination: Bucket) -> AnyConnector:
        return make_connector(destination.url("out"), format="jsonl", batch_rows=20)

    def stored(self, destination: Bucket) -> Mapping[str, Mapping[str, Any]]:
        with TemporaryDirectory() as folder:
            found = {}
            for number, name in enumerate(sorted(destination.names("out/"))):
                path = Path(folder) / f"{number}.jsonl"
                path.write_bytes(destination.read(name))
                found |= {str(row["id"]): row for row in read(path)}
            return found

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return None
