"""The fold: a run's manifest and the answers in its ledger become the next snapshot generation.

It works on tables of one DuckDB connection:

    snapshot   the generation that the run started from
    manifest   batch, position, operation, removal, key, record_keys, content, record_id, has_letter, row_hash;
               rows with batch null are keys to forget
    started    batch, started_at: the intents
    outcomes   see `changes.outcomes`
    accepted   id, key, record_keys, fingerprint, partition: what people declared delivered, in the order of `id`
    hashed     key, fingerprint, row_hash: what is known of rows that did not change
    moved      key: what was found in the run's partition, and is in another one so far

The same code ends an ordinary run and recovers a killed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from dagster_retl.changes.outcomes import Status
from dagster_retl.changes.snapshot import REMOVED, literal

MANIFEST_COLUMNS = (
    "batch INTEGER, position INTEGER, operation VARCHAR, removal BOOLEAN, key VARCHAR, record_keys VARCHAR, "
    "content UUID, record_id VARCHAR, has_letter BOOLEAN, row_hash UBIGINT"
)


@dataclass(frozen=True, slots=True)
class Tally:
    """How the rows (or the removals) of a manifest ended."""

    planned: int = 0
    written: int = 0
    unconfirmed: int = 0
    failed: int = 0
    missing: int = 0
    unknown: int = 0

    @property
    def not_sent(self) -> int:
        return self.planned - self.written - self.failed - self.missing - self.unknown


@dataclass(frozen=True, slots=True)
class UnansweredRow:
    """A row that the destination may or may not hold."""

    key: str
    record_keys: str
    content: str
    operation: str


def accept_all(connection: duckdb.DuckDBPyConnection, at: str) -> None:
    """Answer the whole manifest, at a time as the store writes it, as a destination would that accepts everything."""
    batches = "SELECT DISTINCT batch FROM manifest WHERE batch IS NOT NULL"
    connection.execute(f"INSERT INTO started SELECT batch, ? FROM ({batches})", [at])
    connection.execute(
        f"""
        INSERT INTO outcomes (batch, position, status, ambiguous, record_id, started_at)
        SELECT batch, NULL, '{Status.WRITTEN}', FALSE, NULL, ? FROM ({batches})
        """,
        [at],
    )


def answer(connection: duckdb.DuckDBPyConnection) -> None:
    """Join manifest, intents and outcomes into the view `answered`; a started row without answer is unknown.

    A view: most batches have one outcome for all their rows, so that joining again is cheaper than keeping.
    """
    connection.execute(f"""
        CREATE OR REPLACE VIEW answered AS
        SELECT m.* EXCLUDE (record_id), coalesce(o.record_id, m.record_id) AS record_id, s.started_at,
            coalesce(o.status, w.status, '{Status.UNKNOWN}') AS status,
            coalesce(o.ambiguous, w.ambiguous, TRUE) AS ambiguous
        FROM manifest m
        JOIN started s ON s.batch = m.batch
        LEFT JOIN (FROM outcomes WHERE position IS NULL) w ON w.batch = m.batch
        LEFT JOIN (FROM outcomes WHERE position IS NOT NULL) o ON o.batch = m.batch AND o.position = m.position
    """)


def tally(connection: duckdb.DuckDBPyConnection, *, removal: bool) -> Tally:
    """Count the rows (or the removals) of the manifest by how they ended."""
    which = "removal" if removal else "NOT removal"
    planned = connection.execute(f"SELECT count(*) FROM manifest WHERE batch IS NOT NULL AND {which}").fetchall()[0][0]
    count = dict(connection.execute(f"SELECT status, count(*) FROM answered WHERE {which} GROUP BY status").fetchall())
    unconfirmed = count.get(Status.UNCONFIRMED, 0)
    return Tally(
        planned=planned,
        written=count.get(Status.WRITTEN, 0) + unconfirmed,
        unconfirmed=unconfirmed,
        failed=count.get(Status.FAILED, 0) + count.get(Status.GONE, 0),
        missing=count.get(Status.MISSING, 0),
        unknown=count.get(Status.UNKNOWN, 0),
    )


def changed_rows(connection: duckdb.DuckDBPyConnection) -> int:
    """How many snapshot entries the fold touches; zero means that the generation can stay."""
    return int(
        connection.execute(
            f"SELECT (SELECT count(*) FROM answered WHERE {_TOUCHES}) + count(*) FROM forgotten"
        ).fetchall()[0][0]
    )


_TOUCHES = f"status IN ('{Status.WRITTEN}', '{Status.UNCONFIRMED}', '{Status.MISSING}', '{Status.GONE}')"

FORGOTTEN = "CREATE OR REPLACE VIEW forgotten AS SELECT key FROM manifest WHERE batch IS NULL"


def next_snapshot(*, rehash: bool = False, partition: str | None = None, moved: bool = False) -> str:
    """The query for the next generation; `accepted` holds what people declared delivered, the last word counts.

    rehash: entries take the row hashes of `hashed`, where the row did not change. partition: that the manifest is of,
    which entries of `moved` keys come to lie in.
    """
    entries = _REHASHED if rehash else "snapshot"
    mine = "NULL" if partition is None else literal(partition)
    own = (
        f"CASE WHEN key IN (SELECT key FROM moved) THEN {mine} ELSE partition END AS partition"
        if moved
        else "partition"
    )
    return f"""
        SELECT key, record_keys, fingerprint, record_id, row_hash, {own} FROM {entries} p
        WHERE NOT EXISTS (SELECT 1 FROM answered a WHERE a.key = p.key AND {_TOUCHES})
            AND NOT EXISTS (SELECT 1 FROM forgotten f WHERE f.key = p.key)
            AND NOT EXISTS (SELECT 1 FROM accepted c WHERE c.key = p.key)
        UNION ALL
        SELECT key, record_keys, content, record_id, row_hash, {mine} FROM answered
        WHERE status IN ('{Status.WRITTEN}', '{Status.UNCONFIRMED}') AND content <> UUID '{REMOVED}'
        UNION ALL
        SELECT c.key, c.record_keys, c.fingerprint::UUID, NULL, NULL, c.partition
        FROM (SELECT * FROM accepted QUALIFY row_number() OVER (PARTITION BY key ORDER BY id DESC) = 1) c
        WHERE NOT EXISTS (SELECT 1 FROM answered a WHERE a.key = c.key AND {_TOUCHES})
            AND c.fingerprint <> '{REMOVED}'
    """


_REHASHED = """(
    SELECT s.* REPLACE (coalesce(h.row_hash, s.row_hash) AS row_hash) FROM snapshot s
    LEFT JOIN (SELECT key, fingerprint, any_value(row_hash) AS row_hash FROM hashed GROUP BY key, fingerprint) h
        ON h.key = s.key AND h.fingerprint = s.fingerprint
)"""


def not_found(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """(key, record_keys) of rows that an update found no record for, and that are no failures."""
    query = f"SELECT key, record_keys FROM answered WHERE status = '{Status.MISSING}' AND NOT removal"
    return connection.execute(query).fetchall()


def unanswered(connection: duckdb.DuckDBPyConnection, *, block: int = 2_000) -> Iterator[list[UnansweredRow]]:
    """Rows that leave a suspect: without an answer, or with an attempt whose effect is unknown."""
    cursor = connection.cursor()
    cursor.execute("SELECT key, record_keys, content::VARCHAR, operation FROM answered WHERE ambiguous")
    while rows := cursor.fetchmany(block):
        yield [UnansweredRow(*row) for row in rows]


def never_answered(connection: duckdb.DuckDBPyConnection, *, block: int = 2_000) -> Iterator[list[UnansweredRow]]:
    """Rows of batches that were started and have no answer at all: those in flight at a kill."""
    cursor = connection.cursor()
    cursor.execute(
        "SELECT key, record_keys, content::VARCHAR, operation FROM answered "
        "WHERE batch NOT IN (SELECT batch FROM outcomes)"
    )
    while rows := cursor.fetchmany(block):
        yield [UnansweredRow(*row) for row in rows]


def cleared_suspects(connection: duckdb.DuckDBPyConnection, now: str) -> list[int]:
    """Ids in `suspects` that count no more.

    An acceptance clears those that can no longer land when its request was sent; and one whose time
    is over and whose content is the accepted one (or none, as in the snapshot) says nothing new.
    """
    if not connection.execute("SELECT count(*) FROM suspects").fetchall()[0][0]:
        return []
    rows = connection.execute(
        f"""
        SELECT x.id FROM suspects x JOIN answered a ON a.key = x.key
        WHERE a.status IN ('{Status.WRITTEN}', '{Status.UNCONFIRMED}') AND x.until < a.started_at
        UNION
        SELECT x.id FROM suspects x JOIN snapshot_next p ON p.key = x.key
        WHERE x.until < $now AND x.fingerprint = p.fingerprint::VARCHAR
        UNION
        SELECT x.id FROM suspects x ANTI JOIN snapshot_next p ON p.key = x.key
        WHERE x.until < $now AND x.fingerprint = '{REMOVED}'
        """,
        {"now": now},
    ).fetchall()
    return [row[0] for row in rows]
