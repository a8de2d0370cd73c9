"""How a payload is cut into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.engine.payload import Cutter


def begins_one_by_one(sizes: Sequence[int], most_rows: int, most_bytes: int) -> list[int]:
    """The rule, said plainly: a row that does not fit any more begins a batch."""
    begins = []
    rows = filled = 0
    for number, size in enumerate(sizes):
        if number == 0 or rows == most_rows or filled + size > most_bytes:
            begins.append(number)
            rows = filled = 0
        rows += 1
        filled += size
    return begins


def begins_in_parts(parts: Sequence[Sequence[int]], most_rows: int, most_bytes: int) -> list[int]:
    cutter = Cutter(most_rows, most_bytes)
    begins, before = [], 0
    for part in parts:
        begins += [before + begin for begin in cutter.cut(np.array(part, np.int64))]
        before += len(part)
    return begins


def test_a_full_batch_ends_by_rows_or_by_bytes() -> None:
    assert begins_in_parts([[10, 10, 10, 10, 10]], most_rows=2, most_bytes=1_000) == [0, 2, 4]
    assert begins_in_parts([[10, 10, 10, 10, 10]], most_rows=100, most_bytes=30) == [0, 3]


def test_a_row_that_is_too_large_is_a_batch_by_itself() -> None:
    assert begins_in_parts([[10, 500, 10, 10]], most_rows=100, most_bytes=30) == [0, 1, 2]


def test_a_batch_goes_on_into_the_next_part() -> None:
    assert begins_in_parts([[10], [10], [10, 10]], most_rows=3, most_bytes=1_000) == [0, 3]


@given(
    parts=st.lists(st.lists(st.integers(2, 60), max_size=12), max_size=6),
    most_rows=st.integers(1, 7),
    most_bytes=st.integers(1, 120),
)
def test_parts_make_no_difference(parts: list[list[int]], most_rows: int, most_bytes: int) -> None:
    together = [size for part in parts for size in part]
    assert begins_in_parts(parts, most_rows, most_bytes) == begins_one_by_one(together, most_rows, most_bytes)
