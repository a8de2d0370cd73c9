"""Databases for the tests of the sql connector: looked into without the connector's own code."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import duckdb
import sqlalchemy as sa

from dagster_retl.connectors.sql import SqlConfig, SqlConnector
from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import RowResult
from dagster_retl.testing.rows import make_batch


def new_file(dialect: str, folder: Path) -> str:
    """The URL of an empty database file."""
    path = folder / f"destination.{dialect}"
    with closing(duckdb.connect(path) if dialect == "duckdb" else sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE made (n INTEGER)")
        connection.execute("DROP TABLE made")
    return f"{dialect}:///{path}"


def make_connector(url: str, **settings: Any) -> SqlConnector:
    """A connector to a URL."""
    return SqlConnector(SqlConfig.model_validate({"url": url, **settings}))


class Place(ABC):
    """A database, and a connector to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connector = make_connector(url, timeout=5)

    @property
    def dialect(self) -> str:
        return self.url.partition(":")[0].partition("+")[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connector.close()

    def quote(self, name: str) -> str:
        """An identifier, quoted by hand."""
        mark = "`" if self.dialect == "mysql" else '"'
        return mark + name.replace(mark, mark * 2) + mark

    @abstractmethod
    def run(self, *statements: str) -> None:
        """Execute statements, each committed."""

    @abstractmethod
    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""

    def write(
        self, operation: str, rows: Iterable[Mapping[str, Any]], *, table: str = "t", key: str | Sequence[str] = "id"
    ) -> list[RowResult]:
        """Write rows through the connector; each has one answer, in their order."""
        batch = make_batch(rows, operation=operation, object_name=table, key=key, wire=self.connector.spec.wire_form)
        results = self.connector.write(batch)
        assert [result.key for result in results] == [row.key for row in batch.rows]
        return results

    def write_all(self, operation: str, rows: Iterable[Mapping[str, Any]], **where: Any) -> None:
        """Write rows that all have to be accepted."""
        assert [result.fault for result in self.write(operation, rows, **where) if result.fault] == []


def codes(results: Iterable[RowResult]) -> list[ErrorCode | None]:
    """The codes of results, None where a row was accepted."""
    return [result.fault.code if result.fault else None for result in results]


class EnginePlace(Place):
    """A database that SQLAlchemy knows."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def run(self, *statements: str) -> None:
        for statement in statements:
            with self._engine.begin() as connection:
                connection.execute(sa.text(statement.replace(":", r"\:")))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql)]


class DuckPlace(Place):
    """A DuckDB file."""

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(self.url.removeprefix("duckdb:///"))

    def run(self, *statements: str) -> None:
        with closing(self._connect()) as connection:
            for statement in statements:
                connection.execute(statement)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as connection:
            return connection.execute(sql).fetchall()
