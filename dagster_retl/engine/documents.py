"""Documents: mapped rows as the JSON that a destination reads, written block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dagster_retl.engine.spool import Spool
from dagster_retl.engine.stage import NUMBER
from dagster_retl.mapping.wire import json_sql
from dagster_retl.model.rows import FieldType, WireForm

Numbers = npt.NDArray[np.int64]


def chosen_rows(block: pa.Table, numbers: Numbers) -> pa.Table:
    """The rows of a block that have these numbers (all of them are in it), in their order."""
    if len(numbers) == block.num_rows:
        return block
    return block.take(np.searchsorted(block[NUMBER].to_numpy(), numbers))


def write_documents(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, fields: Sequence[FieldType], form: WireForm
) -> pa.ChunkedArray:
    """One document for each row, as UTF-8 in `binary`, in the order of the rows; in any thread."""
    with closing(connection.cursor()) as cursor:
        cursor.register("incoming", rows)
        query = f'SELECT "{NUMBER}" AS n, {json_sql(tuple(fields), form)} AS document FROM incoming'
        table = cursor.sql(query).to_arrow_table()
    numbers = table["n"].to_numpy()
    if not np.array_equal(numbers, rows[NUMBER].to_numpy()):
        table = table.take(np.argsort(numbers))
    return table["document"].cast(pa.binary())


def documents_of(
    connection: duckdb.DuckDBPyConnection,
    rows: Spool,
    numbers: Sequence[int],
    fields: Sequence[FieldType],
    form: WireForm,
) -> Mapping[int, bytes]:
    """The documents of a few rows, by number."""
    wanted = np.unique(np.array(numbers, dtype=np.int64))
    found: dict[int, bytes] = {}
    for first, last in rows.ranges():
        these = wanted[(wanted >= first) & (wanted <= last)]
        if len(these):
            block = chosen_rows(rows.read(first), these)
            found.update(zip(these.tolist(), write_documents(connection, block, fields, form).to_pylist(), strict=True))
    return found
