"""Keys: DuckDB and Python say the same of a key, and say what equality at the destination is."""

import json
import math
import sys
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.changes.keys import key_of, key_sql, record_keys_sql
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.rows import FieldType, KeyForm

DUCKDB = duckdb.connect()
PLAIN = KeyForm()
FORMS = [PLAIN, KeyForm(ignore_case=True), KeyForm(trim=True), KeyForm(ignore_case=True, trim=True)]


def ask(expression: str, columns: dict[str, Any]) -> list[Any]:
    DUCKDB.register("rows", pa.table(columns))
    return [row[0] for row in DUCKDB.sql(f"SELECT {expression} FROM rows").fetchall()]


def keys(columns: dict[str, Any], form: KeyForm = PLAIN) -> list[str | None]:
    return ask(key_sql([FieldType(name, each.type, key=True) for name, each in columns.items()], form), columns)


def record_keys(columns: dict[str, Any]) -> list[Any]:
    fields = [FieldType(name, each.type, key=True) for name, each in columns.items()]
    return [json.loads(text) for text in ask(record_keys_sql(fields), columns)]


def key(value: Any, kind: Any = None, form: KeyForm = PLAIN) -> str | None:
    return keys({"k": pa.array([value], kind)}, form)[0]


SAME = [
    ('["42"]', 42, pa.int8()),
    ('["42"]', 42, pa.uint64()),
    ('["42"]', Decimal("42.00"), pa.decimal128(10, 2)),
    ('["42"]', Decimal(42), pa.decimal128(10, 0)),
    ('["42"]', 42.0, pa.float64()),
    ('["42"]', "42", pa.string()),
    ('["42.0"]', "42.0", pa.string()),
    ('["100"]', Decimal("100.00"), pa.decimal128(5, 2)),
    ('["0"]', -0.0, pa.float64()),
    ('["0"]', Decimal("0.00"), pa.decimal128(5, 2)),
    ('["-0.5"]', Decimal("-0.50"), pa.decimal128(2, 2)),
    ('["0.1"]', 0.1, pa.float64()),
    ('["100000000000000000000"]', 1e20, pa.float64()),
    ('["0.00001"]', 1e-5, pa.float64()),
    ('["0.00001"]', Decimal("0.00001"), pa.decimal128(10, 5)),
    ('["true"]', True, pa.bool_()),
    ('["2025-03-27"]', date(2025, 3, 27), pa.date32()),
    ('["01:02:03"]', time(1, 2, 3), pa.time64("us")),
    ('["01:02:03.500000"]', time(1, 2, 3, 500_000), pa.time64("us")),
    ('["2025-03-27T17:00:00Z"]', datetime(2025, 3, 27, 17, tzinfo=UTC), pa.timestamp("us", "UTC")),
    ('["2025-03-27T17:00:00.120000Z"]', datetime.fromisoformat("2025-03-27T17:00:00.120"), pa.timestamp("us")),
    ('["/wA="]', b"\xff\x00", pa.binary()),
    ('["a\\"b\\\\"]', 'a"b\\', pa.string()),
]


@pytest.mark.parametrize(("expected", "value", "kind"), SAME)
def test_the_text_of_a_key(expected: str, value: Any, kind: Any) -> None:
    assert key(value, kind) == expected
    assert key_of({"k": value}, ["k"], PLAIN) == expected


def test_a_uuid_is_its_text() -> None:
    value = uuid.UUID("0A1B2C3D-0000-4000-8000-00000000ABCD")
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([value.bytes], pa.binary(16)))
    assert keys({"k": column}) == [key_of({"k": value}, ["k"], PLAIN)] == [f'["{value}"]']
    assert record_keys({"k": column}) == [{"k": str(value)}]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, pa.string()), ("", pa.string()), (None, pa.int8()), (None, pa.null())]
    + [(each, pa.float64()) for each in (math.nan, math.inf, -math.inf)],
)
def test_a_row_without_a_key(value: Any, kind: Any) -> None:
    assert key(value, kind) is None
    assert key_of({"k": value}, ["k"], PLAIN) is None


def test_a_blank_text_is_no_key_where_blanks_are_trimmed() -> None:
    for form, expected in ((PLAIN, '[" \t"]'), (KeyForm(trim=True), None)):
        assert key(" \t", form=form) == key_of({"k": " \t"}, ["k"], form) == expected


