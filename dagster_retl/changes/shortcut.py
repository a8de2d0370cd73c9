"""The diff's shortcut: rows that are as the snapshot has them are found by one join, and looked at no further.

It works on the tables of `changes.diff`, and makes `suspicious`, the staged rows that are looked at, and `unseen`,
the entries of the snapshot that none of the other rows is.
"""

from __future__ import annotations

import duckdb

COMPLETED = """
    CREATE OR REPLACE TABLE candidates AS
    SELECT s.* REPLACE (f.fingerprint AS fingerprint) FROM suspicious s LEFT JOIN fingerprints f ON f.n = s.n
"""
"""`candidates`, with fingerprints that were computed for just these rows."""


def find_suspicious(connection: duckdb.DuckDBPyConnection, same: str) -> bool:
    """Make `suspicious` of the rows that no version of the snapshot matches, and `unseen` of the entries that no
    row matches. False, with nothing made, where that might be wrong: then all rows are looked at.

    same: the column that tells of equal content: `fingerprint` or `row_hash`. It covers the key fields, so rows and
    entries that share one share the key. That is verified by the pairs of both sides, added up: one row twice, or
    two keys of one content, would give other sums.
    """
    if not count_rows(connection, "SELECT count(*) FROM (SELECT 1 FROM snapshot LIMIT 1)"):
        return False
    connection.execute(_MENTIONED)
    connection.execute(_unmatched(same))
    if not _pairs_agree(connection, same):
        return False
    connection.execute(_SUSPICIOUS)
    connection.execute(f"""
        CREATE OR REPLACE TABLE unseen AS
        SELECT * FROM snapshot WHERE fingerprint IS NULL OR {same} IS NULL OR key IN (SELECT key FROM mentioned)
            OR {same} IN (SELECT same FROM unmatched WHERE n IS NULL)
    """)
    return True


_MENTIONED = """
    CREATE OR REPLACE TABLE mentioned AS
    SELECT key FROM suspects UNION SELECT key FROM letters UNION SELECT key FROM silenced UNION SELECT key FROM later
"""
"""Keys about which more is known than the snapshot says."""


def _rows(same: str) -> str:
    return f"""
        SELECT n, key, {same} AS same FROM staged
        WHERE key IS NOT NULL AND error IS NULL AND unsendable IS NULL AND key NOT IN (SELECT key FROM mentioned)
    """


def _entries(same: str) -> str:
    return f"""
        SELECT key, {same} AS same FROM snapshot
        WHERE fingerprint IS NOT NULL AND {same} IS NOT NULL AND key NOT IN (SELECT key FROM mentioned)
    """


def _unmatched(same: str) -> str:
    """`n` of rows that no entry matches, `same` of entries that no row matches."""
    return f"""
        CREATE OR REPLACE TABLE unmatched AS
        SELECT s.n, p.same FROM (SELECT n, same FROM ({_rows(same)})) s
        FULL JOIN (SELECT same FROM ({_entries(same)})) p ON p.same = s.same
        WHERE s.n IS NULL OR p.same IS NULL
    """


def _pairs_agree(connection: duckdb.DuckDBPyConnection, same: str) -> bool:
    rows = f"SELECT key, same FROM ({_rows(same)}) WHERE n NOT IN (SELECT n FROM unmatched WHERE n IS NOT NULL)"
    entries = f"""
        SELECT key, same FROM ({_entries(same)}) WHERE same NOT IN (SELECT same FROM unmatched WHERE n IS NULL)
    """
    sums = [
        connection.execute(f"SELECT count(*), sum(hash(key, same)) FROM ({side})").fetchall()
        for side in (rows, entries)
    ]
    return sums[0] == sums[1]


_SUSPICIOUS = """
    CREATE OR REPLACE TABLE suspicious AS
    WITH looked_at AS (
        SELECT * FROM staged
        WHERE key IS NULL OR error IS NOT NULL OR unsendable IS NOT NULL OR key IN (SELECT key FROM mentioned)
            OR n IN (SELECT n FROM unmatched WHERE n IS NOT NULL)
    )
    SELECT * FROM staged
    WHERE key IS NULL OR key IN (SELECT key FROM looked_at)
"""
"""With all rows of a duplicated key, though one of them is what the snapshot says."""


def count_rows(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one number that a query gives."""
    return int(connection.execute(query).fetchall()[0][0])
