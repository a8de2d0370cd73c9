"""Fingerprints: the golden vectors hold the canonical text; the properties say what it must and must not tell apart."""

import hashlib
import math
import re
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.changes.fingerprint import FINGERPRINT_VERSION, canonical_sql, fingerprint_sql
from dagster_retl.errors import ConfigurationError, StoreError
from dagster_retl.model.rows import FieldType

DUCKDB = duckdb.connect()


def array(values: list[Any], kind: Any) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def compute(make: Any, columns: dict[str, Any], omit: tuple[str, ...] = ()) -> list[Any]:
    """An expression over Arrow columns, row by row."""
    fields = [FieldType(name, values.type, omit_null=name in omit) for name, values in columns.items()]
    DUCKDB.register("rows", pa.table(columns))
    return [row[0] for row in DUCKDB.sql(f"SELECT {make(fields)} FROM rows").fetchall()]


def canonical(value: Any, kind: Any) -> str:
    """The code of one value, without the header."""
    [text] = compute(canonical_sql, {"v": array([value], kind)})
    return str(text).split(":", 2)[2]


def fingerprint(**columns: Any) -> uuid.UUID:
    [value] = compute(fingerprint_sql, columns)
    assert isinstance(value, uuid.UUID)
    return value


MOMENT = datetime.fromisoformat("2025-03-27T17:00:00.120")
CODES = [
    (None, pa.string(), "N"),
    (None, pa.null(), "N"),
    (True, pa.bool_(), "T"),
    (False, pa.bool_(), "F"),
    (42, pa.int8(), "42.n"),
    (-42, pa.int64(), "-42.n"),
    (0, pa.int32(), "0.n"),
    (2**64 - 1, pa.uint64(), "18446744073709551615.n"),
    (Decimal("42.00"), pa.decimal128(10, 2), "42.n"),
    (Decimal(100), pa.decimal128(10, 0), "100.n"),
    (Decimal("-0.50"), pa.decimal128(2, 2), "-0.5n"),
    (Decimal("0.5"), pa.decimal128(38, 38), "0.5n"),
    (Decimal("0.00"), pa.decimal128(4, 2), "0.n"),
    (1.5, pa.float64(), "1.5f"),
    (1.5, pa.float32(), "1.5f"),
    (0.1, pa.float32(), "0.10000000149011612f"),
    (-0.0, pa.float64(), "0.0f"),
    (1e20, pa.float64(), "1e+20f"),
    (math.nan, pa.float64(), "nanf"),
    (-math.nan, pa.float64(), "nanf"),
    (math.inf, pa.float64(), "inff"),
    (-math.inf, pa.float32(), "-inff"),
    ("", pa.string(), "0s"),
    ("a:b", pa.large_string(), "3sa:b"),
    ("né😀", pa.string_view(), "7sné😀"),
    ("42", pa.string(), "2s42"),
    (b"\xff\x00", pa.binary(), "xFF00;"),
    (b"", pa.binary(), "x;"),
    (date(2025, 3, 27), pa.date32(), "20174d"),
    (date(1969, 12, 31), pa.date64(), "-1d"),
    (time(1, 2, 3, 5), pa.time64("us"), "3723000005t"),
    (MOMENT, pa.timestamp("us"), "1743094800120000u"),
    (MOMENT, pa.timestamp("ns"), "1743094800120000u"),
    (MOMENT.replace(tzinfo=UTC), pa.timestamp("ms", "UTC"), "1743094800120000z"),
    (2**63 - 1, pa.timestamp("us", "UTC"), "infinityz"),
    (1_001, pa.timestamp("ns"), "1.1u"),
    (-1, pa.timestamp("ns"), "0.-1u"),
    ([1, None], pa.list_(pa.int8()), "2l1.nN"),
    ([], pa.list_(pa.string()), "0l"),
    ([[1], []], pa.list_(pa.list_(pa.int8())), "2l1l1.n0l"),
    ({"b": 1, "a": "x"}, pa.struct([("b", pa.int8()), ("a", pa.string())]), "{1sa1sx1sb1.n}"),
    ([("k", 1), ("a", None)], pa.map_(pa.string(), pa.int8()), "2m1saN1sk1.n"),
    (uuid.UUID(int=5).bytes, pa.uuid(), "36s00000000-0000-0000-0000-000000000005"),
    ('{"a":1}', pa.json_(pa.string()), '7j{"a":1}'),
    (timedelta(hours=25), pa.duration("us"), "8s25:00:00"),
]


