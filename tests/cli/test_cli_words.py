"""How values are typed and shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from dagster_retl.cli import words
from dagster_retl.cli.keys import parse_key, with_prefix

NOON = datetime(2025, 3, 27, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "fields", "key"),
    [
        ("42", ("id",), {"id": "42"}),
        ("id=42", ("id",), {"id": "42"}),
        ("a,b", ("id",), {"id": "a,b"}),
        ("id=a,b", ("id",), {"id": "a,b"}),
        ("id=a=b", ("id",), {"id": "a=b"}),
        ("", ("id",), {"id": ""}),
        ("region=EU,number=2", ("region", "number"), {"region": "EU", "number": "2"}),
        ("number=2, region=EU, West", ("region", "number"), {"number": "2", "region": "EU, West"}),
        ("id=1,id2=2", ("id", "id2"), {"id": "1", "id2": "2"}),
        ("Account.Id=7", ("Account.Id",), {"Account.Id": "7"}),
    ],
)
def test_keys(text: str, fields: tuple[str, ...], key: dict[str, str]) -> None:
    assert parse_key(text, fields) == key


@pytest.mark.parametrize(
    ("text", "fields"), [("1", ()), ("1", ("a", "b")), ("a=1", ("a", "b")), ("c=1", ("a",)), ("c=1,a=2", ("a", "b"))]
)
def test_what_is_no_key(text: str, fields: tuple[str, ...]) -> None:
    with pytest.raises(click.BadParameter):
        parse_key(text, fields)


def test_ids_go_with_and_without_their_prefix() -> None:
    assert with_prefix("abc", "retl_run_") == with_prefix("retl_run_abc", "retl_run_") == "retl_run_abc"


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(0), "now"),
        (timedelta(seconds=59), "59s ago"),
        (timedelta(seconds=60), "1m ago"),
        (timedelta(hours=47), "1d ago"),
        (timedelta(seconds=-5), "now"),
    ],
)
def test_ages(ago: timedelta, text: str) -> None:
    assert words.age(NOON - ago, NOON).plain == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.04, "0.0s"), (59.94, "59.9s"), (125.2, "2m 5s"), (3_725, "1h 2m")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds).plain == text


def test_times_are_utc_with_z() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert words.rfc3339(there) == "2025-03-27T12:00:00Z"
    assert words.rfc3339(None) is None
    assert words.clock(there).plain == "2025-03-27 12:00:00 UTC"


def test_keys_and_values_are_shown_as_they_are() -> None:
    assert words.key({"region": "[bold]EU[/]", "number": 2}).plain == "region=[bold]EU[/], number=2"
    assert words.key({}).plain == "–"
    assert words.values({"name": "Zoë", "email": None, "tags": ["a"]}).plain == 'name: Zoë, email: null, tags: ["a"]'
