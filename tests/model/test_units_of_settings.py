"""Durations, shares and sizes as people write them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.model.units import (
    format_duration,
    format_step,
    parse_duration,
    parse_duration_or_zero,
    parse_seconds,
    parse_share,
    parse_size,
    parse_step,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("90d", 7776000), ("15m", 900), ("1h30m", 5400), ("2w", 1209600), ("0s", 0), (" 5s ", 5)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "24", 24, "h", "1m1h", "1.5h", "-1h", "P1D", None, "1 h", True])
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(("value", "days"), [(0, 0), ("0", 0), ("0d", 0), ("14d", 14)])
def test_zero_needs_no_unit_where_it_turns_something_off(value: Any, days: int) -> None:
    assert parse_duration_or_zero(value) == timedelta(days=days)


@pytest.mark.parametrize("value", ["", "24", 24, False, None, "-1h"])
def test_what_is_neither_a_duration_nor_zero(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration_or_zero(value)


@given(st.integers(0, 10**9))
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("value", "expected"), [("5m", 300.0), (2, 2), ("2.5", "2.5"), (timedelta(minutes=1), 60.0)])
def test_seconds(value: Any, expected: Any) -> None:
    assert parse_seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("10%", 0.1), (" 2.5 % ", 0.025), (0.1, 0.1), ("x", "x"), ("-1%", "-1%")]
)
def test_shares(value: Any, expected: Any) -> None:
    assert parse_share(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("300MB", 300_000_000), ("1GiB", 2**30), ("1.5 kb", 1500), ("7B", 7), ("64", "64"), (64, 64), ("2TB", 2 * 10**12)],
)
def test_sizes(value: Any, expected: Any) -> None:
    assert parse_size(value) == expected


@pytest.mark.parametrize("value", ["", "300M", "MB", "-1MB", "1PB"])
def test_what_is_no_size(value: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1h", timedelta(hours=1)),
        ("0s", timedelta()),
        (timedelta(days=1), timedelta(days=1)),
        (100, Decimal(100)),
        ("100", Decimal(100)),
        (0.1, Decimal("0.1")),
        (Decimal("0.10"), Decimal("0.10")),
    ],
)
def test_steps(value: Any, expected: Any) -> None:
    assert parse_step(value) == expected


@pytest.mark.parametrize("written", ["1h30m", "0s", "100", "0.10"])
def test_steps_are_written_as_they_are_read(written: str) -> None:
    assert format_step(parse_step(written)) == written


@pytest.mark.parametrize("value", [-1, "-1", "1 hour", "", None, True, float("nan"), [1]])
def test_what_is_no_step(value: Any) -> None:
    with pytest.raises(ValueError, match="duration such as 24h, 90d or 1h30m, or a number"):
        parse_step(value)
