"""What goes wrong in a database, and what the sql connector makes of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa
from sql_databases import Place, codes, make_connector

from dagster_retl.connectors.sql_errors import Phase, failure
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.testing.rows import make_batch


class CuttingProxy:
    """A loopback TCP proxy to a Postgres socket that cuts the connection when it sees `word` for the n-th time.

    deliver: whether the server still gets what holds the word.
    """

    def __init__(self, target: str, word: bytes, *, at: int = 1, deliver: bool = False) -> None:
        self._target, self._word, self._left, self._deliver = target, word, at, deliver
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> CuttingProxy:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                for source, sink, watched in ((client, server, True), (server, client, False)):
                    thread = threading.Thread(target=self._pump, args=(source, sink, watched))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, watched: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if watched and self._cuts(data):
                    if self._deliver:
                        sink.sendall(data)
                        sink.recv(1, socket.MSG_PEEK)
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _cuts(self, data: bytes) -> bool:
        self._left -= self._word in data
        return self._left == 0 and self._word in data


@contextlib.contextmanager
def _cut(place: Place, word: bytes, *, at: int = 1) -> Iterator[Place]:
    """The place, reached through a proxy that cuts."""
    url = sa.make_url(place.url)
    folder = url.query["host"]
    with CuttingProxy(f"{folder}/.s.PGSQL.5432", word, at=at) as proxy:
        place.connector.close()
        place.connector = make_connector(
            str(url.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(False)), timeout=5
        )
        try:
            yield place
        finally:
            place.connector.close()


ROWS = [{"id": number, "name": "x"} for number in range(4)]
TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(40) NOT NULL)"


def test_a_connection_lost_before_commit_applied_nothing(postgres_place: Place) -> None:
    postgres_place.run(TABLE)
    with _cut(postgres_place, b'INSERT INTO "t"') as place:
        with pytest.raises(DestinationError) as caught:
            place.write("insert", ROWS)
        assert caught.value.code is ErrorCode.DESTINATION_UNAVAILABLE
        assert not caught.value.ambiguous
        assert place.ask("SELECT * FROM t") == []
        place.write_all("insert", ROWS)


def test_a_connection_lost_during_commit_is_ambiguous(postgres_place: Place) -> None:
    postgres_place.run(TABLE)
    with _cut(postgres_place, b"COMMIT", at=2) as place:  # the first one ends the session's settings
        with pytest.raises(DestinationError) as caught:
            place.write("insert", ROWS)
        assert caught.value.code is ErrorCode.DESTINATION_UNAVAILABLE
        assert caught.value.ambiguous


def test_what_was_committed_before_a_loss_stays_answered(postgres_place: Place) -> None:
    postgres_place.run(TABLE)
    rows: list[dict[str, Any]] = [*ROWS[:2], {"id": 2, "name": None}, ROWS[3]]
    with _cut(postgres_place, b"COMMIT", at=3) as place:
        results = place.write("insert", rows)
        assert codes(results) == [None, None, ErrorCode.MISSING_REQUIRED_FIELD, ErrorCode.UNKNOWN_OUTCOME]


def test_a_constraint_checked_at_commit_finds_its_row(postgres_place: Place) -> None:
    postgres_place.run(
        "CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
    )
    rows: list[dict[str, Any]] = [{"id": 1, "parent": 2}, {"id": 2, "parent": None}, {"id": 3, "parent": 9}]
    results = postgres_place.write("upsert", [rows[1], rows[0], rows[2]])
    assert codes(results) == [None, None, ErrorCode.DESTINATION_VALIDATION]
    assert postgres_place.ask("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_messages_hold_no_row(postgres_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    postgres_place.run("CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL, card text, age int CHECK (age > 0))")
    postgres_place.write_all("insert", [{"id": 77777, "name": "Ada"}])
    rows: list[dict[str, Any]] = [
        {"id": 77777, "name": "Ada", "card": "4111-1111"},
        {"id": 2, "name": None, "card": "4111-1111"},
        {"id": 3, "name": "x", "card": "4111-1111", "age": -5},
    ]
    faults = [result.fault for result in postgres_place.write("insert", rows)]
    assert [fault.vendor_code for fault in faults if fault] == ["23505", "23502", "23514"]
    text = str(faults)
    assert "4111" not in text
    assert "77777" not in text
    assert "t_age_check" in text
    assert "parameters" not in text
    assert caplog.records == [], "each refusal is said once, in its result"


def test_what_a_trigger_raises_is_a_refusal(postgres_place: Place) -> None:
    postgres_place.run(
        TABLE,
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.name = 'bad' THEN RAISE 'no bad names'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    )
    results = postgres_place.write("upsert", [{"id": 1, "name": "bad"}, {"id": 2, "name": "good"}])
    assert codes(results) == [ErrorCode.DESTINATION_VALIDATION, None]
    assert results[0].fault is not None
    assert results[0].fault.message == "no bad names"


def test_a_required_column_that_a_trigger_fills(postgres_place: Place) -> None:
    postgres_place.run(
        TABLE,
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name = 'given'; RETURN NEW; END $$",
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
    )
    postgres_place.write_all("upsert", [{"id": 1}, {"id": 2}])
    assert postgres_place.ask("SELECT name FROM t") == [("given",), ("given",)]


def _as_user(place: Place, user: str, password: str | None) -> Any:
    url = sa.make_url(place.url).set(username=user, password=password)
    return make_connector(url.render_as_string(False), timeout=5)


def test_no_right_to_write(postgres_place: Place) -> None:
    postgres_place.run(TABLE, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN", "GRANT SELECT ON t TO reader")
    connector = _as_user(postgres_place, "reader", None)
    with pytest.raises(DestinationError) as caught:
        connector.write(make_batch(ROWS, object_name="t"))
    assert (caught.value.code, caught.value.vendor_code) == (ErrorCode.PERMISSION, "42501")
    connector.close()
    postgres_place.run("DROP OWNED BY reader", "DROP ROLE reader")


def _refusal(connector: Any) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        connector.check()
    connector.close()
    assert "s3cret" not in str(caught.value)
    return caught.value


def test_wrong_credentials_of_postgres(postgres_place: Place) -> None:
    assert _refusal(_as_user(postgres_place, "nobody", "s3cret")).code is ErrorCode.AUTH


@pytest.mark.mariadb
def test_wrong_credentials_of_mariadb(mariadb_place: Place) -> None:
    refusal = _refusal(_as_user(mariadb_place, "nobody", "s3cret"))
    assert (refusal.code, refusal.vendor_code) == (ErrorCode.AUTH, "1045")


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_nobody_listens(dialect: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    refusal = _refusal(make_connector(f"{dialect}://u:s3cret@127.0.0.1:{port}/d", timeout=2))
    assert refusal.code is ErrorCode.DESTINATION_DOWN
    assert f"127.0.0.1:{port}" in str(refusal)


def test_no_such_database(postgres_place: Place) -> None:
    url = sa.make_url(postgres_place.url).set(database="absent").render_as_string(False)
    assert _refusal(make_connector(url)).code is ErrorCode.CONFIGURATION


@pytest.mark.parametrize("kind", ["postgres", "sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def test_a_lock_that_somebody_holds(kind: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(f"{kind}_place")
    place.run(TABLE, "INSERT INTO t VALUES (1, 'old')")
    impatient = make_connector(place.url, timeout=2 if kind == "mariadb" else 0.4)
    engine = sa.create_engine(place.url, poolclass=sa.NullPool)
    with engine.connect() as other:
        other.exec_driver_sql("UPDATE t SET name = 'held' WHERE id = 1")
        with pytest.raises(DestinationError) as caught:
            impatient.write(make_batch(ROWS, object_name="t"))
        assert caught.value.code is ErrorCode.DESTINATION_LOCKED
        assert not caught.value.ambiguous
        assert caught.value.vendor_code
    assert place.ask("SELECT * FROM t") == [(1, "old")]
    assert codes(impatient.write(make_batch(ROWS, object_name="t"))) == [None] * 4
    impatient.close()


def test_a_conflict_of_transactions_in_duckdb(duckdb_place: Place) -> None:
    duckdb_place.run(TABLE, "INSERT INTO t VALUES (1, 'old')")
    duckdb_place.connector.check()
    with contextlib.closing(duckdb.connect(duckdb_place.url.removeprefix("duckdb:///"))) as other:
        other.begin()
        other.execute("UPDATE t SET name = 'held' WHERE id = 1")
        with pytest.raises(DestinationError) as caught:
            duckdb_place.write("upsert", ROWS)
        assert caught.value.code is ErrorCode.DESTINATION_LOCKED
        other.rollback()
    duckdb_place.write_all("upsert", ROWS)


def test_what_is_no_database(tmp_path: Path) -> None:
    for dialect in ("sqlite", "duckdb"):
        (tmp_path / dialect).write_text("a letter to my aunt, longer than the header of a file" * 99)
        assert _refusal(make_connector(f"{dialect}:///{tmp_path}/{dialect}")).code is ErrorCode.DESTINATION_DOWN


def test_words_in_a_value_do_not_decide() -> None:
    error = duckdb.ConversionException("Conversion Error: Could not convert string 'on conflict password' to INT32")
    assert failure(error, Phase.EXECUTE, "duckdb:///f").code is ErrorCode.TYPE_COERCION


def test_only_a_commit_is_ambiguous() -> None:
    lost = duckdb.IOException("IO Error: the disk went away")
    assert not failure(lost, Phase.EXECUTE, "d").ambiguous
    assert failure(lost, Phase.COMMIT, "d").ambiguous
    assert not failure(duckdb.ConstraintException("Constraint Error: Duplicate key"), Phase.COMMIT, "d").ambiguous


def test_several_threads_write_at_once(sql_place: Place) -> None:
    sql_place.run(TABLE)
    sql_place.connector.key_form("t")
    results: list[Any] = []

    def write(start: int) -> None:
        rows = [{"id": start + number, "name": "x"} for number in range(50)]
        results.extend(sql_place.write("upsert", rows))

    threads = [threading.Thread(target=write, args=(start * 100,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes(results) == [None] * 200
    assert sql_place.ask("SELECT count(*) FROM t") == [(200,)]
