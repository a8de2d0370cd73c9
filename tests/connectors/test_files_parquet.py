"""Values and their types arrive in Parquet as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_readers import Rows, make_connector, only_part
from file_values import FORM, ROWS, local, write, written
from hypothesis import given, settings

from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing.rows import MadeRow, wire_value


def parquet_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    with TemporaryDirectory() as folder:
        write(Path(folder), rows, format="parquet")
        return pq.ParquetFile(only_part(Path(folder))).read()


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_parquet_is_read_back(rows: Rows) -> None:
    found = written(rows, format="parquet")
    assert found == rows
    assert [list(row) for row in found] == [list(row) for row in rows]


TYPES: Sequence[tuple[Any, pa.DataType]] = [
    (True, pa.bool_()),
    (2**63 - 1, pa.int64()),
    (2**64, pa.decimal128(38, 0)),
    (10**40, pa.decimal256(76, 0)),
    (Decimal("12.50"), pa.decimal128(38, 2)),
    (Decimal("1e3"), pa.decimal128(38, 0)),
    (Decimal("0." + "1" * 50), pa.decimal256(76, 50)),
    (1.5, pa.float64()),
    ("text", pa.string()),
    (b"raw", pa.binary()),
    (datetime(2025, 1, 2, 3, 4, 5, 6, UTC), pa.timestamp("us", "UTC")),
    (local(2025, 1, 2, 3, 4, 5, 6), pa.timestamp("us")),
    (date(2025, 1, 2), pa.date32()),
    (time(1, 2, 3, 4), pa.time64("us")),
    (UUID(int=7), pa.uuid()),
    ([1, 2], pa.list_(pa.int64())),
    ([], pa.list_(pa.string())),
    ({"a": 1, "b": ["c"]}, pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])),
    ([("k", Decimal("1.5"))], pa.map_(pa.string(), pa.decimal128(38, 1))),
    (None, pa.string()),
]


@pytest.mark.parametrize(("value", "kind"), TYPES, ids=lambda each: repr(each)[:40])
def test_a_value_has_its_type_in_parquet(value: Any, kind: pa.DataType) -> None:
    row = MadeRow("1", {"id": 1}, {"id": 1, "value": value}, orjson.Fragment(b"{}"))
    with TemporaryDirectory() as folder:
        make_connector(folder, format="parquet").write(Batch("people", Operation.UPSERT, [row] * 2, ("id",), "k"))
        table = pq.ParquetFile(only_part(Path(folder))).read()
    assert table.schema.field("value").type.equals(kind)
    assert table["value"].to_pylist() == [value, value]


@pytest.mark.parametrize(
    "values",
    [
        [1, "a"], [True, 1], [date(2025, 1, 1), local(2025, 1, 1)], [[1], {"a": 1}], [{}, {}], [[UUID(int=1)]],
        [local(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC)], [[1, "a"]], [Decimal(10) ** 90], [timedelta(1)],
    ],
    ids=repr,
)  # fmt: skip
def test_what_has_no_type_in_parquet_is_text(values: list[Any]) -> None:
    """As in JSON: text as it is, all else in the form that JSON has for it."""
    texts = [orjson.dumps(wire_value(value, FORM), default=str).decode() for value in values]
    rows = [
        MadeRow(str(n), {"id": n}, {"id": n, "value": value}, orjson.Fragment(f'{{"id":{n},"value":{text}}}'.encode()))
        for n, (value, text) in enumerate(zip(values, texts, strict=True))
    ]
    with TemporaryDirectory() as folder:
        make_connector(folder, format="parquet").write(Batch("people", Operation.UPSERT, rows, ("id",), "k"))
        table = pq.ParquetFile(only_part(Path(folder))).read()
    assert table.schema.field("value").type.equals(pa.string())
    assert table["value"].to_pylist() == [text.strip('"') for text in texts]


def test_integers_and_decimals_are_decimals() -> None:
    table = parquet_of([{"id": 1, "n": 5}, {"id": 2, "n": Decimal("5.25")}])
    assert table["n"].to_pylist() == [Decimal("5.00"), Decimal("5.25")]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd"])
def test_parquet_has_its_codec(tmp_path: Path, codec: str) -> None:
    write(tmp_path, [{"id": 1}], format="parquet", compression=codec)
    column = pq.ParquetFile(only_part(tmp_path)).metadata.row_group(0).column(0)
    assert column.compression == {"none": "UNCOMPRESSED"}.get(codec, codec.upper())


class InColumns(list[MadeRow]):
    """Rows whose sender keeps them in columns, too."""

    def __init__(self, columns: pa.Table) -> None:
        self.columns = columns
        rows = enumerate(columns.to_pylist())
        super().__init__(MadeRow(str(n), {"id": n}, {}, orjson.Fragment(_json(row))) for n, row in rows)


def _json(row: Mapping[str, Any]) -> bytes:
    """Nulls are left out, as some mappings have it."""
    return orjson.dumps({name: value for name, value in row.items() if value is not None}, default=str)


COLUMNS = pa.table(
    {
        "id": pa.array([1, 2], pa.int16()),
        "amount": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "nothing": pa.array([None, None], pa.float32()),
        "span": pa.array([timedelta(1), None], pa.duration("us")),
        "void": pa.nulls(2),
    }
)


def test_the_types_are_those_of_the_senders_columns(tmp_path: Path) -> None:
    batch = Batch("people", Operation.UPSERT, InColumns(COLUMNS), ("id",), "k")
    make_connector(tmp_path, format="parquet").write(batch)
    table = pq.ParquetFile(only_part(tmp_path)).read()
    assert table.select(["id", "amount", "nothing"]).equals(COLUMNS.select(["id", "amount", "nothing"]))
    assert table.schema.types[3:] == [pa.string()] * 2
    assert table["span"].to_pylist() == ["1 day, 0:00:00", None]


def test_columns_that_all_rows_leave_out_are_there(tmp_path: Path) -> None:
    make_connector(tmp_path).write(Batch("people", Operation.UPSERT, InColumns(COLUMNS), ("id",), "k"))
    assert only_part(tmp_path).read_text().partition("\n")[0] == "id,amount,nothing,span,void"
