"""Fixtures of the command line: a shop to work in, and the bare program."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_shop import PROJECT, TOKEN, Shop, refuse
from click.testing import CliRunner, Result

from dagster_retl.cli import main
from dagster_retl.testing import FakeHttpService, Rules


@pytest.fixture
def service() -> Iterator[FakeHttpService]:
    with FakeHttpService(Rules(token=TOKEN, refuse=refuse)) as running:
        yield running


@pytest.fixture
def shop(tmp_path: Path, service: FakeHttpService, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Three people, one of whom has no e-mail address to speak of."""
    for variable in ("RETL_PROJECT", "RETL_STORE", "RETL_STATE", "RETL_WRITES", "DAGSTER_HOME"):
        monkeypatch.delenv(variable, raising=False)
    text = PROJECT.format(folder=tmp_path, service=service.url, token=TOKEN)
    (tmp_path / "retl.yaml").write_text(text, encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "ops.sqlite")) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT)")
        connection.execute("CREATE TABLE seats (region TEXT, number INTEGER, person INTEGER, UNIQUE (region, number))")
    built = Shop(tmp_path, service, CliRunner())
    built.warehouse(
        "CREATE TABLE people AS SELECT * FROM (VALUES (1, 'Ada', 'ada@example.com'), (2, 'Zoë', 'nowhere'),"
        " (9007199254740993, '山田 花子', NULL)) AS t(id, name, email)"
    )
    built.warehouse("CREATE TABLE seats AS SELECT * FROM (VALUES ('EU', 1, 7), ('EU', 2, 8)) AS t(region, number, id)")
    return built


@pytest.fixture
def call_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `retl …` in a folder, without `--project`."""

    def call(folder: Path, *arguments: str) -> Result:
        monkeypatch.delenv("RETL_PROJECT", raising=False)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.chdir(folder)
        return CliRunner().invoke(main, list(arguments))

    return call
