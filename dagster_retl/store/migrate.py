"""The version of the store's tables: created when empty, upgraded when older, refused when newer."""

from __future__ import annotations

import secrets

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, select, text

from dagster_retl.errors import StoreError
from dagster_retl.store.clock import to_text
from dagster_retl.store.database import SCHEMA, Database
from dagster_retl.store.schema import store_info

VERSION_TABLE = "retl_version"
"""Where the revision is kept; not Alembic's usual name, which other programs' databases have too."""

SCRIPTS = "dagster_retl.store:migrations"
"""The package that holds the revisions, wherever it is installed."""

_LOCK = 0x7265746C  # "retl": the advisory lock that creators and upgraders take on Postgres


def ensure_schema(database: Database, *, upgrade: bool | None, scripts: str = SCRIPTS) -> None:
    """Bring the tables to the revision of this code.

    upgrade: what to do about an older store; None: upgrade a SQLite file, refuse a Postgres
    schema, which other machines may be using. scripts: where Alembic finds the revisions. Raises
    `StoreError`.
    """
    config = Config()
    config.set_main_option("script_location", scripts)
    with database.read() as conn:
        if revision(conn) == ScriptDirectory.from_config(config).get_current_head():
            return
    with database.begin() as conn:
        _lock(conn)
        _bring_up(conn, database, config, upgrade=database.sqlite if upgrade is None else upgrade)


def revision(conn: Connection) -> str | None:
    """The revision of the store's tables; None for a database without them."""
    return MigrationContext.configure(conn, opts={"version_table": VERSION_TABLE}).get_current_revision()


def store_uuid(conn: Connection) -> str:
    """The store's own name, made with it."""
    return str(conn.execute(select(store_info.c.uuid)).scalar_one())


def _lock(conn: Connection) -> None:
    """Let one process at a time create or upgrade; on SQLite, `BEGIN IMMEDIATE` already does."""
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        conn.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))


def _bring_up(conn: Connection, database: Database, config: Config, *, upgrade: bool) -> None:
    scripts = ScriptDirectory.from_config(config)
    current, head = revision(conn), scripts.get_current_head()  # again: another process may have been faster
    if current == head:
        return
    if current is None:
        _refuse_foreign(conn, database)
    elif current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(
            f"the store {database.display} has revision {current}, which is newer than this version's {head}",
            hint="Upgrade dagster-retl on this machine to the version that upgraded the store.",
        )
    elif not upgrade:
        raise StoreError(
            f"the store {database.display} has revision {current}; this version needs {head}",
            hint="Run `retl db upgrade` (it only adds tables and columns, other machines can go on).",
        )
    config.attributes["connection"] = conn
    command.upgrade(config, "head")
    if current is None:
        created_at = to_text(database.now(conn))
        conn.execute(insert(store_info).values(id=1, uuid=secrets.token_hex(16), created_at=created_at))


def _refuse_foreign(conn: Connection, database: Database) -> None:
    tables = inspect(conn).get_table_names()
    if tables:
        raise StoreError(
            f"{database.display} belongs to another program: it has the table {tables[0]!r} and no {VERSION_TABLE!r}",
            hint="Give the store a database of its own; never Dagster's.",
        )
