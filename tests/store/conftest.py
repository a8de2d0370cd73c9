"""A store on each database that it can be kept in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dagster_retl.store.schema import metadata
from dagster_retl.store.store import Store


def _postgres_database(server: Any) -> str:
    name = f"store_{secrets.token_hex(6)}"  # a fixture of the session may be made again, for another parameter
    with psycopg.connect(server.get_uri(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return str(server.get_uri(name))


@pytest.fixture(scope="session")
def _bare_database(_postgres_server: Any) -> str:
    return _postgres_database(_postgres_server)


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'retl.db'}"
    url = str(request.getfixturevalue("_bare_database"))
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("DROP SCHEMA IF EXISTS retl CASCADE")
    return url


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the store that tests share, one after the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('store') / 'retl.db'}"
    return _postgres_database(request.getfixturevalue("_postgres_server"))


@pytest.fixture(scope="session")
def _shared_store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


@pytest.fixture
def store(_shared_store: Store) -> Store:
    """An empty store: making one for each test would take most of the time."""
    with _shared_store.begin() as conn:
        for table in metadata.sorted_tables:
            if table.name != "store_info":
                conn.execute(table.delete())
    return _shared_store
