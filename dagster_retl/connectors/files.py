"""The `files` connector: rows as files for people who take them from there, in a folder or on an object store.

An object is a folder; each batch of a run is a file in it (CSV, JSON Lines or Parquet):

    <url>/<object>/run=<run id>/part-<number of the batch>-<key of the batch>.csv

Object stores (S3, Google Cloud Storage, Azure) are reached through `pyarrow.fs`:
https://arrow.apache.org/docs/python/filesystems.html. Locally a file is written under another name, flushed and
renamed; on an object store it is one upload. So no half file has the name of a part, and a batch that is sent again
replaces its own file.

Limits: a file has at most 50,000 rows and 64 MB of JSON, unless configured. A file is accepted as a whole; the rows
that CSV cannot hold (see `files_csv`) are answered by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dagster_retl.connectors.base import ConnectorConfig, ConnectorSpec
from dagster_retl.connectors.files_config import FilesConfig
from dagster_retl.connectors.files_errors import CODES
from dagster_retl.connectors.files_handover import FileHandover, handover_spec
from dagster_retl.connectors.files_places import LocalFolder, Place


class FilesConnector(FileHandover):
    """Rows as files in a folder or on an object store."""

    spec: ClassVar[ConnectorSpec] = handover_spec(
        "files", "Files", CODES, "https://arrow.apache.org/docs/python/filesystems.html"
    )
    Config: ClassVar[type[ConnectorConfig]] = FilesConfig

    def open(self) -> Place:
        location = self.config.location()
        if location is None:
            return LocalFolder(Path(self.config.url.get_secret_value()).absolute())
        from dagster_retl.connectors.files_objects import ObjectFolder  # noqa: PLC0415 - its libraries take long to load

        return ObjectFolder(location)
