"""Runs of one partition: which entries are theirs, and which rows belong to a later window (PROTOCOL 20).

A run of a partition knows nothing of keys that it did not read, unless they lie in its partition. A row that a later
window has seen too, accepted or not, is an older version of it.
"""

from __future__ import annotations

import duckdb

from dagster_retl.changes.shortcut import count_rows
from dagster_retl.changes.snapshot import literal
from dagster_retl.model.partitions import Partition

_CLAIMS = ("snapshot", "letters", "suspects", "silenced")


def in_partition(partition: Partition | None, alias: str | None = None) -> str:
    """Whether an entry is of the part of the query that was read: SQL over its column `partition`."""
    column = f"{alias}.partition" if alias else "partition"
    return "TRUE" if partition is None else f"{column} = {literal(partition.identity)}"


def find_later(connection: duckdb.DuckDBPyConnection, partition: Partition | None) -> None:
    """Make `later`: the keys that a later window of time has seen. Fixed keys follow no order."""
    if partition is None or partition.until is None:
        connection.execute("CREATE OR REPLACE TABLE later (key VARCHAR)")
        return
    later = f"partition NOT LIKE '=%' AND split_part(partition, '/', 1) >= {literal(partition.until)}"
    claims = " UNION ".join(f"SELECT key FROM {table} WHERE {later}" for table in _CLAIMS)
    connection.execute(f"CREATE OR REPLACE TABLE later AS {claims}")


def find_moved(connection: duckdb.DuckDBPyConnection, partition: Partition | None) -> bool:
    """Make `moved`: the keys that were read, whatever became of their rows, and lie elsewhere so far.

    Whether there are any.
    """
    if partition is None:
        return False
    connection.execute(f"""
        CREATE OR REPLACE TABLE moved AS
        SELECT p.key FROM snapshot p
        WHERE p.partition IS DISTINCT FROM {literal(partition.identity)}
            AND p.key IN (SELECT key FROM staged) AND p.key NOT IN (SELECT key FROM later)
    """)
    return count_rows(connection, "SELECT count(*) FROM moved") > 0