@pytest.mark.parametrize(("value", "kind", "code"), CODES, ids=[f"{kind}-{code}" for _, kind, code in CODES])
def test_canonical_code(value: Any, kind: Any, code: str) -> None:
    assert canonical(value, kind) == code


GOLDEN = [
    (
        {"v": pa.array([42], pa.int32())},
        "1:9707c6cdd57ea8c5d9d71f864430039c:42.n",
        "3a6c291e-451c-bd54-2677-90d513dddaa1",
    ),
    (
        {
            "Name": pa.array(["Zoë"]),
            "amount": pa.array([Decimal("12.50")]),
            "at": pa.array([MOMENT], pa.timestamp("us", "UTC")),
            "gone": pa.array([None], pa.string()),
            "tags": pa.array([["a", "b"]]),
        },
        "1:7d728c8faa84cc0f9d59c0bf05a073ad:4sZoë12.5n1743094800120000zN2l1sa1sb",
        "845b8c3d-bbe9-2605-63e6-be46b9d14c51",
    ),
]


@pytest.mark.parametrize(("columns", "text", "value"), GOLDEN)
def test_golden_fingerprints(columns: dict[str, Any], text: str, value: str) -> None:
    assert FINGERPRINT_VERSION == 1
    assert compute(canonical_sql, columns) == [text]
    assert fingerprint(**columns) == uuid.UUID(value)
    assert uuid.UUID(bytes=hashlib.md5(text.encode()).digest()[::-1]) == uuid.UUID(value)


def test_the_order_of_the_mappings_does_not_matter() -> None:
    a, b = pa.array([1]), pa.array(["x"])
    assert fingerprint(a=a, b=b) == fingerprint(b=b, a=a)


def test_names_matter() -> None:
    a, b = pa.array([1]), pa.array([2])
    assert len({fingerprint(a=a, b=b), fingerprint(a=b, b=a), fingerprint(A=a, b=b), fingerprint(ab=a, c=b)}) == 4


def test_an_omitted_null_is_not_a_sent_null() -> None:
    null, full = {"v": pa.array([None], pa.int8())}, {"v": pa.array([1])}
    assert compute(fingerprint_sql, null) != compute(fingerprint_sql, null, omit=("v",))
    assert compute(fingerprint_sql, full) == compute(fingerprint_sql, full, omit=("v",))


def test_a_null_of_a_column_without_a_type_is_that_of_any_type() -> None:
    values = [pa.array([None], kind) for kind in (pa.null(), pa.string(), pa.int64(), pa.list_(pa.int8()))]
    assert len({fingerprint(v=each) for each in values}) == 1


def test_encodings_of_a_column_do_not_matter() -> None:
    plain = pa.array(["a"])
    others = [plain.cast(pa.large_string()), plain.dictionary_encode(), pa.RunEndEncodedArray.from_arrays([1], plain)]
    assert {fingerprint(v=each) for each in others} == {fingerprint(v=plain)}


def test_the_session_does_not_matter() -> None:
    fields = [FieldType("t", pa.timestamp("us", "UTC")), FieldType("n", pa.timestamp("us"))]
    table = pa.table({"t": pa.array([MOMENT], pa.timestamp("us", "UTC")), "n": pa.array([MOMENT])})
    found = set()
    for zone in ("UTC", "America/New_York"):
        with duckdb.connect() as connection:
            connection.execute(f"SET TimeZone = '{zone}'")
            connection.register("rows", table)
            found.add(connection.sql(f"SELECT {fingerprint_sql(fields)} FROM rows").fetchall()[0])
    assert len(found) == 1


def test_names_of_any_characters() -> None:
    assert fingerprint(**{'a "b".c\'d': pa.array([{"x'y": 1}])})


def test_a_later_version_is_refused() -> None:
    with pytest.raises(StoreError, match="version 2"):
        fingerprint_sql([FieldType("v", pa.int8())], version=2)


def test_a_type_without_canonical_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dense_union"):
        fingerprint_sql([FieldType("v", pa.dense_union([pa.field("a", pa.int8())]))])


INTEGERS = st.integers(-(2**31), 2**31 - 1)


