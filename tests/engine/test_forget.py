"""Forgetting a key: nothing of it is left anywhere, and nothing else is touched."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nursery import Nursery
from sqlalchemy import select
from test_explain import scripted
from worlds import World, world

from dagster_retl.errors import ConfigurationError, LeaseHeldError, RetlError
from dagster_retl.model.mask import KeyMask
from dagster_retl.model.runs import Guard
from dagster_retl.service import Service
from dagster_retl.store.schema import acceptances, dead_letters, metadata, rearmed_keys, suspects
from dagster_retl.testing.fake_http import Rules
from dagster_retl.testing.server import Trouble

ZOE = "Zoë.Quux+7@example.com"
NEEDLES = [text.encode() for text in (ZOE, json.dumps(ZOE)[1:-1])]
ADA = "ada@example.com"
ALL_GUARDS = frozenset(Guard)

PEOPLE: dict[str, Any] = {
    "source_query": "SELECT name, score FROM t",
    "field_mappings": [
        {"source": "name", "destination": "id", "key": True},
        {"source": "score", "destination": "score"},
    ],
}


def refuse_negative(record: Mapping[str, Any]) -> str | None:
    return f"{record['id']} is not welcome, or {record['id'].upper()}" if record["score"] < 0 else None


RULES = Rules(refuse=refuse_negative)


def forget(made: World, key: object = ZOE, **how: Any) -> Any:
    (done,) = made.service.forget({"things": {"id": key}}, actor="me", **how)
    return done


def set_scores(made: World, **scores: float) -> None:
    numbers = {"zoe": 1, "ada": 2, "bob": 3, "cy": 4}
    made.put(*((numbers[who], {"zoe": ZOE, "ada": ADA}.get(who, who), score) for who, score in scores.items()))


def live(made: World) -> None:
    """Leave traces of Zoë, and of others, in every place where there may be any."""
    set_scores(made, zoe=-1, ada=1, bob=2, cy=-3)
    made.run()
    set_scores(made, zoe=1, ada=-1)
    made.run()
    trouble = Trouble(status=503, headers={"Retry-After": "0"}, apply=True)
    made.http.disturb(trouble, where=lambda request: ZOE.encode() in request.body)
    set_scores(made, zoe=2, ada=3)
    made.run(overrides=ALL_GUARDS)
    set_scores(made, zoe=-4)
    made.run(keys=({"id": ZOE}, {"id": ADA}))
    letters = made.service.dead_letters("things", limit=50)
    (zoes,) = (letter for letter in letters if letter.record_keys == {"id": ZOE})
    made.service.resolve([zoes.id], "manual_push", actor="me")
    set_scores(made, zoe=-5)
    made.run()
    failing = "SELECT CAST(name AS INTEGER) AS name, score FROM t WHERE name LIKE 'Z%'"
    with pytest.raises(RetlError, match="Could not convert"):
        made.with_sync(source_query=failing).service.run("things")
    letters = made.service.dead_letters("things", limit=50)
    made.service.resolve([each.id for each in letters if each.record_keys == {"id": ZOE}], "manual_push", actor="me")
    pointer = made.service.store.snapshots.pointer(made.project.syncs[0].id)
    assert pointer is not None
    with made.service.store.begin() as conn:
        common = {"sync_id": pointer.sync_id, "epoch": pointer.epoch, "rearmed_at": "2025-01-01T00:00:00.000000Z"}
        for key in (ZOE, ADA):
            conn.execute(rearmed_keys.insert().values(key=f'["{key}"]', record_keys=json.dumps({"id": key}), **common))


def traces(made: World) -> list[str]:
    """Where Zoë is found: tables on Postgres, otherwise bytes of files; Parquet is compressed, so its rows as well."""
    folder = made.project.base
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    found = [path.name for path in files if holds(path.read_bytes()) or holds(repr(_rows(path)).encode())]
    if made.project.store.startswith("sqlite"):
        return found + [path.name for path in folder.glob("retl.db*") if holds(path.read_bytes())]
    with psycopg.connect(made.project.store.replace("+psycopg", "")) as connection:
        for table in metadata.tables:
            rows = connection.execute(f"SELECT t::text FROM retl.{table} t").fetchall()
            found += [table] if holds(repr(rows).encode()) else []
    return found


def _rows(path: Path) -> list[Any]:
    return duckdb.sql(f"SELECT * FROM '{path}'").fetchall() if path.suffix == ".parquet" else []


def holds(data: bytes) -> bool:
    return any(needle in data for needle in NEEDLES) or any(needle.upper() in data for needle in NEEDLES)


def memory(made: World) -> dict[str, Any]:
    """All that is known of the others: what people see of them, and what the snapshot holds."""
    told = {who: made.service.explain("things", {"id": who}, offline=True) for who in (ADA, "bob", "cy")}
    return {
        who: (each.delivered, each.attempts, each.suspects, each.decisions, each.letters, each.missing)
        for who, each in told.items()
    }


@pytest.fixture(params=["sqlite", "postgres"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with world(tmp_path, RULES, store=url, config={"batch_rows": 2}, **PEOPLE) as built:
        yield built


def test_nothing_is_left_of_it_and_all_else_stays(made: World) -> None:
    live(made)
    found = traces(made)
    assert {name[0] for name in found if name.endswith(".parquet")} == {"g", "m", "h"}
    if not made.project.store.startswith("sqlite"):
        assert {"dead_letters", "runs", "suspects", "acceptances", "rearmed_keys"} <= set(found)
    before = memory(made)
    assert any(before[ADA])

    done = forget(made)
    assert (done.letters >= 2, done.records >= 2, done.texts >= 2, done.files >= 3) == (True,) * 4
    assert traces(made) == []
    assert memory(made) == before
    told = made.service.explain("things", {"id": ZOE}, offline=True)
    assert (told.delivered, told.attempts, told.letters, told.suspects, told.decisions) == (None, [], [], [], [])

    made.sql("DELETE FROM t WHERE name = ?", [ZOE])
    writes = made.writes()
    made.run(overrides=ALL_GUARDS)
    assert {change.key for change in made.http.applied[writes:]} <= {ADA, "bob"}
    again = forget(made)
    assert (again.letters, again.records, again.texts) == (0, 0, 0)
    assert traces(made) == []


def test_texts_say_that_something_was_taken_out(made: World) -> None:
    set_scores(made, zoe=-1, ada=-1)
    made.run()
    made.run(keys=({"id": ZOE}, {"id": ADA}))
    with pytest.raises(RetlError, match="Could not convert"):
        made.with_sync(source_query=f"SELECT CAST('{ZOE}' AS INTEGER) AS name, score FROM t").service.run("things")
    forget(made)
    (letter,) = made.service.dead_letters("things")
    assert letter.message == f"{ADA} is not welcome, or {ADA.upper()}"
    _, failed, by_key, _ = made.service.runs("things")
    assert "Could not convert string '***' to INT32" in (failed.error_message or "")
    assert by_key.options["keys"] == [{"id": "***"}, {"id": ADA}]


def test_the_audit_keeps_a_hash(made: World) -> None:
    set_scores(made, zoe=1)
    made.run()
    forget(made)
    entries = [entry for _, entry in made.service.store.audit.list() if entry.action == "key.forget"]
    salted = f'{made.service.store.uuid}:["{ZOE}"]'
    assert [(entry.actor, entry.subject, entry.detail) for entry in entries] == [
        ("me", made.project.syncs[0].id, f"sha256:{hashlib.sha256(salted.encode()).hexdigest()}")
    ]


def test_a_sync_that_runs_is_left_alone(made: World) -> None:
    set_scores(made, zoe=1)
    run = made.run().run
    lease = made.service.store.leases.acquire(run.sync_id, run.id)
    with pytest.raises(LeaseHeldError):
        forget(made)
    assert traces(made) != []
    made.service.store.leases.release(lease)
    forget(made)
    assert [run.status for run in made.service.runs("things")] == ["succeeded", "failed", "succeeded"]
    assert [run.dry_run for run in made.service.runs("things")] == [True, True, False]


def test_an_epoch_of_before_is_forgotten_too(made: World) -> None:
    set_scores(made, zoe=-1, ada=1)
    made.run()
    elsewhere = made.with_sync(object_name="people")
    elsewhere.run()
    assert [letter.resolution for letter in made.service.dead_letters("things", resolved=True)] == ["config_changed"]
    forget(elsewhere)
    assert traces(made) == []


def test_free_pages_of_the_store_are_wiped_too(tmp_path: Path) -> None:
    """Many SQLites leave what is deleted where it was; those of some Linux distributions do not."""
    with world(tmp_path, RULES, **PEOPLE) as made:
        set_scores(made, ada=1)
        made.run()
        with contextlib.closing(sqlite3.connect(tmp_path / "retl.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute("INSERT INTO notices VALUES ('k', 's', ?, 'never')", [ZOE])
            connection.execute("DELETE FROM notices")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert traces(made) == ["retl.db"]
        forget(made)
        assert traces(made) == []


def test_a_held_insert_needs_force(tmp_path: Path) -> None:
    with scripted(tmp_path, sync_mode="insert") as made:
        made.put((1, "a", 1), (2, "b", 1))
        made.http.expect(["reset_applied"])  # type: ignore[attr-defined]
        made.run()
        with pytest.raises(ConfigurationError, match="holds this insert") as caught:
            forget(made, 1)
        assert "--force" in (caught.value.hint or "")
        assert [letter.held for letter in made.service.dead_letters("things")] == [True, True]
        forget(made, 1, force=True)
        assert [letter.record_keys for letter in made.service.dead_letters("things")] == [{"id": 2}]


def test_an_insert_of_unknown_outcome_of_a_dead_run_is_held_first(tmp_path: Path, nursery: Nursery) -> None:
    with scripted(tmp_path, sync_mode="insert") as made:
        made.put((1, "a", 1))
        made.http.expect(["kill_applied"])  # type: ignore[attr-defined]
        made.http.meet(nursery.begin(tmp_path, made.http.url, sync={"sync_mode": "insert"}))  # type: ignore[attr-defined]
        assert nursery.end().killed
        made.http.expect([])  # type: ignore[attr-defined]
        with pytest.raises(ConfigurationError, match="holds this insert"):
            forget(made, 1)
        made.run()
        assert made.writes() == 1


def forget_killed(made: World, nursery: Nursery, moment: int) -> bool:
    """Forget Zoë in a process that dies at this moment; false: it came to its end."""
    nursery.begin(
        made.project.base, made.http.url, config={"batch_rows": 2}, sync=PEOPLE, forget={"id": ZOE}, die_at=moment
    )
    return nursery.end().killed


def _killed_at(folder: Path, nursery: Nursery, moment: int) -> bool:
    with world(folder, RULES, config={"batch_rows": 2}, **PEOPLE) as made:
        live(made)
        before = memory(made)
        killed = forget_killed(made, nursery, moment)
        with Service(made.project) as service:
            (done,) = service.forget({"things": {"id": ZOE}}, actor="me")
        assert traces(made) == []
        assert memory(made) == before
        assert done.sync.slug == "things"
        return killed


@pytest.mark.parametrize("moment", [14, 22])
def test_killed_it_is_finished_by_the_next(tmp_path: Path, nursery: Nursery, moment: int) -> None:
    assert _killed_at(tmp_path, nursery, moment)


@pytest.mark.long
def test_killed_at_any_moment_it_is_finished_by_the_next(tmp_path: Path, nursery: Nursery) -> None:
    for moment in itertools.count():
        folder = tmp_path / str(moment)
        folder.mkdir()
        if not _killed_at(folder, nursery, moment):
            break
    assert moment > 20


def everything(made: World) -> dict[str, list[Any]]:
    """All that is kept of each key, place by place: rows of the store, of the snapshot and of the history."""
    store, state, sync_id = made.service.store, made.service.state, made.project.syncs[0].id
    kept: dict[str, list[Any]] = {}
    with store.engine.connect() as conn:
        for table in (dead_letters, suspects, acceptances, rearmed_keys):
            for row in conn.execute(select(table).order_by(table.c.id)).mappings():
                kept.setdefault(row["key"], []).append((table.name, dict(row)))
    pointer = store.snapshots.pointer(sync_id)
    files = {file.run_id: state.local_path(file.name, file.checksum) for file in store.history.files(sync_id)}
    if pointer is not None and pointer.generation is not None:
        files["snapshot"] = state.local_path(pointer.generation, pointer.checksum or "")
        assert pointer.rows == duckdb.sql(f"SELECT count(*) FROM '{files['snapshot']}'").fetchall()[0][0]
    for name, path in sorted(files.items()):
        for row in duckdb.sql(f"SELECT * FROM '{path}' ORDER BY key").to_arrow_table().to_pylist():
            kept.setdefault(row["key"], []).append((name, row))
    return kept


def masked(kept: dict[str, list[Any]], who: str) -> dict[str, list[Any]]:
    """The same, with this key taken out of messages that name it."""
    mask = KeyMask([{who}])
    return {
        key: [(name, {**row, "message": mask(row["message"])} if "message" in row else row) for name, row in rows]
        for key, rows in kept.items()
    }


NAMES = st.sampled_from([ZOE, ADA, "bob", "Bob", "a", "12"])
ROUNDS = st.lists(st.dictionaries(NAMES, st.sampled_from([-2, -1, 1, 2])), min_size=1, max_size=4)


def _others_stay(rounds: list[dict[str, float]], who: str) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        world(Path(folder), RULES, config={"batch_rows": 2}, sync_mode="mirror", **PEOPLE) as made,
    ):
        for scores in rounds:
            made.sql("DELETE FROM t")
            made.put(*((number, name, score) for number, (name, score) in enumerate(scores.items())))
            made.run(overrides=ALL_GUARDS)
        before = everything(made)
        forget(made, who)
        expected = masked({key: rows for key, rows in before.items() if key != f'["{who}"]'}, who)
        assert everything(made) == expected


def test_all_others_stay_as_they_were() -> None:
    _others_stay([{ZOE: 1, ADA: -1, "bob": 1, "Bob": -1}, {ZOE: -1, ADA: 2}, {ADA: 2}], ZOE)
    _others_stay([{"a": 1, "bob": -1, "Bob": -1, "12": 1}, {"a": -1, "12": 2, "Bob": 1}], "bob")


@pytest.mark.long
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(rounds=ROUNDS, who=NAMES)
def test_all_others_stay_as_they_were_in_any_history(rounds: list[dict[str, float]], who: str) -> None:
    _others_stay(rounds, who)