def test_any_missing_part_makes_the_key_missing() -> None:
    columns = {"a": pa.array(["x", None, "x"]), "b": pa.array([1, 1, None])}
    assert keys(columns) == ['["x","1"]', None, None]
    assert key_of({"a": "x"}, ["a", "b"], PLAIN) is None
    assert key_of({}, [], PLAIN) is None


def test_only_key_fields_count_in_their_order() -> None:
    fields = [FieldType("b", pa.int8(), key=True), FieldType("x", pa.int8()), FieldType("a", pa.int8(), key=True)]
    columns = {name: pa.array([number], pa.int8()) for number, name in enumerate("abx")}
    assert ask(key_sql(fields, PLAIN), columns) == ['["1","0"]']
    assert ask(record_keys_sql(fields), columns) == ['{"b":1,"a":0}']


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (" A@B.C\u00a0\n", KeyForm(ignore_case=True, trim=True), '["a@b.c"]'),
        ("Straße ẞ", KeyForm(ignore_case=True), '["straße ß"]'),
        ("ΟΔΟΣ", KeyForm(ignore_case=True), '["οδοσ"]'),
        ("İ", KeyForm(ignore_case=True), '["i"]'),
        ("A ", PLAIN, '["A "]'),
    ],
)
def test_case_and_blanks(text: str, form: KeyForm, expected: str) -> None:
    assert key(text, form=form) == key_of({"k": text}, ["k"], form) == expected


def test_every_character_has_one_key() -> None:
    form = KeyForm(ignore_case=True, trim=True)
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    assert keys({"k": pa.array(characters)}, form) == [key_of({"k": each}, ["k"], form) for each in characters]


TEXT = st.text(st.sampled_from("aAİßé 42.0\"\\,[]'\n\0"), max_size=8) | st.text(max_size=8)
NUMBERS = st.none() | st.decimals(min_value=-(10**9), max_value=10**9, places=4)
ROWS = st.lists(st.tuples(st.none() | TEXT, NUMBERS, st.none() | st.floats()), min_size=1, max_size=20)


@given(ROWS, st.sampled_from(FORMS))
@settings(max_examples=80, deadline=None)
def test_python_and_duckdb_agree(rows: list[tuple[Any, Any, Any]], form: KeyForm) -> None:
    kinds = {"t": pa.string(), "d": pa.decimal128(18, 4), "f": pa.float64()}
    for name, number in (("t", 0), ("d", 1), ("f", 2)):
        column = {name: pa.array([row[number] for row in rows], kinds[name])}
        expected = [key_of({name: row[number]}, [name], form) for row in rows]
        assert keys(column, form) == expected
        if name != "f" or all(row[2] is None or math.isfinite(row[2]) for row in rows):
            assert [key_of(each, [name], form) for each in record_keys(column)] == expected


@given(st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=20, unique=True))
@settings(max_examples=80, deadline=None)
def test_two_keys_of_several_fields_are_never_one(rows: list[tuple[str, str]]) -> None:
    found = keys({"a": pa.array([row[0] for row in rows]), "b": pa.array([row[1] for row in rows])})
    whole = [each for each in found if each is not None]
    assert len(set(whole)) == len(whole) == sum(all(row) for row in rows)


def test_record_keys_are_as_sent_and_lose_no_digit() -> None:
    columns = {
        'N"ame': pa.array([" É\x01 "]),
        "id": pa.array([2**63 - 1]),
        "cents": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        "wide": pa.array([Decimal("12345678901234567890.10")], pa.decimal128(30, 2)),
        "at": pa.array([datetime(2025, 1, 1, tzinfo=UTC)]),
        "on": pa.array([False]),
        "no": pa.array([None], pa.string()),
    }
    [found] = record_keys(columns)
    assert found == {
        'N"ame': " É\x01 ",
        "id": 2**63 - 1,
        "cents": 1.5,
        "wide": "12345678901234567890.1",
        "at": "2025-01-01T00:00:00Z",
        "on": False,
        "no": None,
    }


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.json_(pa.string())], ids=str)
def test_a_type_that_cannot_be_a_key(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="field 'k' cannot be a key"):
        key_sql([FieldType("k", kind, key=True)], PLAIN)


def test_a_python_value_that_cannot_be_a_key() -> None:
    with pytest.raises(ConfigurationError, match="list cannot be a key"):
        key_of({"k": [1]}, ["k"], PLAIN)


def test_a_sync_without_a_key() -> None:
    with pytest.raises(ConfigurationError, match="no field is a key"):
        key_sql([FieldType("k", pa.int8())], PLAIN)
