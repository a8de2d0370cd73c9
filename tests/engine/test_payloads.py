"""Payloads of dead letters: kept on request, never in the clear."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from worlds import World, world

from dagster_retl.engine.sealing import Sealer
from dagster_retl.errors import ConfigurationError, NotFoundError
from dagster_retl.model.project import DeadLetterSettings, Retention
from dagster_retl.model.runs import DeadLetter
from dagster_retl.service import Service
from dagster_retl.testing.fake_http import Rules

KEY, OTHER_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
SECRET = "Blanche Quux-Smith 0x7f"
RULES = Rules(refuse=lambda record: "no" if record["score"] < 0 else None)


def keeping(made: World, *, payloads: bool = True, key: str | None = KEY, **settings: Any) -> World:
    """The same world, where payloads are kept."""
    changes = {"dead_letters": DeadLetterSettings(payloads=payloads, payload_key=key), **settings}
    project = made.project.model_copy(update=changes)
    return World(project, Service(project), made.http, made.warehouse)


def letter(made: World, key: object = 1) -> DeadLetter:
    letters = [*made.service.dead_letters("things"), *made.service.dead_letters("things", resolved=True)]
    return next(each for each in letters if each.record_keys == {"id": key})


def stored(made: World) -> list[bytes | None]:
    made.service.store.now()
    with contextlib.closing(sqlite3.connect(made.project.base / "retl.db")) as connection:
        return [row[0] for row in connection.execute("SELECT payload FROM dead_letters ORDER BY key, id")]


def kept_in_the_clear(made: World) -> list[str]:
    """The files of store and state that hold the value."""
    files = [*made.project.base.glob("retl.db*"), *(made.project.base / "state").rglob("*")]
    return [file.name for file in files if file.is_file() and SECRET.encode() in file.read_bytes()]


def test_nothing_of_a_row_is_kept_unless_asked(tmp_path: Path) -> None:
    with world(tmp_path, RULES) as made:
        made.put((1, SECRET, -1), (2, SECRET, 1))
        made.run()
        assert stored(made) == [None]
        assert made.service.payload(letter(made).id) is None
        assert kept_in_the_clear(made) == []
        with_key = keeping(made, payloads=False)
        with_key.run()
        assert stored(made) == [None]


def test_what_was_refused_is_kept_encrypted(tmp_path: Path) -> None:
    with world(tmp_path, RULES) as made:
        kept = keeping(made)
        made.put((1, SECRET, -1.25), (2, SECRET, 1))
        assert kept.run().run.counters.failed == 1
        assert kept_in_the_clear(made) == []
        payload = kept.service.payload(letter(made).id)
        assert payload == b'{"id":1,"name":"' + SECRET.encode() + b'","score":-1.25}'
        (sealed,) = stored(made)
        assert sealed is not None
        assert Fernet(KEY).decrypt(sealed) == payload


def test_the_last_refusal_counts(tmp_path: Path) -> None:
    mappings = [
        {"source": "id", "destination": "id", "key": True},
        {"source": "CAST(name AS INTEGER)", "destination": "name"},
        {"source": "score", "destination": "score"},
    ]
    with world(tmp_path, RULES, field_mappings=mappings) as made:
        kept = keeping(made)
        for number in (1, 2):
            made.put((1, str(number), -number))
            kept.run()
            payload = kept.service.payload(letter(made).id)
            assert payload is not None
            assert orjson.loads(payload) == {"id": 1, "name": number, "score": -number}
        made.put((1, "no number", -3))
        kept.run()
        assert letter(made).error_code == "MAPPING_ERROR"
        assert kept.service.payload(letter(made).id) is None


def test_keys_can_be_changed(tmp_path: Path) -> None:
    with world(tmp_path, RULES) as made:
        made.put((1, "a", -1))
        keeping(made).run()
        made.put((2, "b", -1))
        both = keeping(made, key=f"{OTHER_KEY}, {KEY}")
        both.run(keys=({"id": 2},))
        one, two = letter(made, 1).id, letter(made, 2).id
        assert all(both.service.payload(each) for each in (one, two))
        new = keeping(made, key=OTHER_KEY)
        assert new.service.payload(two) is not None
        with pytest.raises(ConfigurationError, match="not the key") as caught:
            new.service.payload(one)
        assert "earlier key" in (caught.value.hint or "")
        with pytest.raises(ConfigurationError, match="has no key"):
            made.service.payload(one)
        with pytest.raises(NotFoundError):
            new.service.payload("retl_dlq_nothing")


def test_it_goes_with_its_letter_and_from_silenced_ones(tmp_path: Path) -> None:
    with world(tmp_path, RULES) as made:
        kept = keeping(made, retention=Retention(resolved_dead_letters="1d"))
        made.put((1, "a", -1), (2, "b", -1), (3, "c", -1))
        kept.run()
        made.service.resolve([letter(made, 1).id], "skipped", actor="me")
        made.put((2, "b", 1))
        kept.run()
        assert [payload is not None for payload in stored(made)] == [True, True, True]
        with made.service.store.begin() as conn:
            old = "'2020-01-01T00:00:00.000000Z'"
            conn.execute(text(f"UPDATE dead_letters SET first_seen_at = {old}"))
            conn.execute(text(f"UPDATE dead_letters SET resolved_at = {old} WHERE resolved_at IS NOT NULL"))
        kept.run()
        assert [payload is not None for payload in stored(made)] == [False, True]
        assert letter(made, 1).silenced
        assert not letter(made, 3).resolved


def test_it_is_forgotten(tmp_path: Path) -> None:
    with world(tmp_path, RULES) as made:
        kept = keeping(made)
        made.put((1, "a", -1), (2, "b", -1))
        kept.run()
        (forgotten, _) = stored(made)
        assert forgotten is not None
        kept.service.forget({"things": {"id": 1}}, actor="me")
        assert len(stored(made)) == 1
        store = (tmp_path / "retl.db").read_bytes()
        assert forgotten not in store
        assert all(forgotten[start : start + 40] not in store for start in range(20, len(forgotten) - 40, 40))


@given(st.binary(max_size=200))
def test_sealing_is_undone(document: bytes) -> None:
    sealed = Sealer(KEY).seal(document)
    assert Sealer(f"{OTHER_KEY},{KEY}").unseal(sealed) == document
    assert len(document) < 8 or document not in sealed


def test_the_key_is_in_no_repr(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        assert KEY not in repr(keeping(made).project)
