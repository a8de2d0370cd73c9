"""A DataFrame as a source: pandas, Polars, Arrow, or whatever else hands out an Arrow stream."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dagster_retl.errors import SourceError
from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.base import SourceSettings
from dagster_retl.sources.duckdb_source import DuckDBSource
from dagster_retl.sources.query import FRAME


class FrameSource(DuckDBSource):
    """One table, `FRAME`, in DuckDB's memory. `name` is what errors call it.

    The index of a pandas DataFrame is left out. Raises `SourceError` for what cannot be a table.
    """

    def __init__(self, frame: object, name: str) -> None:
        super().__init__(":memory:", SourceSettings(name), Redactor(()))
        self._table = _to_arrow(frame, name)

    def _connect(self, spill: str) -> Any:
        connection = super()._connect(spill)
        connection.register(FRAME, self._table)
        return connection


def _to_arrow(frame: object, name: str) -> pa.Table:
    try:
        # pandas' own stream has the index as a column.
        if type(frame).__module__.partition(".")[0] == "pandas":
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        return pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SourceError(
            f"{name} gave a {type(frame).__name__}, which cannot be read as a table: {error}",
            hint="Return a DataFrame (pandas, Polars) or an Arrow table, with one type in each column.",
        ) from error
