"""The diff, on small tables: which fate each row gets."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from dagster_retl.changes.diff import DiffRules, PlanTotals, diff, failures, forgotten_query, settled_letters
from dagster_retl.changes.snapshot import DELETED, REMOVED, load_snapshot
from dagster_retl.model.sync import SyncMode


def version(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


class World:
    """What a run would find: rows as (key, content), a snapshot, suspects, letters."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        load_snapshot(self.connection, None)
        self.connection.execute("""
            CREATE TABLE staged (n BIGINT, key VARCHAR, record_keys VARCHAR, fingerprint UUID, row_hash UBIGINT,
                error_field VARCHAR, error VARCHAR, unsendable VARCHAR);
            CREATE TABLE suspects (id BIGINT, key VARCHAR, record_keys VARCHAR, fingerprint UUID);
            CREATE TABLE letters (key VARCHAR, fingerprint UUID, rejections BIGINT, held BOOLEAN);
            CREATE TABLE silenced (key VARCHAR, fingerprint UUID);
            CREATE TABLE asked (key VARCHAR);
        """)

    def stage(
        self, key: str | None, content: str = "A", *, error: str | None = None, unsendable: str | None = None
    ) -> None:
        values: list[Any] = [key, "{}", version(content), "f" if error else None, error, unsendable]
        self.connection.execute("INSERT INTO staged SELECT count(*), ?, ?, ?, NULL, ?, ?, ? FROM staged", values)

    def remember(self, key: str, content: str | None = "A") -> None:
        self.connection.execute(
            "INSERT INTO no_snapshot VALUES (?, '{}', ?, NULL, NULL, NULL)",
            [key, version(content) if content else None],
        )

    def suspect(self, key: str, content: str) -> None:
        fingerprint = content if "-" in content else version(content)
        self.connection.execute("INSERT INTO suspects VALUES (1, ?, '{}', ?)", [key, fingerprint])

    def letter(self, key: str, content: str = "A", *, rejections: int = 1, held: bool = False) -> None:
        fingerprint = content if "-" in content else version(content)
        self.connection.execute("INSERT INTO letters VALUES (?, ?, ?, ?)", [key, fingerprint, rejections, held])

    def diff(self, mode: SyncMode = SyncMode.UPSERT, **rules: Any) -> PlanTotals:
        self.rules = DiffRules(mode=mode, max_attempts=3, **rules)
        return diff(self.connection, self.rules)

    def fate(self, key: str) -> str:
        return str(self.connection.execute("SELECT fate FROM classified WHERE key = ?", [key]).fetchall()[0][0])

    def sends(self) -> list[tuple[str, str]]:
        return self.connection.execute("SELECT operation, key FROM sends ORDER BY n, key").fetchall()

    def settled(self) -> dict[str, str]:
        return dict(settled_letters(self.connection, self.rules))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.connection.close()


def test_added_changed_and_unchanged_rows(world: World) -> None:
    world.remember("same")
    world.remember("other", "B")
    for key in ("same", "other", "new"):
        world.stage(key)
    totals = world.diff()
    assert (totals.read, totals.added, totals.changed, totals.unchanged) == (3, 1, 1, 1)
    assert world.sends() == [("upsert", "other"), ("upsert", "new")]


def test_all_rows_of_a_duplicated_key_fail_and_null_keys_too(world: World) -> None:
    for content in ("A", "B"):
        world.stage("twice", content)
    world.stage(None)
    world.stage("fine")
    totals = world.diff()
    assert totals.failed == {"DUPLICATE_SOURCE_KEY": 2, "MISSING_KEY": 1}
    assert world.sends() == [("upsert", "fine")]
    assert next(row for block in failures(world.connection) for row in block.to_pylist())["copies"] == 2


def test_a_row_that_failed_before_the_diff_is_present(world: World) -> None:
    """PROTOCOL 3: a duplicated or unmappable row is still in the query result, so its record stays."""
    for key in ("twice", "broken", "gone"):
        world.remember(key)
    world.stage("twice")
    world.stage("twice")
    world.stage("broken", error="Conversion Error")
    world.diff(SyncMode.MIRROR)
    assert world.sends() == [("delete", "gone")]


def test_a_key_that_cannot_be_computed_holds_all_removals(world: World) -> None:
    world.remember("gone")
    world.stage(None, error="Conversion Error")
    totals = world.diff(SyncMode.MIRROR)
    assert world.sends() == []
    assert totals.removals_held is not None


def test_a_suspect_with_other_content_forbids_unchanged(world: World) -> None:
    """PROTOCOL 5: the destination may hold B, or get it yet, whatever the snapshot says."""
    world.remember("k")
    world.stage("k")
    world.suspect("k", "B")
    world.diff()
    assert world.fate("k") == "send"


def test_a_suspect_with_the_same_content_does_not(world: World) -> None:
    world.remember("k")
    world.stage("k")
    world.suspect("k", "A")
    world.diff()
    assert world.fate("k") == "unchanged"


def test_a_suspect_that_left_the_query_is_removed_in_mirror(world: World) -> None:
    world.suspect("maybe", "A")
    world.diff(SyncMode.MIRROR)
    assert world.sends() == [("delete", "maybe")]


