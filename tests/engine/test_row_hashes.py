"""Unchanged rows are found by their hashes; what these cannot tell, fingerprints do."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from worlds import World, world

from dagster_retl.changes.snapshot import hashed_under
from dagster_retl.model.runs import RunOptions
from dagster_retl.store.snapshots import Pointer

ROWS = [(number, f"name {number}", number / 2) for number in range(20)]


def pointer(made: World) -> Pointer:
    found = made.service.store.snapshots.pointer(made.project.syncs[0].id)
    assert found is not None
    return found


def generation(made: World) -> Path:
    """The snapshot's file."""
    return made.service.state.local_path(pointer(made).generation or "", pointer(made).checksum or "")


def hashed(made: World) -> list[str]:
    """The columns of hashes that the snapshot has."""
    return [name for name in pq.read_schema(generation(made)).names if name.startswith("row_hash")]


def test_a_changed_row_is_sent_and_the_others_keep_their_hashes(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put(*ROWS)
        made.run()
        made.put((3, "changed", 1.5))
        counters = made.run().run.counters
        assert (counters.written, counters.unchanged) == (1, 19)
        assert without_hash(made) == 0
        assert made.run().run.counters.unchanged == 20


@pytest.mark.parametrize("change", ["another type", "back again"])
def test_hashes_of_other_terms_do_not_count_and_are_made_anew(tmp_path: Path, change: str) -> None:
    """The type of a column changes, and its values do not: the fingerprint is the same, the hash is not."""
    with world(tmp_path) as made:
        made.put(*ROWS)
        made.run()
        before = hashed(made)
        query = "SELECT id::SMALLINT AS id, name, score FROM t"
        with made.with_sync(source_query=query).service as service:
            counters = service.run("things").run.counters
            assert (counters.unchanged, counters.requests) == (20, 0)
            assert hashed(made) != before
            if change == "another type":
                after = pointer(made).generation
                assert service.run("things").run.counters.unchanged == 20
                assert pointer(made).generation == after, "nothing was to be written"
        if change == "back again":
            assert made.run().run.counters.unchanged == 20
            assert hashed(made) == before


def test_a_partial_run_under_new_terms_leaves_hashes_to_the_next_whole_one(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put(*ROWS)
        made.run()
        made.put((3, "changed", 1.5))
        query = "SELECT id::SMALLINT AS id, name, score FROM t"
        with made.with_sync(source_query=query).service as service:
            assert service.run("things", RunOptions(keys=({"id": 3},))).run.counters.written == 1
            assert without_hash(made) == 19
            assert service.run("things").run.counters.unchanged == 20
            assert without_hash(made) == 0


def without_hash(made: World) -> int:
    (column,) = hashed(made)
    return int(duckdb.sql(f"SELECT count(*) FROM '{generation(made)}' WHERE \"{column}\" IS NULL").fetchall()[0][0])


def test_rows_with_nested_values_have_fingerprints_only(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put(*ROWS)
        nested = made.with_sync(
            source_query="SELECT id, name, [score] AS score FROM t",
        )
        with nested.service as service:
            service.run("things")
            assert hashed(made) == []
            assert not hashed_under(generation(made), None)
            assert service.run("things").run.counters.unchanged == 20
