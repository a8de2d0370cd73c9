"""The wire: every value is what was mapped, read back from the JSON that DuckDB wrote."""

import base64
import json
import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.errors import ConfigurationError
from dagster_retl.mapping.wire import json_sql, unsendable_sql
from dagster_retl.model.rows import FieldType, WireForm
from dagster_retl.testing.rows import wire_value

DUCKDB = duckdb.connect(config={"threads": "1"})
DUCKDB.execute("SET TimeZone = 'America/New_York'")  # the session's zone must not matter
RFC = WireForm()
JSON = pa.json_(pa.string())


def typed(columns: dict[str, Any], omit: tuple[str, ...] = ()) -> list[FieldType]:
    return [FieldType(name, each.type, omit_null=name in omit) for name, each in columns.items()]


def texts(columns: dict[str, Any], form: WireForm = RFC, omit: tuple[str, ...] = ()) -> list[str | None]:
    DUCKDB.register("rows", pa.table(columns))
    sql = f"SELECT {json_sql(typed(columns, omit), form)} FROM rows"
    return [row[0] for row in DUCKDB.sql(sql).fetchall()]


def objects(columns: dict[str, Any], form: WireForm = RFC, omit: tuple[str, ...] = ()) -> list[Any]:
    return [None if text is None else json.loads(text, parse_float=Decimal) for text in texts(columns, form, omit)]


def text(value: Any, kind: Any = None, form: WireForm = RFC) -> str:
    column = (
        pa.ExtensionArray.from_storage(kind, pa.array([value], kind.storage_type))
        if isinstance(kind, pa.BaseExtensionType)
        else pa.array([value], kind)
    )
    [found] = texts({"v": column}, form)
    assert found is not None
    assert found.startswith('{"v":')
    return found[len('{"v":') : -1]


def moment(value: str) -> datetime:
    return datetime.fromisoformat(value)


VALUES: list[tuple[Any, Any, str]] = [
    (None, pa.string(), "null"),
    (None, pa.null(), "null"),
    (True, pa.bool_(), "true"),
    (2**63 - 1, pa.int64(), "9223372036854775807"),
    (2**64 - 1, pa.uint64(), "18446744073709551615"),
    (Decimal("12345678901234567890.1234567890"), pa.decimal128(38, 10), "12345678901234567890.1234567890"),
    (Decimal("-0.50"), pa.decimal128(2, 2), "-0.50"),
    (Decimal("-0." + "5" * 38), pa.decimal128(38, 38), "-0." + "5" * 38),
    (Decimal(0), pa.decimal128(5, 2), "0.00"),
    (0.1, pa.float64(), "0.1"),
    (0.1, pa.float32(), "0.1"),
    (1e20, pa.float64(), "1e+20"),
    ("", pa.string(), '""'),
    ('"\\/\b\n\x01\x7f\u2028😀', pa.string(), '"\\"\\\\/\\b\\n\\u0001\x7f\u2028😀"'),
    ("\0", pa.large_string(), '"\\u0000"'),
    ("42", pa.string(), '"42"'),
    (b"\xff\x00", pa.binary(), '"/wA="'),
    (uuid.UUID(int=5).bytes, pa.uuid(), '"00000000-0000-0000-0000-000000000005"'),
    (date(2025, 3, 27), pa.date32(), '"2025-03-27"'),
    (date(1, 1, 1), pa.date32(), '"0001-01-01"'),
    (time(1, 2, 3), pa.time64("us"), '"01:02:03"'),
    (time(1, 2, 3, 500_000), pa.time64("us"), '"01:02:03.500000"'),
    (3_723_000_000_001, pa.time64("ns"), '"01:02:03.000000001"'),
    (moment("2025-03-27T17:00:00"), pa.timestamp("us"), '"2025-03-27T17:00:00Z"'),
    (moment("2025-03-27T17:00:00+01:00"), pa.timestamp("us", "Asia/Tokyo"), '"2025-03-27T16:00:00Z"'),
    (moment("2025-03-27T17:00:00.12"), pa.timestamp("ms"), '"2025-03-27T17:00:00.120000Z"'),
    (moment("0001-01-01T00:00:00.000001"), pa.timestamp("us"), '"0001-01-01T00:00:00.000001Z"'),
    (moment("1969-12-31T23:59:59.999999+00:00"), pa.timestamp("us", "UTC"), '"1969-12-31T23:59:59.999999Z"'),
    (1_743_094_800_120_000_001, pa.timestamp("ns", "UTC"), '"2025-03-27T17:00:00.120000001Z"'),
    (1_743_094_800_120_000_010, pa.timestamp("ns"), '"2025-03-27T17:00:00.120000010Z"'),
    (1_743_094_800_120_000_000, pa.timestamp("ns"), '"2025-03-27T17:00:00.120000Z"'),
    ('{"a": [1.10]}', JSON, '{"a": [1.10]}'),
    ('"a NaN in \\" a text"', JSON, '"a NaN in \\" a text"'),
    ([1, None], pa.list_(pa.int8()), "[1,null]"),
    ([], pa.list_(pa.string()), "[]"),
    ([["a,"], None], pa.list_(pa.list_(pa.string())), '[["a,"],null]'),
    (
        {'a"b': [moment("2025-01-01T00:00:00")], "c": None},
        pa.struct([('a"b', pa.list_(pa.timestamp("us"))), ("c", pa.decimal128(2, 2))]),
        '{"a\\"b":["2025-01-01T00:00:00Z"],"c":null}',
    ),
    ([('k"', Decimal("1.50"))], pa.map_(pa.string(), pa.decimal128(5, 2)), '{"k\\"":1.50}'),
    ([(1, None)], pa.map_(pa.int8(), pa.string()), '{"1":null}'),
    ([], pa.map_(pa.string(), pa.int8()), "{}"),
]


