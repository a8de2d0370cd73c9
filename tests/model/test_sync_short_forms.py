"""Syncs: their short forms, and all their mistakes at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dagster_retl.model.sync import FieldMapping, Sync, SyncMode, slugify

KNOWN = {"name": "CRM: Accounts", "source_query": "SELECT 1", "destination_id": "d", "object_name": "o"}


def sync(**settings: Any) -> Sync:
    return Sync.model_validate({**KNOWN, "field_mappings": {"Id": "id", "Email": "email"}, "key": "Id", **settings})


def locations(**settings: Any) -> list[tuple[str | int, ...]]:
    with pytest.raises(ValidationError) as caught:
        sync(**settings)
    return [details["loc"] for details in caught.value.errors()]


def test_short_mappings_are_the_long_ones() -> None:
    long = [{"destination": "Id", "source": "id", "key": True}, {"destination": "Email", "source": "email"}]
    assert sync() == sync(field_mappings=long, key=None)
    assert sync(field_mappings={"Id": {"source": "id"}, "Email": "email"}) == sync()


def test_several_keys_and_models_as_mappings() -> None:
    mappings = [FieldMapping(destination="A", source="a"), FieldMapping(destination="B", source="b")]
    assert sync(field_mappings=mappings, key=["B", "A"]).key_fields == ("A", "B")


def test_slug_and_schedule() -> None:
    assert (sync().slug, slugify("  A--b ")) == ("crm_accounts", "a_b")
    assert sync(slug="Own_1").slug == "Own_1"
    assert sync(schedule="1 * * * *").schedule.type == "cron"
    assert sync(schedule="manual").schedule.expression is None


def test_a_sync_survives_being_stored() -> None:
    mappings = [{"destination": "A", "source": "a", "key": True}, {"destination": "N", "value": None}]
    one = sync(field_mappings=mappings, key=None, schedule="1 * * * *", guards={"deletes": "1%"}, tags={"a": "b"})
    assert Sync.model_validate_json(one.model_dump_json()) == one
    assert Sync.model_validate(one.model_dump(exclude_unset=True)) == one


def test_insert_needs_no_key() -> None:
    assert sync(sync_mode="insert", key=None).sync_mode is SyncMode.INSERT
    assert locations(key=None) == [("sync_mode",)]


def test_all_mistakes_at_once() -> None:
    found = locations(
        key=["Id", "X"],
        slug="a b",
        schedule={"type": "cron", "expression": "x", "timezone": "y"},
        guards={"deletes": 2},
        change_detection={"watermark": "c", "lookbak": "1h"},
        nonsense=1,
    )
    assert set(found) == {
        ("key", 1),
        ("slug",),
        ("schedule", "expression"),
        ("schedule", "timezone"),
        ("guards", "deletes"),
        ("change_detection", "lookbak"),
        ("nonsense",),
    }


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"destination": "A"}, "exactly one of"),
        ({"destination": "A", "source": "a", "value": 1}, "exactly one of"),
        ({"destination": "A", "value": 1, "key": True}, "not a constant"),
        ({"destination": "A", "source": "a", "key": True, "on_null": "omit"}, "on_null: omit"),
    ],
)
def test_mappings_that_contradict_themselves(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        sync(field_mappings=[mapping], key=None)


def test_errors_quote_no_values() -> None:
    with pytest.raises(ValidationError) as caught:
        sync(max_attempts="hunter2")
    assert "hunter2" not in str(caught.value)
