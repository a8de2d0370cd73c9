"""Opening a store: creation, versions, what is refused, and how a SQLite store is set up."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from dagster_retl.errors import ConfigurationError, NotFoundError, StoreError
from dagster_retl.store import migrations
from dagster_retl.store.database import Database
from dagster_retl.store.migrate import SCRIPTS, VERSION_TABLE, ensure_schema
from dagster_retl.store.schema import metadata, notices
from dagster_retl.store.store import Store

LATEST = ScriptDirectory(Path(migrations.__file__).parent).get_current_head()

NEXT_REVISION = f"""
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = "{LATEST}"
def upgrade():
    op.add_column("notices", sa.Column("channel", sa.Text()))
"""


@pytest.fixture
def next_scripts(tmp_path: Path) -> str:
    """The migrations of a later version."""
    folder = tmp_path / "next"
    shutil.copytree(Path(migrations.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "v9999_next.py").write_text(NEXT_REVISION)
    return str(folder)


def bring_up(url: str, scripts: str, *, upgrade: bool | None = None) -> None:
    database = Database(url)
    try:
        ensure_schema(database, upgrade=upgrade, scripts=scripts)
    finally:
        database.close()


def test_a_store_is_created_on_first_use_and_keeps_its_name(new_url: str) -> None:
    with Store.open(new_url) as first:
        uuid = first.uuid
        assert first.revision() == LATEST
    with Store.open(new_url) as second:
        assert second.uuid == uuid
        assert len(uuid) == 32


def test_migrations_make_the_declared_tables(store: Store) -> None:
    with store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        declared = {index.name for table in metadata.tables.values() for index in table.indexes}
        made = {index["name"] for name in metadata.tables for index in inspect(conn).get_indexes(name)}
    assert made == declared


def test_everything_on_postgres_is_in_its_own_schema(postgres_url: str) -> None:
    with Store.open(postgres_url) as store, store.engine.connect() as conn:
        schemas = conn.scalars(
            text(
                "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
        )
        assert list(schemas) == ["retl"]


OPEN_SCRIPT = """
import sys
from dagster_retl.store.store import Store
print("ready", flush=True)
sys.stdin.readline()
print(Store.open(sys.argv[1]).uuid)
"""


def test_six_processes_create_one_store(new_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", OPEN_SCRIPT, new_url]
    pipe = subprocess.PIPE
    openers = [subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(6)]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    answers = [opener.communicate(timeout=60) for opener in openers]
    # Standard error would hold a failed start, and any connection that nobody closed.
    assert [errors for _, errors in answers] == [""] * 6
    assert [opener.returncode for opener in openers] == [0] * 6
    assert len({uuid for uuid, _ in answers}) == 1


def test_a_newer_store_is_refused_with_both_revisions(new_url: str, next_scripts: str) -> None:
    Store.open(new_url).close()
    bring_up(new_url, next_scripts, upgrade=True)
    with pytest.raises(StoreError, match=rf"revision 9999.*newer.*{LATEST}"):
        Store.open(new_url)
    with pytest.raises(StoreError, match="newer"):
        Store.open(new_url, upgrade=True)


def test_an_older_store_is_upgraded_on_sqlite_and_refused_on_postgres(new_url: str, next_scripts: str) -> None:
    sqlite = new_url.startswith("sqlite")
    with Store.open(new_url) as store:
        with pytest.raises(StoreError, match="retl db upgrade"):
            bring_up(new_url, next_scripts, upgrade=False if sqlite else None)
        store.notices.put("kept", "open")
        bring_up(new_url, next_scripts, upgrade=None if sqlite else True)
        assert store.revision() == "9999"
        assert store.notices.get("kept") is not None  # the older code goes on with the newer tables


def test_an_upgrade_that_fails_changes_nothing(new_url: str, next_scripts: str) -> None:
    broken = Path(next_scripts) / "versions" / "v9999_next.py"
    broken.write_text(NEXT_REVISION + '    op.execute("INSERT INTO no_such_table VALUES (1)")\n')
    with Store.open(new_url) as store:
        with pytest.raises(DBAPIError, match="no_such_table"):
            bring_up(new_url, next_scripts, upgrade=True)
        with store.engine.connect() as conn:
            assert "channel" not in {column["name"] for column in inspect(conn).get_columns("notices")}
        assert store.revision() == LATEST


def test_upgrade_of_a_current_store_is_harmless(store: Store) -> None:
    assert store.upgrade() == LATEST


def test_migrations_are_found_from_the_installed_package() -> None:
    assert SCRIPTS == "dagster_retl.store:migrations"
    assert (Path(migrations.__file__).parent / "env.py").exists()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="belongs to another program"):
        Store.open(f"sqlite:///{file}")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("these are notes, and not a database " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(f"sqlite:///{file}")


def test_the_store_s_folder_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be created"):
        Store.open(f"sqlite:///{tmp_path / 'file' / 'folder' / 'retl.db'}")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:hunter2@h/d", "hunter2", "a:b:hunter2"])
def test_urls_that_no_store_can_have(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Store.open(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint


def test_an_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(StoreError, match=r"someone:\*\*\*@127\.0\.0\.1:1/db cannot be used") as caught:
        Store.open("postgresql://someone:hunter2@127.0.0.1:1/db?sslkey=hunter2")
    assert "hunter2" not in str(caught.value)


def test_sqlite_is_durable_and_patient(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store, store.begin() as conn:
        settings = {
            name: conn.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 60_000}


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def write_and_fail() -> None:
        with store.begin() as conn:
            store.audit.add(conn, "somebody", "test", "x")
            store.runs.set_epoch(conn, "no such run", "e")

    with pytest.raises(NotFoundError):
        write_and_fail()
    assert store.audit.list() == []


def test_readers_are_not_held_up_by_a_writer(store: Store) -> None:
    with store.begin() as conn:
        store.audit.add(conn, "somebody", "test", "x")
        assert store.audit.list() == []
    assert [entry.subject for _, entry in store.audit.list()] == ["x"]


def test_transactions_that_read_before_they_write_take_turns(store: Store) -> None:
    store.notices.put("count", "0")

    def count() -> None:
        for _ in range(10):
            with store.begin() as conn:
                row = conn.execute(
                    select(notices.c.state).where(notices.c.key == "count").with_for_update()
                ).scalar_one()
                time.sleep(0.002)
                conn.execute(update(notices).values(state=str(int(row) + 1)))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(count) for _ in range(3)]:
            done.result(timeout=30)
    notice = store.notices.get("count")
    assert notice is not None
    assert notice.state == "30"


def test_the_server_ends_a_transaction_that_stands_still_after_many_rows(store: Store) -> None:
    """Otherwise a process that is paused there would keep its lease's row locked for as long as it sleeps."""
    if store.engine.dialect.name == "sqlite":
        pytest.skip("a file has no server")
    with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
        _stand_still(store)


def _stand_still(store: Store) -> None:
    with store.begin() as conn:
        conn.execute(text("SET LOCAL idle_in_transaction_session_timeout TO 300"))
        conn.execute(insert(notices), [_notice("a"), _notice("b")])
        time.sleep(1.5)
        conn.execute(text("SELECT 1"))


def _notice(key: str) -> dict[str, str]:
    return {"key": key, "state": "open", "detail": "{}", "notified_at": "2026-01-01T00:00:00.000000Z"}
