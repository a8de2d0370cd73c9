"""Row hashes: rows of other content have another one, and what they depend on is in their terms."""

from __future__ import annotations

from datetime import UTC, date, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_retl.changes.fingerprint import canonical_sql
from dagster_retl.changes.row_hash import row_hash_sql, terms_of
from dagster_retl.model.rows import FieldType

VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): st.text(st.characters(codec="utf-8"), max_size=20),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.decimal128(38, 4): st.decimals(-(10**30), 10**30, places=4),
    pa.decimal128(9, 2): st.decimals(-(10**6), 10**6, places=2),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Two or more rows of some columns, several of which are often equal."""
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    count = draw(st.integers(2, 5))
    columns = {}
    for number, kind in enumerate(kinds):
        some = draw(st.lists(st.one_of(st.none(), VALUES[kind]), min_size=1, max_size=3))
        columns[f"c{number}"] = pa.array([draw(st.sampled_from(some)) for _ in range(count)], kind)
    return pa.table(columns)


def fields_of(table: pa.Table) -> list[FieldType]:
    return [FieldType(field.name, field.type) for field in table.schema]


@settings(deadline=None, max_examples=150)
@given(tables())
def test_rows_of_other_content_have_another_hash(rows: pa.Table) -> None:
    fields = fields_of(rows)
    assert terms_of(fields) is not None
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT {canonical_sql(fields)}, {row_hash_sql(fields)} FROM rows").fetchall()
    texts: dict[int, set[str]] = {}
    for text, row_hash in found:
        texts.setdefault(row_hash, set()).add(text)
    assert all(len(of_hash) == 1 for of_hash in texts.values()), "rows of other content share a hash"


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string()), pa.struct([("a", pa.int8())]), pa.month_day_nano_interval(), pa.duration("s")]
)
def test_some_types_have_none(kind: pa.DataType) -> None:
    assert terms_of([FieldType("v", kind)]) is None
    assert terms_of([FieldType("k", pa.string()), FieldType("v", kind)]) is None


def test_terms_name_what_a_hash_depends_on() -> None:
    plain = [FieldType("a", pa.string()), FieldType("b", pa.decimal128(9, 2))]
    others = [
        [FieldType("a", pa.string()), FieldType("c", pa.decimal128(9, 2))],
        [FieldType("a", pa.string()), FieldType("b", pa.decimal128(9, 3))],
        [FieldType("a", pa.string()), FieldType("b", pa.decimal128(9, 2), omit_null=True)],
        plain[:1],
    ]
    terms = [terms_of(fields) for fields in (plain, *others)]
    assert len(set(terms)) == len(terms)
    assert terms_of(list(reversed(plain))) == terms[0]


@pytest.mark.parametrize(
    "values",
    [
        [0, None],
        ["", None],
        [date(1970, 1, 1), None],
        [time(0), None],
        [Decimal("0.00"), None],
        [False, None],
        ["a", "A"],
        ["a", "a "],
        ["\u00e9", "e\u0301"],
    ],
)
def test_what_looks_alike_is_told_apart(values: list[Any]) -> None:
    rows = pa.table({"v": pa.array(values)})
    with duckdb.connect() as connection:
        first, second = connection.sql(f"SELECT {row_hash_sql(fields_of(rows))} FROM rows").fetchall()
    assert first != second
