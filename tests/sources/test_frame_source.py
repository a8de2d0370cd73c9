"""DataFrames as sources: types, nulls, the index, and what is no table."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from dagster_retl.errors import ErrorCode, SourceError
from dagster_retl.sources.frame_source import FrameSource

QUERY = "SELECT * FROM frame"


def rows(frame: object) -> list[dict[str, Any]]:
    with FrameSource(frame, "asset:a").read(QUERY) as extract:
        return pa.Table.from_batches(list(extract.blocks), extract.schema).to_pylist()


VALUES: dict[str, list[Any]] = {
    "text": ["é", None],
    "number": [2**62 + 1, None],
    "decimal": [Decimal("12345678901234567890.123456789"), None],
    "day": [date(2024, 2, 29), None],
    "moment": [datetime(2024, 2, 29, 12, 30, 0, 123456, UTC), None],
    "flag": [True, None],
    "list": [[1, 2], None],
    "struct": [{"a": 1}, None],
}


def test_values_of_an_arrow_table_survive() -> None:
    table = pa.table(VALUES)
    assert rows(table) == table.to_pylist()


def test_values_of_a_pandas_frame_survive() -> None:
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in VALUES.items()})
    assert rows(frame) == pa.table(VALUES).to_pylist()


def test_nullable_integers_stay_integers() -> None:
    assert rows(pd.DataFrame({"id": pd.array([2**62 + 1, None], dtype="Int64")})) == [{"id": 2**62 + 1}, {"id": None}]


def test_the_index_is_no_column() -> None:
    frame = pd.DataFrame({"id": [1]}, index=pd.Index(["x"], name="person"))
    assert rows(frame) == [{"id": 1}]
    assert FrameSource(frame, "asset:a").columns(QUERY).names == ["id"]


def test_a_frame_without_rows_has_its_columns() -> None:
    assert rows(pd.DataFrame({"id": pd.Series([], dtype="int64")})) == []


@pytest.mark.parametrize("frame", ["text", 7, pd.DataFrame({"mixed": [1, "one"]})])
def test_what_is_no_table_is_refused_by_name(frame: object) -> None:
    with pytest.raises(SourceError, match=f"asset:a gave a {type(frame).__name__}") as raised:
        FrameSource(frame, "asset:a")
    assert raised.value.code is ErrorCode.SOURCE_QUERY