@given(INTEGERS, st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_integers_and_decimals_are_compared_by_value(number: int, scale: int) -> None:
    kinds = [pa.int32(), pa.int64(), pa.decimal128(38, scale), pa.decimal128(12 + scale, scale)]
    values = [pa.array([number], pa.int64()).cast(pa.string()).cast(kind) for kind in kinds]
    assert len({fingerprint(v=each) for each in values}) == 1


@given(st.datetimes(datetime.fromisoformat("1700-01-01"), datetime.fromisoformat("2250-01-01")))
@settings(max_examples=40, deadline=None)
def test_units_of_timestamps_do_not_matter(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    for kinds, value in ((("us", "ns"), moment), (("s", "ms", "us", "ns"), whole)):
        naive = {fingerprint(v=pa.array([value], pa.timestamp(unit))) for unit in kinds}
        zoned = {
            fingerprint(v=pa.array([value.replace(tzinfo=UTC)], pa.timestamp(unit, zone)))
            for unit in kinds
            for zone in ("UTC", "Asia/Tokyo")
        }
        assert len(naive) == len(zoned) == 1
        assert naive != zoned


# Injectivity: a reader of the canonical text that gives back the values. Where one exists, no two rows share a text.

_TOKEN = re.compile(
    r"(?P<null>[NO])|(?P<bool>[TF])|(?P<num>-?\d+\.\d*)n|(?P<float>-?(?:[\d.]+(?:e[+-]\d+)?|inf)|nan)f|x(?P<hex>[0-9A-F]*);"
    r"|(?P<s>\d+)s|(?P<l>\d+)l"
)


def read(data: bytes, at: int) -> tuple[Any, int]:
    match = _TOKEN.match(data[at : at + 400].decode(errors="ignore"))
    assert match is not None, data[at:]
    kind, text = next((name, value) for name, value in match.groupdict().items() if value is not None)
    end = at + match.end()
    if kind == "s":
        return ("s", data[end : end + int(text)].decode()), end + int(text)
    if kind == "l":
        items = []
        for _ in range(int(text)):
            item, end = read(data, end)
            items.append(item)
        return ("l", items), end
    return (kind, text), end


def told(value: Any) -> Any:
    """What the reader should find."""
    if isinstance(value, list):
        return ("l", [told(each) for each in value])
    return next((tag, text(value)) for kind, tag, text in _TOLD if isinstance(value, kind))


_TOLD: list[tuple[type, str, Any]] = [
    (type(None), "null", lambda _: "N"),
    (bool, "bool", lambda value: "T" if value else "F"),
    (str, "s", str),
    (bytes, "hex", lambda value: value.hex().upper()),
    (Decimal, "num", lambda value: f"{value:f}".rstrip("0") if value else "0."),
    (int, "num", lambda value: f"{value}."),
    (float, "float", lambda value: "0.0" if value == 0 else repr(value)),
]


TEXT = st.text(st.sampled_from("0123456789snlfdxTFNO:;,.{}[]'\"\\ \0é😀\x1f"), max_size=12) | st.text(max_size=8)
VALUES = st.fixed_dictionaries(
    {
        "a": st.none() | TEXT,
        "b": st.none() | TEXT,
        "c": st.none() | st.integers(-(2**63), 2**63 - 1),
        "d": st.none() | st.decimals(min_value=-(10**9), max_value=10**9, places=4),
        "e": st.none() | st.binary(max_size=6),
        "f": st.none() | st.lists(st.none() | TEXT, max_size=4),
        "g": st.none() | st.booleans(),
        "h": st.none() | st.floats(),
        "i": st.none() | TEXT,
    }
)
KINDS = {
    "a": pa.string(),
    "b": pa.string(),
    "c": pa.int64(),
    "d": pa.decimal128(18, 4),
    "e": pa.binary(),
    "f": pa.list_(pa.string()),
    "g": pa.bool_(),
    "h": pa.float64(),
    "i": pa.string(),
}


@given(st.lists(VALUES, min_size=1, max_size=20))
@settings(max_examples=80, deadline=None)
def test_the_text_can_be_read_back(rows: list[dict[str, Any]]) -> None:
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in KINDS.items()}
    for row, text in zip(rows, compute(canonical_sql, columns), strict=True):
        data, at, found = text.encode(), len("1::") + 32, []
        while at < len(data):
            value, at = read(data, at)
            found.append(value)
        assert found == [told(row[name]) for name in sorted(row)]
