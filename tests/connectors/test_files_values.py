"""Values arrive as they were: whatever text, number or time, in CSV, JSON Lines and Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_readers import Rows, make_connector, only_part, parts, plain, read, read_csv, read_csv_by_duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation, RowResult
from dagster_retl.testing.rows import MadeRow, make_batch, wire_value

FORM = make_connector("/nowhere").spec.wire_form


def batch_of(rows: Sequence[Mapping[str, Any]], operation: str = "upsert") -> Batch:
    return make_batch(rows, operation=operation, object_name="people", wire=FORM)


def write(folder: Path, rows: Sequence[Mapping[str, Any]], operation: str = "upsert", **how: Any) -> list[RowResult]:
    """Write rows as the only file of a folder; one answer for each of them."""
    batch = batch_of(rows, operation)
    results = list(make_connector(folder, **how).write(batch))
    assert [result.key for result in results] == [row.key for row in batch.rows]
    return results


def written(rows: Sequence[Mapping[str, Any]], **how: Any) -> Rows:
    """What a reader finds after rows were written."""
    with TemporaryDirectory() as folder:
        assert all(result.fault is None for result in write(Path(folder), rows, **how))
        return read(only_part(Path(folder)))


def content(folder: Path, rows: Sequence[Mapping[str, Any]], **how: Any) -> str:
    write(folder, rows, **how)
    return plain(only_part(folder)).decode()


def local(*parts: int) -> datetime:
    """A time without zone, as many databases have it."""
    return datetime(*parts)  # noqa: DTZ001  # as it is meant


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS) | st.text("\",;\r\n\t =+-@'\\é🚀a")
NUMBERS = st.integers(-(2**63), 2**63 - 1)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**15), max_value=10**15)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
YEARS = {"min_value": local(1, 1, 3), "max_value": local(9999, 12, 29)}
SCALARS: Mapping[str, st.SearchStrategy[Any]] = {
    "text": st.none() | TEXTS,
    "number": st.none() | NUMBERS,
    "amount": st.none() | DECIMALS,
    "share": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.none() | st.booleans(),
    "moment": st.none() | st.datetimes(**YEARS, timezones=ZONES),
    "local": st.none() | st.datetimes(**YEARS),
    "day": st.none() | st.dates(),
    "hour": st.none() | st.times(),
    "raw": st.none() | st.binary(),
    "tags": st.none() | st.lists(TEXTS),
    "person": st.none() | st.fixed_dictionaries({"name": TEXTS, "age": st.none() | NUMBERS, "paid": DECIMALS}),
}
ROWS = st.lists(st.fixed_dictionaries(dict(SCALARS)), min_size=1, max_size=5).map(
    lambda rows: [{"id": number, **{name: row[name] for name in SCALARS}} for number, row in enumerate(rows)]
)


def wired(rows: Rows) -> Rows:
    return [{name: wire_value(value, FORM) for name, value in row.items()} for row in rows]


# CSV


def meaning(text: str | None, like: Any) -> Any:
    """A cell of CSV as a value of the kind of another one."""
    if text is None or isinstance(like, str):
        return text
    if isinstance(like, bool):
        return {"true": True, "false": False}[text]
    if isinstance(like, float):
        return float(text)
    return Decimal(text) if isinstance(like, (int, Decimal)) else orjson.loads(text)


def nested_number(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value, default=float)) if isinstance(value, (dict, list)) else value


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_csv_is_read_back_by_duckdb(rows: Rows) -> None:
    expected = wired(rows)
    found = written(rows)
    assert [list(row) for row in found] == [list(row) for row in expected]
    for each, row in zip(found, expected, strict=True):
        for name, value in row.items():
            assert meaning(each[name], value) == nested_number(value), name


@settings(deadline=None, max_examples=40)
@given(st.lists(st.fixed_dictionaries({"text": TEXTS, "other": TEXTS}), min_size=1), st.sampled_from(",;|\t:"))
def test_csv_is_read_back_by_python(rows: Rows, delimiter: str) -> None:
    rows = [{"id": str(number), **row} for number, row in enumerate(rows)]
    with TemporaryDirectory() as folder:
        write(Path(folder), rows, delimiter=delimiter)
        path = only_part(Path(folder))
        assert read_csv(path, delimiter) == rows
        assert read_csv_by_duckdb(path, delimiter) == rows


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.none() | TEXTS | st.sampled_from(["NULL", "", "\\N"]), min_size=1), st.sampled_from(["", "NULL", "\\N"])
)
def test_a_null_is_told_from_any_text(values: list[str | None], null_text: str) -> None:
    rows = [{"id": str(number), "text": value} for number, value in enumerate(values)]
    with TemporaryDirectory() as folder:
        write(Path(folder), rows, null_text=null_text)
        assert read_csv_by_duckdb(only_part(Path(folder)), null_text=null_text) == rows


def test_csv_has_a_header_and_the_line_ends_of_the_rfc(tmp_path: Path) -> None:
    rows = [{"id": 1, "name": "Ada", "address.city": 'said "no", twice'}, {"id": 2, "name": None, "address.city": ""}]
    assert content(tmp_path, rows) == 'id,name,address.city\r\n1,Ada,"said ""no"", twice"\r\n2,,""\r\n'


def test_numbers_keep_their_digits(tmp_path: Path) -> None:
    rows = [
        {"id": 2**63 - 1, "a": Decimal("12345678901234567890.10"), "b": {"c": Decimal("0.10"), "d": [Decimal(2**70)]}}
    ]
    assert content(tmp_path, rows) == (
        f'id,a,b\r\n{2**63 - 1},12345678901234567890.10,"{{""c"":0.10,""d"":[{2**70}]}}"\r\n'
    )


def test_formulas_are_left_alone_unless_they_are_to_be_escaped(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "1-1", "'=1", "", None]
    rows = [{"id": -n, "text": text} for n, text in enumerate(texts)]
    assert [row["text"] for row in written(rows)] == texts
    write(tmp_path, rows, escape_formulas=True)
    found = read_csv_by_duckdb(only_part(tmp_path))
    escaped = ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "'\rx", "1-1", "'=1", "", None]
    assert [row["text"] for row in found] == escaped
    assert [row["id"] for row in found] == ["0", *(str(-n) for n in range(1, 10))], "a number is no formula"


def refused(results: Sequence[RowResult]) -> dict[str, str]:
    faults = {result.key: result.fault for result in results if result.fault}
    assert all(fault.code is ErrorCode.DESTINATION_VALIDATION for fault in faults.values())
    return {key: fault.message for key, fault in faults.items()}


def test_rows_that_csv_cannot_hold_fail_by_themselves(tmp_path: Path) -> None:
    results = write(tmp_path, [{"id": 1, "name": "a"}, {"id": 2, "name": "b\0c"}, {"id": 3, "name": "d"}])
    assert refused(results).keys() == {"2"}
    assert "NUL" in refused(results)["2"]
    assert [row["id"] for row in read(only_part(tmp_path))] == ["1", "3"]


def test_a_batch_of_which_no_row_can_be_held_is_no_file(tmp_path: Path) -> None:
    assert refused(write(tmp_path, [{"id": 1, "name": "\0"}]))
    assert parts(tmp_path) == []


@pytest.mark.parametrize("value", [b'"\\ud800"', b'["\\udc00"]'])
def test_half_a_surrogate_pair_is_no_text(tmp_path: Path, value: bytes) -> None:
    row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":1,"name":' + value + b"}"))
    results = make_connector(tmp_path).write(Batch("people", Operation.UPSERT, [row], ("id",), "k"))
    assert "surrogate" in refused(results)["1"]


def test_a_row_that_would_be_an_empty_line_is_refused(tmp_path: Path) -> None:
    rows = [MadeRow(f"{n}", {}, {}, orjson.Fragment(text)) for n, text in enumerate([b'{"a":null}', b'{"a":""}'])]
    batch = Batch("people", Operation.INSERT, rows, (), "k")
    assert "empty line" in refused(make_connector(tmp_path).write(batch))["0"]
    assert read(only_part(tmp_path)) == [{"a": ""}]
    assert all(result.fault is None for result in make_connector(tmp_path, null_text="NULL").write(batch))


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_compressed_files_are_read_by_duckdb_as_they_are(tmp_path: Path, form: str, compression: str) -> None:
    rows = [{"id": n, "name": f"name {n}" * 50} for n in range(500)]
    write(tmp_path, rows, format=form, compression=compression)
    with duckdb.connect() as connection:
        query = f"SELECT id, name FROM '{only_part(tmp_path)}' ORDER BY id"
        assert connection.execute(query).fetchall() == [(row["id"], row["name"]) for row in rows]
    assert (only_part(tmp_path).stat().st_size < 50_000) == (compression != "none")


# JSON Lines


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_jsonl_is_read_back(rows: Rows) -> None:
    found = written(rows, format="jsonl")
    assert found == [{name: _exact(value) for name, value in row.items()} for row in wired(rows)]


def _exact(value: Any) -> Any:
    """Numbers with a point are read as decimals."""
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    return Decimal(repr(value)) if isinstance(value, float) else value


def test_json_on_several_lines_becomes_one(tmp_path: Path) -> None:
    row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":1,"doc":{\n  "a":\r\n 1}}'))
    make_connector(tmp_path, format="jsonl").write(Batch("people", Operation.UPSERT, [row], ("id",), "k"))
    assert only_part(tmp_path).read_bytes().count(b"\n") == 1
    assert read(only_part(tmp_path)) == [{"id": 1, "doc": {"a": 1}}]


# The operation


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("operation", list(Operation))
def test_files_say_what_is_done_with_their_rows(tmp_path: Path, form: str, operation: Operation) -> None:
    write(tmp_path, [{"id": "a", "name": "b"}], operation, format=form, operation_column=True)
    (row,) = read(only_part(tmp_path))
    assert list(row.items()) == [("_operation", operation.value), ("id", "a"), ("name", "b")]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_without_the_setting_they_do_not(tmp_path: Path, form: str) -> None:
    write(tmp_path, [{"id": "a"}], format=form)
    assert read(only_part(tmp_path)) == [{"id": "a"}]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_field_of_that_name_is_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(DestinationError, match="is called '_operation'") as caught:
        write(tmp_path, [{"id": 1, "_operation": "x"}], format=form, operation_column=True)
    assert caught.value.code is ErrorCode.CONFIGURATION
    assert parts(tmp_path) == []


# Columns


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_that_rows_leave_out_are_null_and_in_order(tmp_path: Path, form: str) -> None:
    rows = [{"id": "1", "c": "c"}, {"id": "2", "a": "a", "b": "b", "c": "c"}, {"id": "3", "b": "b"}]
    write(tmp_path, rows, format=form)
    found = read(only_part(tmp_path))
    assert [list(row) for row in found] == [["id", "a", "b", "c"]] * 3
    assert [{name: value for name, value in row.items() if value is not None} for row in found] == rows


# Parquet


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
