"""What connectors that hand files over have in common: a batch is a file, all of it or nothing."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from dagster_retl.connectors.base import ConnectorConfig, ConnectorSpec, DirectConnector
from dagster_retl.connectors.files_formats import encode
from dagster_retl.connectors.files_names import object_folder, part_name
from dagster_retl.connectors.files_places import Place
from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import Account, AllAccepted, Batch, FieldInfo, ObjectInfo, RowResult, WireForm


def handover_spec(name: str, title: str, codes: Mapping[str, ErrorCode], documentation: str) -> ConnectorSpec:
    """What a connector that hands files over can do; codes: what the errors of its places mean."""
    return ConnectorSpec(
        name=name,
        title=title,
        modes=frozenset({"upsert", "insert", "update", "delete", "mirror"}),
        batch_rows=50_000,
        batch_bytes=64_000_000,
        concurrency=1,
        wire_form=WireForm(nest=False),
        matching="A file is written as a whole: its rows are accepted when it has its name. "
        "A row that its format cannot hold fails by itself, and the file has the others.",
        vendor_codes=codes,
        documentation=documentation,
    )


class FileHandover(DirectConnector):
    """Rows as files, one for each batch. Its configuration is a `FileSettings`."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__(config)
        self._opened: Place | None = None
        self._opening = threading.Lock()

    @abstractmethod
    def open(self) -> Place:
        """The place that files go to; nobody is asked yet."""

    @property
    def _place(self) -> Place:
        with self._opening:
            if self._opened is None:
                self._opened = self.open()
            return self._opened

    def supports(self, mode: str) -> str | None:
        """Removals have to be told from other rows."""
        if mode in ("delete", "mirror") and not self.config.operation_column:
            return (
                f"mode {mode!r} needs `operation_column: true` of the destination: a column says what to do with a row"
            )
        return super().supports(mode)

    def identity(self) -> str:
        return self._place.shown

    def check(self) -> Account:
        """Write a file and remove it. Raises `DestinationError` saying why that failed."""
        self._place.probe()
        return Account(id=self.identity(), name=self.identity())

    def objects(self) -> list[ObjectInfo]:
        """The folders that are there; others are made when they are written to."""
        return [ObjectInfo(name, name) for name in self._place.folders()]

    def fields(self, object_name: str) -> list[FieldInfo]:
        """None: a file has the columns that a sync maps. Raises `DestinationError` for a name that is no folder's."""
        object_folder(object_name)
        return []

    def write(self, batch: Batch) -> Sequence[RowResult]:
        """Write a batch as a file, in place of the one that the same batch left before."""
        if not batch.rows:
            return []
        name = part_name(self.config.file_name, batch, self.config.extension)
        part = encode(batch, self.config)
        if part.content is not None:
            self._place.put(name, part.content)
        if not part.faults:
            return AllAccepted(batch.rows)
        return [RowResult(row.key, part.faults.get(row.key)) for row in batch.rows]

    def close(self) -> None:
        with self._opening:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
