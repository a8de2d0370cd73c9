"""Syncs, keys and repeated requests as the store keeps them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from dagster_retl.errors import ConfigurationError, ConflictError, NotFoundError, StoreError, VersionMismatchError
from dagster_retl.model.ids import SYNC_PREFIX, new_id
from dagster_retl.store.api_keys import Scope
from dagster_retl.store.clock import to_text
from dagster_retl.store.schema import metadata
from dagster_retl.store.schema_syncs import api_keys, idempotency_keys
from dagster_retl.store.store import Store
from dagster_retl.store.stored_syncs import StoredSync, read_live_syncs

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def sync(name: str = "accounts", *, project: str = "default", **definition: Any) -> StoredSync:
    return StoredSync(new_id(SYNC_PREFIX), project, name, name, definition or {"a": 1}, 0, LONG_AGO, LONG_AGO)


def test_a_sync_is_created_changed_and_deleted_and_each_version_is_kept(store: Store) -> None:
    made = store.syncs.create(sync(query="one"), "ann")
    assert (made.version, made.created_at, made.deleted_at) == (1, made.updated_at, None)
    assert abs(made.created_at - datetime.now(UTC)) < timedelta(seconds=60)
    changed = store.syncs.update(made.id, "all accounts", {"query": "two"}, "bob", expected=1)
    assert (changed.version, changed.name, changed.slug) == (2, "all accounts", "accounts")
    assert changed.updated_at > changed.created_at
    assert store.syncs.find("default", "all accounts") == changed == store.syncs.find("default", "accounts")
    with store.begin() as conn:
        gone = store.syncs.delete(conn, made.id, "ann", expected=2)
    assert gone.deleted_at is not None
    assert store.syncs.find("default", made.id) is None
    assert store.syncs.live("default") == []
    assert store.syncs.deleted("default") == [gone] == [store.syncs.get(made.id)]
    said = [(each.version, each.name, each.definition, each.actor) for each in store.syncs.versions(made.id)]
    assert said == [(2, "all accounts", {"query": "two"}, "bob"), (1, "accounts", {"query": "one"}, "ann")]
    log = [(entry.actor, entry.action, entry.subject) for _, entry in store.audit.list()]
    assert log == [
        ("ann", "sync.delete", made.id),
        ("bob", "sync.update", made.id),
        ("ann", "sync.create", made.id),
    ]


def test_names_are_unique_among_the_live_ones_of_a_project(store: Store) -> None:
    first = store.syncs.create(sync(), "ann")
    with pytest.raises(ConflictError) as caught:
        store.syncs.create(sync(), "ann")
    assert caught.value.subject == first.id
    other = store.syncs.create(sync("contacts"), "ann")
    with pytest.raises(ConflictError) as caught:
        store.syncs.update(other.id, "accounts", {}, "ann")
    assert caught.value.subject == first.id
    assert store.syncs.get(other.id) == other
    store.syncs.create(sync(project="another"), "ann")
    with store.begin() as conn:
        store.syncs.delete(conn, first.id, "ann")
    again = store.syncs.create(sync(), "ann")
    assert {each.id for each in store.syncs.live("default")} == {other.id, again.id}


def test_a_change_of_another_version_is_refused(store: Store) -> None:
    made = store.syncs.create(sync(), "ann")
    store.syncs.update(made.id, "accounts", {"a": 2}, "ann")
    with pytest.raises(VersionMismatchError, match="version 2 by now, not 1"):
        store.syncs.update(made.id, "accounts", {"a": 3}, "bob", expected=1)
    with store.begin() as conn, pytest.raises(VersionMismatchError):
        store.syncs.delete(conn, made.id, "bob", expected=1)
    with pytest.raises(NotFoundError):
        store.syncs.update(new_id(SYNC_PREFIX), "x", {}, "bob")
    assert store.syncs.get(made.id).definition == {"a": 2}


def test_one_of_many_creators_of_a_name_wins_and_changes_do_not_get_lost(store: Store) -> None:
    def create(number: int) -> str | None:
        try:
            return store.syncs.create(sync("same", number=number), f"p{number}").id
        except ConflictError:
            return None

    def change(number: int) -> bool:
        try:
            store.syncs.update(made, "same", {"number": number}, f"p{number}", expected=1)
        except VersionMismatchError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        [made] = [sync_id for sync_id in pool.map(create, range(8)) if sync_id]
        assert sum(pool.map(change, range(8))) == 1
    assert [each.version for each in store.syncs.versions(made)] == [2, 1]


def test_definitions_read_the_list_alone(new_url: str) -> None:
    assert read_live_syncs(new_url, "default") == []
    if new_url.startswith("sqlite"):
        assert not Path(new_url.removeprefix("sqlite:///")).exists()
    with Store.open(new_url) as store:
        made = store.syncs.create(sync(), "ann")
        assert read_live_syncs(new_url, "default") == [made]
        assert read_live_syncs(new_url, "another") == []


def test_a_store_that_cannot_be_read_has_no_empty_list(tmp_path: Path) -> None:
    (tmp_path / "retl.db").write_text("no database, although it is long enough to be taken for one " * 20)
    with pytest.raises(StoreError, match="cannot be used"):
        read_live_syncs(f"sqlite:///{tmp_path / 'retl.db'}", "default")
    with pytest.raises(StoreError, match="cannot be used"):
        read_live_syncs("postgresql://nobody@127.0.0.1:9/nothing", "default")


def test_a_key_is_shown_once_and_revoked_for_good(store: Store) -> None:
    key, text = store.api_keys.create("ci", {Scope.READ, Scope.RUN}, "ann", destinations=["crm"])
    assert store.api_keys.authenticate(text) == key == store.api_keys.get(key.id)
    assert (key.scopes, key.reaches("crm"), key.reaches("other"), key.reaches(None)) == (
        {"read", "run"},
        True,
        False,
        False,
    )
    secret = text.rpartition("_")[2]
    with store.engine.connect() as conn:
        assert secret not in str(conn.execute(select(api_keys)).all())
    everything, _ = store.api_keys.create("all", {Scope.READ}, "ann")
    assert everything.reaches("other")
    assert everything.reaches(None)
    revoked = store.api_keys.revoke(key.id, "bob")
    assert store.api_keys.revoke(key.id, "bob") == revoked
    assert store.api_keys.authenticate(text) is None
    assert [each.id for each in store.api_keys.list()] == [everything.id, key.id]
    assert [entry.action for _, entry in store.audit.list()] == ["key.revoke", "key.create", "key.create"]


def test_what_is_not_the_text_of_a_key_opens_nothing(store: Store) -> None:
    key, text = store.api_keys.create("ci", {Scope.READ}, "ann")
    other, other_text = store.api_keys.create("other", {Scope.READ}, "ann")
    tail = text[len(key.id) :]
    last = "A" if text[-1] != "A" else "B"
    malformed = ["", text[:-1], text + "A", text.upper(), f" {text}", f"{text}\n", key.id, f"{key.id}_"]
    wrong = [*malformed, f"{other.id}{tail}", f"retl_key_{'0' * 26}{tail}", text[:-1] + last]
    assert [each for each in wrong if store.api_keys.authenticate(each) is not None] == []
    assert store.api_keys.authenticate(other_text) == other
    with pytest.raises(NotFoundError):
        store.api_keys.revoke("retl_key_none", "ann")
    with pytest.raises(ConfigurationError):
        store.api_keys.create("nothing", [], "ann")


def test_a_request_that_comes_again_gets_the_first_answer(store: Store) -> None:
    keys = store.idempotency
    assert keys.begin("k1", "a", "digest") is None
    busy = keys.begin("k1", "a", "digest")
    assert busy is not None
    assert (busy.request, busy.status) == ("digest", None)
    keys.answer("k1", "a", 201, "{}")
    again = keys.begin("k1", "a", "another digest")
    assert again is not None
    assert (again.request, again.status, again.answer) == ("digest", 201, "{}")
    keys.release("k1", "a")
    assert keys.begin("k1", "a", "digest") == again
    assert keys.begin("k2", "a", "digest") is None
    keys.release("k2", "a")
    assert keys.begin("k2", "a", "digest") is None


@pytest.mark.parametrize(("age", "answered", "free"), [
    (timedelta(hours=23), True, False), (timedelta(hours=25), True, True),
    (timedelta(minutes=5), False, False), (timedelta(minutes=15), False, True),
])  # fmt: skip
def test_answers_are_kept_for_a_day_and_dead_requests_are_not(
    store: Store, age: timedelta, answered: bool, free: bool
) -> None:
    store.idempotency.begin("k", "a", "digest")
    if answered:
        store.idempotency.answer("k", "a", 200, "{}")
    with store.begin() as conn:
        conn.execute(update(idempotency_keys).values(created_at=to_text(store.now() - age)))
    assert (store.idempotency.begin("k", "a", "digest") is None) is free


def test_many_that_ask_at_once_are_answered_by_one(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.idempotency.begin("k", "a", "digest"), range(8)))
    assert sum(each is None for each in taken) == 1


def test_purging_leaves_nothing_but_the_lease_and_the_audit(store: Store) -> None:
    made = store.syncs.create(sync(), "ann")
    kept = store.syncs.create(sync("kept"), "ann")
    for each in (made, kept):
        store.runs.create(each.id, each.slug)
        store.states.set_enabled(each.id, "default", each.slug, enabled=True, actor="ann")
    with store.begin() as conn:
        store.leases.lock(conn, made.id)
        store.syncs.delete(conn, made.id, "ann")
    assert store.purging.remembered() == {made.id: "accounts", kept.id: "kept"}
    with store.begin() as conn:
        store.purging.purge(conn, made.id, "accounts", "bob")
    assert store.purging.remembered() == {kept.id: "kept"}
    assert store.syncs.deleted("default") == []
    assert [run.sync_id for run in store.runs.list()] == [kept.id]
    with store.engine.connect() as conn:
        left = {
            name: conn.scalar(select(func.count()).where(table.c.sync_id == made.id))
            for name, table in metadata.tables.items()
            if "sync_id" in table.c
        }
    assert {name for name, count in left.items() if count} == {"leases"}
    assert store.audit.list(limit=1)[0][1].action == "sync.purge"