@pytest.mark.parametrize(
    ("value", "kind", "expected"), VALUES, ids=[f"{kind}-{value!r}"[:60] for value, kind, _ in VALUES]
)
def test_a_value_on_the_wire(value: Any, kind: Any, expected: str) -> None:
    assert text(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "milliseconds", "seconds"),
    [("2025-03-27T17:00:00.129999", 1_743_094_800_129, 1_743_094_800), ("1969-12-31T23:59:59.999999", -1, -1)],
)
def test_epochs_are_whole_and_rounded_down(value: str, milliseconds: int, seconds: int) -> None:
    for kind in (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")):
        stamp = moment(value) if kind.tz is None else moment(value).replace(tzinfo=UTC)
        assert text(stamp, kind, WireForm(timestamp="epoch_ms")) == str(milliseconds)
        assert text(stamp, kind, WireForm(timestamp="epoch_s")) == str(seconds)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-03-27T17:00:00", "2025-03-27 17:00:00 +00:00"),
        ("1969-12-31T23:59:59.999999", "1969-12-31 23:59:59 +00:00"),
    ],
)
def test_a_spaced_timestamp_has_whole_seconds_and_an_offset(value: str, expected: str) -> None:
    form = WireForm(timestamp="spaced")
    for kind in (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")):
        stamp = moment(value) if kind.tz is None else moment(value).replace(tzinfo=UTC)
        assert text(stamp, kind, form) == f'"{expected}"'
        assert wire_value(stamp, form) == expected
    assert text(moment("0001-01-01T00:00:00"), pa.timestamp("us"), form) == '"0001-01-01 00:00:00 +00:00"'


def test_decimals_as_text_at_any_depth() -> None:
    form = WireForm(decimal="string")
    assert text(Decimal("1.50"), pa.decimal128(5, 2), form) == '"1.50"'
    assert text([Decimal("0.50")], pa.list_(pa.decimal128(2, 2)), form) == '["0.50"]'


def test_omitted_nulls_are_absent_wherever_they_stand() -> None:
    names = ["a", "b", "c", "d"]
    columns = {name: pa.array([1, None]) for name in names}
    for omit in [(), ("a",), ("d",), ("a", "b"), ("c", "d"), ("b",), ("a", "d"), tuple(names)]:
        full, empty = objects(columns, omit=omit)
        assert full == dict.fromkeys(names, 1)
        assert empty == {name: None for name in names if name not in omit}


def test_dotted_fields_nest() -> None:
    columns = {
        "address.city": pa.array(["Paris", None]),
        "name": pa.array(["Ada", None]),
        "address.geo.lat": pa.array([1, None]),
        "odd..name": pa.array([1, 1]),
    }
    full = {"address": {"city": "Paris", "geo": {"lat": 1}}, "name": "Ada", "odd..name": 1}
    assert objects(columns)[0] == full
    assert objects(columns)[1] == {"address": {"city": None, "geo": {"lat": None}}, "name": None, "odd..name": 1}
    assert objects(columns, omit=("address.city", "address.geo.lat"))[1] == {"name": None, "odd..name": 1}
    assert objects(columns, omit=("address.geo.lat",))[1]["address"] == {"city": None}
    flat = objects(columns, WireForm(nest=False))[0]
    assert flat == {"address.city": "Paris", "name": "Ada", "address.geo.lat": 1, "odd..name": 1}


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b", "a"), ("a.b", "a.b.c")])
def test_a_field_that_is_a_value_and_an_object(names: tuple[str, str]) -> None:
    fields = [FieldType(name, pa.int8()) for name in names]
    with pytest.raises(ConfigurationError, match="a value and an object at once"):
        json_sql(fields, RFC)
    assert json_sql(fields, WireForm(nest=False))


def test_names_of_any_characters() -> None:
    names = ['a "quoted" name', "it's", "ünïcode 😀", "line\nbreak", "{}", ","]
    assert objects({name: pa.array([1]) for name in names}) == [dict.fromkeys(names, 1)]


UNSENDABLE: list[tuple[Any, Any]] = [
    (math.nan, pa.float64()),
    (-math.inf, pa.float32()),
    ([1.0, math.nan], pa.list_(pa.float64())),
    ({"a": [{"b": math.inf}]}, pa.struct([("a", pa.list_(pa.struct([("b", pa.float64())])))])),
    ([("k", math.nan)], pa.map_(pa.string(), pa.float64())),
    (2**63 - 1, pa.timestamp("us", "UTC")),
    (-(2**63) + 1, pa.timestamp("us")),
    (2**63 - 1, pa.timestamp("ns")),
    (253_402_300_800_000_000, pa.timestamp("us")),
    (-62_135_596_800_000_001, pa.timestamp("us", "UTC")),
    (2_932_897, pa.date32()),
    (-719_163, pa.date32()),
    ("{a", JSON),
    ("", JSON),
    ("1 2", JSON),
    ('{"a":[NaN]}', JSON),
    ('["x", -Infinity]', JSON),
]


@pytest.mark.parametrize(("value", "kind"), UNSENDABLE, ids=[f"{kind}-{value!r}"[:60] for value, kind in UNSENDABLE])
def test_a_value_that_json_cannot_say(value: Any, kind: Any) -> None:
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.ExtensionArray.from_storage(kind, pa.array([value, None], kind.storage_type))
    else:
        column = pa.array([value, None], kind)
    columns = {"ok": pa.array([1.5, None]), "bad": column}
    sql = unsendable_sql(typed(columns))
    assert texts(columns)[0] is None
    assert objects(columns)[1] == {"ok": None, "bad": None}
    assert DUCKDB.sql(f"SELECT {sql} FROM rows").fetchall() == [("bad",), (None,)]


def test_years_beyond_rfc_3339_have_an_epoch() -> None:
    form = WireForm(timestamp="epoch_s")
    assert text(253_402_300_800_000_000, pa.timestamp("us"), form) == "253402300800"
    column = pa.array([2**63 - 1], pa.timestamp("us"))
    assert texts({"v": column}, form) == [None]


@pytest.mark.parametrize("form", ["rfc3339", "spaced"])
def test_years_that_no_text_can_say_are_not_sent(form: str) -> None:
    for value in (253_402_300_800_000_000, -62_135_596_800_000_001):
        assert texts({"v": pa.array([value], pa.timestamp("us"))}, WireForm(timestamp=form)) == [None]


def test_fields_that_can_always_be_sent_need_no_check() -> None:
    assert unsendable_sql([FieldType("a", pa.int64()), FieldType("b", pa.list_(pa.string()))]) is None


def test_a_type_without_json_form() -> None:
    with pytest.raises(ConfigurationError, match="has no JSON form"):
        json_sql([FieldType("v", pa.dense_union([pa.field("a", pa.int8())]))], RFC)


TEXT = st.text(st.sampled_from('ab"\\/{}[],:\0\n\x1f\x7f é😀\u2028'), max_size=8) | st.text(max_size=8)
DECIMALS = st.decimals(min_value=-(10**20), max_value=10**20, places=6)
MOMENTS = st.datetimes(timezones=st.just(UTC))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COLUMNS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (pa.string(), TEXT),
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "dec": (pa.decimal128(38, 6), DECIMALS),
    "float": (pa.float64(), FLOATS),
    "bool": (pa.bool_(), st.booleans()),
    "bytes": (pa.binary(), st.binary(max_size=8)),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "at": (pa.timestamp("us", "UTC"), MOMENTS),
    "list": (pa.list_(pa.string()), st.lists(st.none() | TEXT, max_size=4)),
    "o.struct": (
        pa.struct([("d", pa.list_(pa.decimal128(38, 6))), ("t", pa.string())]),
        st.fixed_dictionaries({"d": st.none() | st.lists(DECIMALS, max_size=3), "t": st.none() | TEXT}),
    ),
    "o.map": (pa.map_(pa.string(), pa.int64()), st.dictionaries(TEXT, st.integers(-9, 9), max_size=3)),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}), min_size=1, max_size=8
)


def sent(value: Any) -> Any:
    """A Python value as a reader of the JSON gets it."""
    match value:
        case float():
            return Decimal(repr(value))
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
    return value


@given(ROWS, st.sets(st.sampled_from(sorted(COLUMNS))))
@settings(max_examples=60, deadline=None)
def test_what_is_read_is_what_was_mapped(rows: list[dict[str, Any]], omit: set[str]) -> None:
    columns = {
        name: pa.array(
            [list(row[name].items()) if isinstance(row[name], dict) and name == "o.map" else row[name] for row in rows],
            kind,
        )
        for name, (kind, _) in COLUMNS.items()
    }
    for row, found in zip(rows, objects(columns, omit=tuple(omit)), strict=True):
        flat = {name: value for name, value in found.items() if name != "o"}
        flat |= {f"o.{name}": value for name, value in found.get("o", {}).items()}
        assert flat == {name: sent(value) for name, value in row.items() if value is not None or name not in omit}
