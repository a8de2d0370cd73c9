"""Values arrive as they were: whatever text, number or time, in CSV and JSON Lines."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import orjson
import pytest
from file_readers import Rows, make_connector, only_part, parts, read, read_csv, read_csv_by_duckdb
from file_values import ROWS, TEXTS, content, wired, write, written
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation, RowResult
from dagster_retl.testing.rows import MadeRow

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
