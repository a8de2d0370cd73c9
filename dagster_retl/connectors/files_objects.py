"""Files on an object store, through `pyarrow.fs`: an object appears when its upload is complete."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress

import pyarrow as pa
from pyarrow import fs

from dagster_retl.connectors.files_errors import explained
from dagster_retl.connectors.files_places import PROBE
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.object_prefix import ObjectPrefix
from dagster_retl.model.object_urls import denied


class ObjectFolder(ObjectPrefix):
    """A prefix of a bucket. Safe to share between threads."""

    @property
    def shown(self) -> str:
        return self._location.shown

    def put(self, name: str, content: bytes) -> None:
        """Whoever is killed meanwhile leaves no object."""
        with self._reaching("write", name):
            upload = self._store.open_output_stream(self._at(name))
            upload.write(content)
            upload.flush()
        with self._reaching("write", name, ambiguous=True):
            upload.close()
        self._verify(name, len(content))

    def probe(self) -> None:
        self.put(PROBE, b"")
        try:
            with self._reaching("remove", PROBE), suppress(FileNotFoundError):
                self._store.delete_file(self._at(PROBE))
        except DestinationError as error:
            if error.code is not ErrorCode.PERMISSION:  # who may only write may hand files over
                raise

    def folders(self) -> list[str]:
        selector = fs.FileSelector(self._location.root, allow_not_found=True)
        with self._reaching("list", ""):
            infos = self._store.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type is fs.FileType.Directory)

    def close(self) -> None:
        self._disconnect()

    def _verify(self, name: str, size: int) -> None:
        """Something between this machine and the store may have cut an upload short."""
        with self._reaching("look at", name, ambiguous=True):
            try:
                found = self._store.get_file_info(self._at(name)).size
            except OSError as error:
                if denied(error):  # who may only write has its acknowledgement
                    return
                raise
        if found != size:
            raise DestinationError(
                f"cannot write {self._shown(name)}: {found or 0} bytes arrived of {size}",
                code=ErrorCode.DESTINATION_UNAVAILABLE,
                ambiguous=True,
            )

    def _reaching(self, doing: str, name: str, *, ambiguous: bool = False) -> AbstractContextManager[None]:
        return explained(
            f"{doing} {self._shown(name)}",
            ambiguous=ambiguous,
            redact=self._location.redact,
            also=(pa.ArrowException,),
        )