def test_a_removal_that_may_still_land_is_not_repeated_once_the_snapshot_lacks_the_key(world: World) -> None:
    world.suspect("gone", REMOVED)
    assert world.diff(SyncMode.MIRROR).removed == 0
    world.suspect("gone", "A")
    world.diff(SyncMode.MIRROR)
    assert world.sends() == [("delete", "gone")]


def test_upsert_removes_nothing(world: World) -> None:
    world.remember("gone")
    assert world.diff().removed == 0


@pytest.mark.parametrize(
    ("rejections", "content", "fate"), [(3, "A", "skipped:parked"), (2, "A", "send"), (3, "B", "send")]
)
def test_parking_counts_rejections_of_this_version_only(world: World, rejections: int, content: str, fate: str) -> None:
    world.stage("k")
    world.letter("k", content, rejections=rejections)
    world.diff()
    assert world.fate("k") == fate


def test_a_full_refresh_sends_parked_rows_again(world: World) -> None:
    world.stage("k")
    world.letter("k", rejections=3)
    world.diff(retry_parked=True)
    assert world.fate("k") == "send"


def test_a_held_insert_is_never_sent(world: World) -> None:
    world.stage("k")
    world.letter("k", "B", held=True)
    world.diff(SyncMode.INSERT, retry_parked=True)
    assert world.fate("k") == "skipped:held"


def test_a_silenced_version_is_skipped_until_it_changes(world: World) -> None:
    world.stage("quiet", "A")
    world.stage("changed", "B")
    world.connection.execute("INSERT INTO silenced VALUES ('quiet', ?), ('changed', ?)", [version("A"), version("A")])
    world.diff()
    assert (world.fate("quiet"), world.fate("changed")) == ("skipped:silenced", "send")
    assert world.settled() == {"changed": "row_changed"}


def test_insert_looks_at_the_key_only(world: World) -> None:
    world.remember("same")
    world.remember("edited", "B")
    world.remember("stale", None)
    for key in ("same", "edited", "stale", "new"):
        world.stage(key)
    world.diff(SyncMode.INSERT)
    assert [world.fate(key) for key in ("same", "edited", "stale", "new")] == [
        "unchanged",
        "skipped:mode",
        "send",
        "send",
    ]


def test_delete_mode_sends_keys_once_and_forgets_those_that_left(world: World) -> None:
    world.stage("delivered")
    world.stage("new")
    world.connection.execute(
        f"INSERT INTO no_snapshot VALUES ('delivered', '{{}}', '{DELETED}', NULL, NULL, NULL), "
        f"('left', '{{}}', '{DELETED}', NULL, NULL, NULL)"
    )
    world.diff(SyncMode.DELETE)
    assert world.sends() == [("delete", "new")]
    assert world.connection.execute(forgotten_query(world.rules)).fetchall()[0][0] == "left"


def test_a_limit_cuts_what_is_sent_and_removes_nothing(world: World) -> None:
    world.remember("gone")
    for key in ("a", "b", "c"):
        world.stage(key)
    totals = world.diff(SyncMode.MIRROR, limit=1, complete=False)
    assert world.sends() == [("upsert", "a")]
    assert totals.skipped == {"limit": 2}


def test_a_replay_of_a_removal_sends_the_removal(world: World) -> None:
    for key in ("asked", "unasked"):
        world.remember(key)
    world.connection.execute("INSERT INTO asked VALUES ('asked')")
    world.diff(SyncMode.MIRROR, by_key=True, complete=False)
    assert world.sends() == [("delete", "asked")]


def test_a_refused_removal_parks_too(world: World) -> None:
    world.remember("gone")
    world.letter("gone", REMOVED, rejections=3)
    totals = world.diff(SyncMode.MIRROR)
    assert (totals.removed, totals.removals_sent) == (1, 0)


def test_letters_close_when_the_truth_says_so(world: World) -> None:
    """PROTOCOL 13: found unchanged, or missing from a complete read and not due for removal."""
    world.remember("back")
    world.stage("back")
    world.remember("due")
    for key in ("back", "missing", "due"):
        world.letter(key)
    world.letter("held", held=True)
    world.letter("code:MISSING_KEY")
    world.diff(SyncMode.MIRROR)
    assert world.settled() == {"back": "reverted", "missing": "source_row_missing"}


def test_a_row_without_json_form_fails(world: World) -> None:
    world.stage("k", unsendable="score")
    world.diff()
    assert world.fate("k") == "TYPE_COERCION"


def test_a_window_says_of_the_keys_alone_that_were_asked_for_that_they_left(world: World) -> None:
    world.connection.execute("CREATE TABLE looked_up AS SELECT 'asked' AS key")
    for key in ("asked", "not asked", "there"):
        world.letter(key)
    world.stage("there", "B")
    world.diff(windowed=True)
    assert world.settled() == {"asked": "source_row_missing"}


def test_a_window_makes_a_delete_sync_forget_nothing(world: World) -> None:
    world.remember("elsewhere", DELETED)
    for windowed, forgotten in ((True, 0), (False, 1)):
        world.diff(SyncMode.DELETE, windowed=windowed)
        query = f"SELECT count(*) FROM ({forgotten_query(world.rules)})"
        assert world.connection.execute(query).fetchall() == [(forgotten,)]
