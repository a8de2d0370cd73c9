"""Rows with values of every kind, and what a reader finds after they were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from file_readers import Rows, make_connector, only_part, plain, read
from hypothesis import strategies as st

from dagster_retl.model.rows import Batch, RowResult
from dagster_retl.testing.rows import make_batch, wire_value

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
