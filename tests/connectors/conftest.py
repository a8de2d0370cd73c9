"""A database per test, of each kind that the sql connector writes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sql_databases import DuckPlace, EnginePlace, Place, new_file

MARIADB = pytest.param("mariadb", marks=pytest.mark.mariadb)
ENGINES = ("sqlite", "postgres", MARIADB)


def _place(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    if kind == "duckdb":
        return DuckPlace(new_file("duckdb", folder))
    if kind == "sqlite":
        return EnginePlace(new_file("sqlite", folder))
    return EnginePlace(request.getfixturevalue(f"{kind}_url"))


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
