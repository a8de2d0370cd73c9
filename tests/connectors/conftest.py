"""A database per test, of each kind that the sql connector writes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sql_databases import DuckPlace, EnginePlace, Place, new_file

MARIADB = pytest.param("mariadb", marks=pytest.mark.mariadb)
ENGINES = ("sqlite", "postgres", MARIADB)


def _place(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    if kind == "duckdb":
        return DuckPlace(new_file("duckdb", folder))
    if kind == "sqlite":
        return EnginePlace(new_file("sqlite", folder))
    return EnginePlace(request.getfixturevalue("emptied_postgres_url" if kind == "postgres" else "mariadb_url"))


@pytest.fixture(scope="session")
def _one_postgres_url(_postgres_server: Any) -> str:
    with psycopg.connect(_postgres_server.get_uri(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE sql_connector")
    uri: str = _postgres_server.get_uri("sql_connector")
    return uri.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def emptied_postgres_url(_one_postgres_url: str) -> str:
    """The URL of an empty Postgres database: one for all tests here, as making one takes a third of a second."""
    with psycopg.connect(_one_postgres_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS crm CASCADE")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute("GRANT ALL ON SCHEMA public TO public")
    return _one_postgres_url


@pytest.fixture(params=("duckdb", *ENGINES))
def sql_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty database of each kind in turn, and a connector to it."""
    with _place(request.param, request, tmp_path) as place:
        yield place


@pytest.fixture
def postgres_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with _place("postgres", request, tmp_path) as place:
        yield place


@pytest.fixture
def mariadb_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with _place("mariadb", request, tmp_path) as place:
        yield place


@pytest.fixture
def sqlite_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with _place("sqlite", request, tmp_path) as place:
        yield place


@pytest.fixture
def duckdb_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with _place("duckdb", request, tmp_path) as place:
        yield place
