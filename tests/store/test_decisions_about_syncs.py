"""What people decided about syncs, what alerts said, and who did what."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dagster_retl.store.clock import from_text, to_text
from dagster_retl.store.store import Store


def test_a_sync_is_switched_and_the_switch_is_audited(store: Store) -> None:
    assert store.states.enabled("s") is None
    store.states.set_enabled("s", "default", "accounts", enabled=False, actor="ann")
    assert store.states.enabled("s") is False
    store.states.set_enabled("s", "default", "accounts", enabled=True, actor="bob")
    store.states.set_enabled("t", "default", "contacts", enabled=False, actor="bob")
    assert store.states.all() == {"s": True, "t": False}
    store.states.set_enabled("s", "default", "accounts", enabled=None, actor="bob")
    assert store.states.enabled("s") is None
    assert store.states.all() == {"t": False}
    log = [(entry.actor, entry.action, entry.subject) for _, entry in store.audit.list()]
    assert log == [
        ("bob", "sync.follow_file", "s"),
        ("bob", "sync.disable", "t"),
        ("bob", "sync.enable", "s"),
        ("ann", "sync.disable", "s"),
    ]
    newest, _ = store.audit.list(limit=1)[0]
    assert len(store.audit.list(before=newest)) == 3


def test_notices_are_kept_by_subject(store: Store) -> None:
    assert store.notices.get("run_failed/conn/AUTH") is None
    store.notices.put("run_failed/conn/AUTH", "failing", "3 runs")
    store.notices.put("run_failed/conn/AUTH", "recovered")
    store.notices.put("run_failed_x", "failing")
    notice = store.notices.get("run_failed/conn/AUTH")
    assert notice is not None
    assert (notice.state, notice.detail) == ("recovered", "")
    assert [notice.key for notice in store.notices.all("run_failed/")] == ["run_failed/conn/AUTH"]
    assert [notice.key for notice in store.notices.all("run_failed_")] == ["run_failed_x"]  # `_` is no wildcard
    assert store.notices.delete("run_failed_x")
    assert not store.notices.delete("run_failed_x")
    assert len(store.notices.all()) == 1


def test_times_are_text_that_sorts() -> None:
    whole, later = datetime(2025, 3, 27, 17, tzinfo=UTC), datetime(2025, 3, 27, 17, 0, 0, 1, tzinfo=UTC)
    assert to_text(whole) == "2025-03-27T17:00:00.000000Z"
    assert to_text(whole) < to_text(later)
    assert from_text(to_text(later)) == later
    with pytest.raises(ValueError, match="zone"):
        to_text(datetime(2025, 3, 27))  # noqa: DTZ001 - the mistake


def test_the_clock_is_utc_and_right(store: Store) -> None:
    assert abs((store.now() - datetime.now(UTC)).total_seconds()) < 5
    with store.begin() as conn:
        assert store.now(conn).utcoffset() is not None
