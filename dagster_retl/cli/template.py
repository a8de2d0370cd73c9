"""What `retl init` writes: a project that runs at once, and says how to make it one's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import duckdb

from dagster_retl.errors import ConfigurationError

PROJECT = """\
# A retl project: what is read from the warehouse, where it goes, and when.
#
#   retl check             can everything be reached, is everything understood?
#   retl plan customers    what would be written, with examples
#   retl run customers     write it; run it again, and only what changed is sent
#   retl up                Dagster's UI and the schedules
#
# `${NAME}` and `${NAME:-default}` come from the environment: the place for passwords and tokens.
version: 1
project: my_project

# Where rows come from. Any SQLAlchemy URL; Postgres, for example:
#   url: "postgresql://reader:${WAREHOUSE_PASSWORD}@db.example.com/analytics"
warehouses:
  default:
    url: duckdb:///example/warehouse.duckdb

# Where they go. `retl connectors` lists the kinds, `retl connectors http` the settings of one.
destinations:
  crm_tables:
    connector: sql
    config: {url: "sqlite:///example/crm.sqlite"}

  # A service of your own that takes JSON:
  # my_service:
  #   connector: http
  #   config:
  #     url: "https://api.example.com/v1/{object}"
  #     auth: {type: bearer, token: "${MY_SERVICE_TOKEN}"}
  #     batch_rows: 100
  #     results: {errors_path: errors, index_field: index}    # where its answer names rows that it refused

# What is sent. The name is the sync's for good: its history hangs on it.
syncs:
  - name: customers
    source_query: SELECT id, name, email, plan, revenue FROM customers WHERE active
    destination_id: crm_tables
    object_name: contacts                 # a table here; an object such as Account in a CRM
    sync_mode: upsert                     # upsert, insert, update, delete, or mirror (upsert, and delete what left)
    key: external_id
    field_mappings:                       # destination field: column, or a SQL expression
      external_id: id
      full_name: trim(name)
      email: lower(email)
      plan: {source: plan, default: free}
      revenue: revenue
    # schedule: "0 * * * *"               # every hour, in UTC; without one it runs when you say so
"""

_IGNORED = ".retl/\n.dagster/\n"

_CUSTOMERS = """
CREATE TABLE customers AS SELECT * FROM (VALUES
    (1, 'Ada Lovelace ', 'Ada@Example.com', 'team', 1200.50::DECIMAL(12, 2), true),
    (2, 'Łukasz Żak', 'lukasz@example.com', NULL, NULL, true),
    (3, '山田 花子', 'hanako@example.com', 'team', 880.00, true),
    (4, 'Grace Hopper', 'grace@example.com', 'enterprise', 54000.25, true),
    (5, 'نور الهدى', 'nour@example.com', NULL, 12.75, true),
    (6, 'Somebody who left', 'gone@example.com', 'team', 10.00, false)
) AS t(id, name, email, plan, revenue, active)
"""

_CONTACTS = """
CREATE TABLE contacts (
    external_id INTEGER PRIMARY KEY, full_name TEXT NOT NULL, email TEXT, plan TEXT NOT NULL, revenue NUMERIC
)
"""


def _write_project(path: Path) -> None:
    path.write_text(PROJECT, encoding="utf-8")


def _write_ignored(path: Path) -> None:
    path.write_text(_IGNORED, encoding="utf-8")


def _write_warehouse(path: Path) -> None:
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(_CUSTOMERS)


def _write_crm(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(_CONTACTS)


_FILES: Mapping[str, Callable[[Path], None]] = {
    "retl.yaml": _write_project,
    "example/warehouse.duckdb": _write_warehouse,
    "example/crm.sqlite": _write_crm,
    ".gitignore": _write_ignored,
}
_MAY_EXIST = frozenset({".gitignore"})


def write_project(folder: Path) -> list[Path]:
    """Write the project's files into a folder, made where it is missing; returns them.

    Raises `ConfigurationError`, before anything is written, when one of them exists.
    """
    existing = [name for name in _FILES if (folder / name).exists()]
    in_the_way = [name for name in existing if name not in _MAY_EXIST]
    if in_the_way:
        raise ConfigurationError(
            f"{folder / in_the_way[0]} exists already; nothing was written",
            hint="`retl init FOLDER` writes a project elsewhere.",
        )
    written = [folder / name for name in _FILES if name not in existing]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        _FILES[path.relative_to(folder).as_posix()](path)
    return written
