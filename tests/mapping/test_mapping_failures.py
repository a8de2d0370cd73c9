"""A row whose expression fails is a failed row: which, where, why, and without its values."""

import time
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dagster_retl.errors import ConfigurationError
from dagster_retl.mapping.compile import compile_mapping
from dagster_retl.mapping.failures import GENERIC, explain
from dagster_retl.model.sync import FieldMapping

NOT_A_NUMBER = "Conversion Error: could not convert string to INT32"


def field(name: str, expression: str, **more: Any) -> FieldMapping:
    return FieldMapping(destination=name, source=expression, **more)


def mapped(columns: dict[str, Any], *mappings: FieldMapping) -> list[dict[str, Any]]:
    block = pa.RecordBatch.from_pydict(columns)
    with compile_mapping(mappings, block.schema) as mapping:
        return list(mapping.apply(block).to_pylist())


def test_failing_rows_are_told_from_nulls() -> None:
    rows = mapped({"id": [1, 2, 3, 4], "s": ["1", "x", None, "4"]}, field("k", "id", key=True), field("n", "s::INT"))
    assert rows == [
        {"k": 1, "n": 1, "_error_field": None, "_error": None},
        {"k": 2, "n": None, "_error_field": "n", "_error": NOT_A_NUMBER},
        {"k": 3, "n": None, "_error_field": None, "_error": None},
        {"k": 4, "n": 4, "_error_field": None, "_error": None},
    ]


def test_the_first_failing_field_is_named_and_the_others_are_kept() -> None:
    rows = mapped(
        {"s": ["5", "x", "2025-03-27"]},
        field("text", "upper(s)"),
        field("day", "s::DATE"),
        field("n", "s::INT * 1000000000"),
    )
    assert [(row["_error_field"], row["_error"]) for row in rows] == [
        ("day", "Conversion Error: the text is not a date"),
        ("day", "Conversion Error: the text is not a date"),
        ("n", NOT_A_NUMBER),
    ]
    assert [row["text"] for row in rows] == ["5", "X", "2025-03-27"]
    assert [row["day"] is None for row in rows] == [True, True, False]


def test_a_key_that_fails_is_null_and_named() -> None:
    [good, bad] = mapped({"s": ["1", "x"]}, field("k", "s::INT", key=True, default=0), field("v", "s"))
    assert good == {"k": 1, "v": "1", "_error_field": None, "_error": None}
    assert bad == {"k": None, "v": "x", "_error_field": "k", "_error": NOT_A_NUMBER}


def test_a_default_does_not_hide_a_failure() -> None:
    rows = mapped({"s": ["x", None]}, field("n", "s::INT", default=7))
    assert [(row["n"], row["_error_field"]) for row in rows] == [(None, "n"), (7, None)]


def test_json_and_nested_values_fail_by_row_too() -> None:
    rows = mapped({"s": ["[1]", "x"]}, field("j", "s::JSON"), field("l", "[s::JSON::INT[]]"))
    assert [row["j"] for row in rows] == ["[1]", None]
    assert [row["_error"] for row in rows] == [None, "Conversion Error: malformed JSON"]


def test_a_number_of_too_many_digits_is_a_failed_row() -> None:
    rows = mapped({"n": [1, 9]}, field("x", "n::HUGEINT * 15000000000000000000000000000000000000"))
    assert [row["x"] is None for row in rows] == [False, True]
    assert rows[1]["_error"] == "Conversion Error: the value does not fit DECIMAL(38,0)"


def test_each_row_has_its_own_reason() -> None:
    rows = mapped({"s": ["x", "999999999999"]}, field("n", "(s::BIGINT)::INT"))
    assert [row["_error"] for row in rows] == [
        "Conversion Error: could not convert string to INT64",
        "Conversion Error: the value is out of range for INT32",
    ]


def test_rows_beyond_the_explained_ones_claim_no_reason_that_may_not_be_theirs() -> None:
    rows = mapped({"s": ["x"] * 15 + ["999999999999"] * 15}, field("n", "(s::BIGINT)::INT"))
    assert {row["_error"] for row in rows[:15]} == {"Conversion Error: could not convert string to INT64"}
    assert rows[-1]["_error"] == GENERIC


SECRET = "555-0100 O'Brien \"x\" to INT64 \n\nLINE 1: 's"
LEAKS = [
    "s::INT",
    "s::DOUBLE",
    "s::BOOLEAN",
    "s::DATE",
    "s::TIME",
    "s::TIMESTAMP",
    "s::UUID",
    "s::JSON",
    "s::DECIMAL(5,2)",
    "s::INT[]",
    "s::STRUCT(a INT)",
    "s::INTERVAL",
    "strptime(s, '%Y')",
    "regexp_matches(s, '(' || s)",
    "from_base64(s)",
    "date_part(s, DATE '2025-01-01')",
    "timezone(s, TIMESTAMP '2025-01-01')",
    "s::ENUM('a')",
    "json_extract(s, '$.a')",
    "phone * 1000000000000",
    "phone::TINYINT",
    "phone::DECIMAL(3,2)",
    "-(phone::UBIGINT)",
    "unhex(s)",
    "phone % (phone - phone)",
    "make_date(phone, 13, 1)",
]


@pytest.mark.parametrize("expression", LEAKS)
def test_a_reason_holds_no_value_of_the_row(expression: str) -> None:
    [row] = mapped({"s": [SECRET], "phone": [5550100555]}, field("x", expression))
    assert row["_error_field"] == "x"
    for leak in ("555", "0100", "Brien", '"x"', "LINE", "'"):
        assert leak not in row["_error"]


def test_an_error_that_is_not_known_is_told_by_its_kind() -> None:
    assert explain(duckdb.InvalidInputException("Invalid Input Error: secret 1")) == f"Invalid Input Error: {GENERIC}"
    assert explain(duckdb.Error("secret")) == GENERIC


def test_an_expression_that_takes_all_memory_stops_the_run() -> None:
    with pytest.raises(ConfigurationError, match="the expressions of 'x' need more memory than 512MB for 1 rows"):
        mapped({"n": [1]}, field("x", "repeat('x', n * 3000000000)"))


def test_errors_that_duckdb_does_not_try_are_failed_rows_too() -> None:
    zones = ["UTC", "Nowhere", None, "Europe/Paris", "Elsewhere"] * 20
    rows = mapped({"z": zones}, field("t", "timezone(z, TIMESTAMP '2025-01-01')"), field("j", "json_object('z', z)"))
    assert [row["_error"] for row in rows] == [
        "Not implemented Error: unknown time zone" if zone in ("Nowhere", "Elsewhere") else None for zone in zones
    ]
    assert [row["t"] is None for row in rows] == [zone in ("Nowhere", "Elsewhere", None) for zone in zones]


def test_half_a_block_of_failures_is_fast() -> None:
    block = pa.RecordBatch.from_pydict({"s": [str(each) if each % 2 else f"x{each}" for each in range(50_000)]})
    with compile_mapping([field("n", "s::INT")], block.schema) as mapping:
        start = time.process_time()
        table = mapping.apply(block)
        assert time.process_time() - start < 15  # 0.3 s where nothing else runs; row by row it would take minutes
    assert table.column("n").null_count == 25_000
    assert table.column("_error").null_count == 25_000
    assert set(table.column("_error").to_pylist()) == {None, NOT_A_NUMBER}
