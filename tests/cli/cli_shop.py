"""A real project in a folder of its own: a DuckDB warehouse, a SQLite database, a loopback service."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from dagster_retl.cli import main
from dagster_retl.testing import FakeHttpService

TOKEN = "s3cr3t-t0ken"

PROJECT = """
warehouses: {{default: {{url: duckdb:///warehouse.duckdb}}}}
destinations:
  ops: {{connector: sql, config: {{url: "sqlite:///{folder}/ops.sqlite"}}}}
  service:
    connector: http
    config:
      url: "{service}/v1/{{object}}"
      check_url: "{service}/v1/ping"
      auth: {{type: bearer, token: "{token}"}}
      results: {{}}
      delete: {{method: POST, url: "{service}/v1/{{object}}/delete", body: array}}
syncs:
  - name: people_table
    source_query: SELECT id, name, email FROM people
    destination_id: ops
    object_name: people
    key: id
    field_mappings: {{id: id, name: name, email: email}}
  - name: people_service
    source_query: SELECT id, name, email FROM people
    destination_id: service
    object_name: people
    sync_mode: mirror
    key: id
    field_mappings: {{id: id, name: name, email: email}}
    schedule: "15 */4 * * *"
  - name: seats
    source_query: SELECT region, number, id FROM seats
    destination_id: ops
    object_name: seats
    key: [region, number]
    field_mappings: {{region: region, number: number, person: id}}
"""


@dataclass(frozen=True)
class Shop:
    """A project folder, the service that it writes to, and how to call the program there."""

    folder: Path
    service: FakeHttpService
    runner: CliRunner

    def call(self, *arguments: str) -> Result:
        """Run `retl …` in the folder."""
        return self.runner.invoke(main, ["--project", str(self.folder), *arguments])

    def document(self, *arguments: str, code: int = 0) -> Any:
        """Run `retl … --json`, which must exit with `code`, and return its one document."""
        result = self.call(*arguments, "--json")
        assert result.exit_code == code, (result.stdout, result.stderr)
        return json.loads(result.stdout)

    def warehouse(self, statement: str) -> None:
        """Change the warehouse."""
        with closing(duckdb.connect(str(self.folder / "warehouse.duckdb"))) as connection:
            connection.execute(statement)

    def table(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the operations database."""
        with closing(sqlite3.connect(self.folder / "ops.sqlite")) as connection:
            return connection.execute(query).fetchall()


def refuse(record: Any) -> str | None:
    """What the service has against a record."""
    return None if "@" in (record.get("email") or "@") else f"email {record['email']!r} is no address"


def forget_environment(patch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a project of their own."""
    for variable in ("RETL_PROJECT", "RETL_STORE", "RETL_STATE", "RETL_WRITES", "DAGSTER_HOME"):
        patch.delenv(variable, raising=False)


def build_shop(folder: Path, service: FakeHttpService) -> Shop:
    """Three people, one of whom has no e-mail address to speak of, and two seats."""
    text = PROJECT.format(folder=folder, service=service.url, token=TOKEN)
    (folder / "retl.yaml").write_text(text, encoding="utf-8")
    with closing(sqlite3.connect(folder / "ops.sqlite")) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT)")
        connection.execute("CREATE TABLE seats (region TEXT, number INTEGER, person INTEGER, UNIQUE (region, number))")
    built = Shop(folder, service, CliRunner())
    built.warehouse(
        "CREATE TABLE people AS SELECT * FROM (VALUES (1, 'Ada', 'ada@example.com'), (2, 'Zoë', 'nowhere'),"
        " (9007199254740993, '山田 花子', NULL)) AS t(id, name, email)"
    )
    built.warehouse("CREATE TABLE seats AS SELECT * FROM (VALUES ('EU', 1, 7), ('EU', 2, 8)) AS t(region, number, id)")
    return built
