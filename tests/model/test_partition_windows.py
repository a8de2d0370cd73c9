"""Partitions are Dagster's: the same keys, the same windows, whatever the clock and the zone do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.partitions import Partition, Partitions

NOW = datetime(2026, 3, 31, 12, 30, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Beirut", "Pacific/Auckland")
OF_DAGSTER = {
    "hourly": dg.HourlyPartitionsDefinition,
    "daily": dg.DailyPartitionsDefinition,
    "weekly": dg.WeeklyPartitionsDefinition,
    "monthly": dg.MonthlyPartitionsDefinition,
}


@settings(deadline=None)
@given(
    kind=st.sampled_from(sorted(OF_DAGSTER)),
    zone=st.sampled_from(ZONES),
    start=st.dates(date(2024, 1, 1), date(2027, 1, 1)),
    length=st.integers(62, 120),
    ends=st.booleans(),
    ahead=st.integers(0, 120 * 24 * 60),
)
def test_windows_are_those_of_dagster(kind: str, zone: str, start: date, length: int, ends: bool, ahead: int) -> None:
    zone = "UTC" if kind == "hourly" else zone
    end = start + timedelta(days=length) if ends else None
    ours = Partitions(type=kind, start=start, end=end, timezone=zone)
    first = f"{start}-00:00" if kind == "hourly" else str(start)
    last = None if end is None else f"{end}-00:00" if kind == "hourly" else str(end)
    theirs = OF_DAGSTER[kind](start_date=first, end_date=last, timezone=zone)
    now = datetime(start.year, start.month, start.day, tzinfo=UTC) + timedelta(minutes=ahead)
    keys = theirs.get_partition_keys(current_time=now)
    latest = ours.latest(now)
    assert (latest.key if latest else None) == (keys[-1] if keys else None)
    for key in keys[:3] + keys[-3:]:
        window, found = theirs.time_window_for_partition_key(key), ours.partition(key, now)
        # In UTC: a midnight that the clock leaves out equals nothing in another zone.
        assert (found.start, found.end) == (window.start.astimezone(UTC), window.end.astimezone(UTC))
        assert ours.at(found.identity) == found
        assert Partition.from_json(found.to_json()) == found


def test_a_window_is_kept_with_both_its_ends() -> None:
    days = Partitions(type="daily", start=date(2026, 1, 1), timezone="Europe/Berlin")
    months = Partitions(type="monthly", start=date(2026, 1, 1), timezone="Europe/Berlin")
    day, month = days.partition("2026-03-01", NOW), months.partition("2026-02-01", NOW)
    assert day.identity == "2026-02-28T23:00:00Z/2026-03-01T23:00:00Z"
    assert days.at(month.identity) is None
    assert months.at(day.identity) is None
    assert days.at("=2026-03-01") is None


def test_fixed_keys() -> None:
    tenants = Partitions.model_validate(["eu", "us"])
    assert tenants.type == "static"
    assert tenants.partition("eu", NOW) == Partition("eu") == tenants.at("=eu")
    assert (tenants.at("=asia"), tenants.latest(NOW), Partition("eu").until) == (None, None, None)
    with pytest.raises(ConfigurationError, match="no partition 'uss'") as caught:
        tenants.partition("uss", NOW)
    assert "us" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("2026-03-31", "is not over before 2026-04-01T00:00:00Z"),
        ("2025-12-31", "no daily partition"),
        ("2026-3-1", "no daily partition"),
        ("yesterday", "no daily partition"),
        ("2026-01-01-00:00", "no daily partition"),
    ],
)
def test_keys_that_name_no_window(key: str, what: str) -> None:
    days = Partitions(type="daily", start=date(2026, 1, 1))
    with pytest.raises(ConfigurationError, match=what) as caught:
        days.partition(key, NOW)
    assert caught.value.hint


def test_a_week_begins_on_sunday_and_a_month_on_its_first_day() -> None:
    for kind in ("weekly", "monthly"):
        with pytest.raises(ConfigurationError, match="no " + kind):
            Partitions(type=kind, start=date(2026, 1, 1)).partition("2026-03-03", NOW)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"type": "daily"}, "need a `start`"),
        ({"type": "daily", "start": "2026-01-01", "keys": ["eu"]}, "have no `keys`"),
        ({"type": "hourly", "start": "2026-01-01", "timezone": "Europe/Berlin"}, "hours of UTC"),
        ({"type": "daily", "start": "2026-01-01", "timezone": "Berlin"}, "Berlin"),
        ({"type": "monthly", "start": "2026-01-02", "end": "2026-02-01"}, "no `monthly` window lies"),
        ({"type": "static"}, "need `keys`"),
        ({"type": "yearly", "start": "2026-01-01"}, "hourly"),
        ([], "need `keys`"),
        (["eu", "eu"], "named twice"),
        (["eu", " us"], "cannot be a partition"),
        (["a...b"], "cannot be a partition"),
        (["a\nb"], "cannot be a partition"),
    ],
)
def test_partitions_that_cannot_be(said: object, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        Partitions.model_validate(said)
