"""Rows on their way through a run, on disk: blocks of columns, written once, read back in order.

A block is an Arrow file of its own, uncompressed: writing and reading one costs little more than copying it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa


class Spool:
    """Blocks by the numbers of their first and last rows. Threads may append different blocks at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ranges: dict[int, int] = {}

    def append(self, first: int, last: int, rows: pa.Table) -> None:
        """Write a block. Raises `OSError` where the disk is full."""
        with pa.OSFile(str(self._file(first)), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        self._ranges[first] = last

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The numbers of each block's first and last rows, in order."""
        yield from sorted(self._ranges.items())

    def read(self, first: int) -> pa.Table:
        """The rows of the block that begins with this one."""
        with pa.OSFile(str(self._file(first)), "rb") as source:
            return pa.ipc.open_file(source).read_all()

    def _file(self, first: int) -> Path:
        return self._folder / f"{first}.arrow"
