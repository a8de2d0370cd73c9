"""The diff: every row of the query result against the snapshot, and what is to be done about it.

It works on tables of one DuckDB connection:

    staged     n, key, record_keys, fingerprint, row_hash, error_field, error, unsendable: a row for each row of
               the query; without fingerprints where row hashes can find the unchanged rows
    snapshot   see `changes.snapshot`
    suspects   key, record_keys, fingerprint, partition: what the destination may hold besides
    letters    key, fingerprint, rejections, held, partition: the open dead letters
    silenced   key, fingerprint, partition: versions that somebody decided to skip
    asked      key: the only keys to send (for a partial run by key; then `staged` holds their rows, and
               those whose key could not be computed, which are nobody's here)
    looked_up  key: the keys that a window of the result was asked for by themselves (`DiffRules.windowed`)

and leaves three more: `candidates`, the staged rows that need a closer look, `classified`, one row for each
of these with its `fate`, and `sends`, what is to be written, rows of the query in order of `n`, removals
(whose `n` is null) in order of `key`. A fate is `send`, `unchanged`, `skipped:<reason>`, or the error code
of a row that fails before delivery. Staged rows that are no candidates are unchanged.

Most rows of most runs are unchanged, so these are found first, by one join on fingerprints or row hashes
(`changes.shortcut`); all the rest is done for candidates only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from dagster_retl.changes.partitions import find_later, in_partition
from dagster_retl.changes.shortcut import COMPLETED, count_rows, find_suspicious
from dagster_retl.changes.snapshot import DELETED, REMOVED
from dagster_retl.errors import ErrorCode
from dagster_retl.model.partitions import Partition
from dagster_retl.model.rows import Operation
from dagster_retl.model.sync import SyncMode

_OPERATIONS = {
    SyncMode.UPSERT: Operation.UPSERT,
    SyncMode.MIRROR: Operation.UPSERT,
    SyncMode.INSERT: Operation.INSERT,
    SyncMode.UPDATE: Operation.UPDATE,
    SyncMode.DELETE: Operation.DELETE,
}

KEYLESS_CODES = (ErrorCode.MISSING_KEY, ErrorCode.MAPPING_ERROR)


@dataclass(frozen=True, slots=True)
class DiffRules:
    """What one run may do.

    retry_parked: rows out of attempts are sent again (replay, full refresh). complete: all that was to be
    read was read and none of it is set aside, so that what is missing is really gone.
    by_key: only the keys in `asked` are looked at. limit: send at most this many rows. keyed: rows
    have a key of their own, which is part of their content. compare: a row that is as it was accepted needs
    nothing; otherwise it is sent again. windowed: rows outside a window were not read; only of the keys in
    `looked_up` is it known whether they left the query. baseline: nothing is sent, removals stay due.
    partition: the part of the query that was read; of all other keys nothing is known. refresh: no fingerprint
    counts, though the snapshot holds them.
    """

    mode: SyncMode
    max_attempts: int
    keyed: bool = True
    complete: bool = True
    retry_parked: bool = False
    by_key: bool = False
    limit: int | None = None
    compare: bool = True
    windowed: bool = False
    baseline: bool = False
    partition: Partition | None = None
    refresh: bool = False

    @property
    def by_fingerprint(self) -> bool:
        """Whether a row is unchanged where its fingerprint is one of the snapshot's."""
        return self.compare and self.keyed and self.mode is not SyncMode.DELETE

    @property
    def operation(self) -> Operation:
        return _OPERATIONS[self.mode]


@dataclass(frozen=True, slots=True)
class PlanTotals:
    """How many rows have which fate. `failed` and `skipped` count by error code and by reason."""

    read: int
    unchanged: int
    send: int
    added: int
    changed: int
    failed: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    removed: int = 0
    removals_sent: int = 0
    removals_held: str | None = None

    @property
    def rows_failed(self) -> int:
        return sum(self.failed.values())

    @property
    def rows_skipped(self) -> int:
        return sum(self.skipped.values())


FillFingerprints = Callable[[str], None]
"""Makes the table `fingerprints` (n, fingerprint) of the staged rows whose `n` a query names."""


def diff(
    connection: duckdb.DuckDBPyConnection,
    rules: DiffRules,
    *,
    shortcut: bool = True,
    fill: FillFingerprints | None = None,
) -> PlanTotals:
    """Classify all staged rows, choose the removals and what is to be sent.

    shortcut: find the unchanged rows by what they hold first; without it the result is the same. fill: staged rows
    have row hashes, and the fingerprints of those that need one come from here.
    """
    same = "fingerprint" if fill is None else "row_hash"
    find_later(connection, rules.partition)
    shortcut = shortcut and rules.by_fingerprint and not rules.refresh
    if not (shortcut and find_suspicious(connection, same)):
        connection.execute("CREATE OR REPLACE VIEW suspicious AS SELECT * FROM staged")
        connection.execute("CREATE OR REPLACE VIEW unseen AS SELECT * FROM snapshot")
    if fill is None:
        connection.execute("CREATE OR REPLACE VIEW candidates AS SELECT * FROM suspicious")
    else:
        fill("SELECT n FROM suspicious")
        connection.execute(COMPLETED)
    connection.execute(_duplicated())
    connection.execute(_classified(rules))
    held = _removals_held(connection, rules)
    connection.execute(_removals(rules, possible=held is None))
    connection.execute(_sends(connection, rules))
    return _totals(connection, held)


def unhashed(connection: duckdb.DuckDBPyConnection) -> int:
    """How many rows are unchanged by their fingerprints alone, because their entry has no row hash."""
    return count_rows(
        connection,
        "SELECT count(*) FROM classified c JOIN unseen p ON p.key = c.key "
        "WHERE c.fate = 'unchanged' AND p.row_hash IS NULL",
    )


def _duplicated() -> str:
    return """
        CREATE OR REPLACE TABLE duplicated AS
        SELECT key, count(*) AS copies FROM candidates WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1
    """


def _content(rules: DiffRules) -> str:
    return f"UUID '{DELETED}'" if rules.mode is SyncMode.DELETE else "s.fingerprint"


def _known(rules: DiffRules) -> str:
    """Whether the row needs nothing: by its key alone for inserts, else by its content too."""
    if not rules.compare or rules.refresh:
        return "FALSE"
    if rules.mode is SyncMode.INSERT:
        return "p.fingerprint IS NOT NULL"
    content = _content(rules)
    no_other = f"(x.key IS NULL OR (x.lowest = {content} AND x.highest = {content}))"
    return f"p.fingerprint = {content} AND {no_other}"


def _classified(rules: DiffRules) -> str:
    content = _content(rules)
    parked = f"l.rejections >= {rules.max_attempts} AND l.fingerprint = {content}"
    unchanged = f"p.fingerprint = {content}" if rules.mode is SyncMode.INSERT else "TRUE"
    return f"""
        CREATE OR REPLACE TABLE classified AS
        SELECT s.n, s.key, s.record_keys, {content} AS content, s.row_hash, s.error_field, s.error,
            coalesce(d.copies, 1) AS copies, p.record_id, p.key IS NULL AS added, l.key IS NOT NULL AS has_letter,
            CASE
                WHEN s.key IS NULL AND s.error IS NOT NULL THEN '{ErrorCode.MAPPING_ERROR}'
                WHEN s.key IS NULL THEN '{ErrorCode.MISSING_KEY}'
                WHEN s.key IN (SELECT key FROM later) THEN 'skipped:later'
                WHEN d.key IS NOT NULL THEN '{ErrorCode.DUPLICATE_SOURCE_KEY}'
                WHEN s.error IS NOT NULL THEN '{ErrorCode.MAPPING_ERROR}'
                WHEN s.unsendable IS NOT NULL THEN '{ErrorCode.TYPE_COERCION}'
                WHEN {_known(rules)} THEN CASE WHEN {unchanged} THEN 'unchanged' ELSE 'skipped:mode' END
                WHEN l.held THEN 'skipped:held'
                WHEN q.fingerprint = {content} THEN 'skipped:silenced'
                WHEN {parked} AND {str(not rules.retry_parked).upper()} THEN 'skipped:parked'
                ELSE 'send'
            END AS fate
        FROM candidates s
        LEFT JOIN duplicated d ON d.key = s.key
        LEFT JOIN unseen p ON p.key = s.key
        LEFT JOIN letters l ON l.key = s.key
        LEFT JOIN silenced q ON q.key = s.key
        LEFT JOIN (SELECT key, min(fingerprint) AS lowest, max(fingerprint) AS highest FROM suspects GROUP BY key) x
            ON x.key = s.key
        WHERE {"s.key IS NOT NULL" if rules.by_key else "TRUE"}
    """


def _removals_held(connection: duckdb.DuckDBPyConnection, rules: DiffRules) -> str | None:
    """Why this run may not remove anything, if so."""
    if rules.mode is not SyncMode.MIRROR:
        return None
    unknown = count_rows(connection, f"SELECT count(*) FROM ({_UNIDENTIFIED})")
    if unknown:
        return f"the key of {unknown} rows could not be computed, so nobody knows which records are gone"
    return None


_UNIDENTIFIED = "SELECT 1 FROM candidates WHERE key IS NULL AND error IS NOT NULL"
"""Rows whose key could not be computed: while there are any, no key is known to have left the query."""


def _removals(rules: DiffRules, *, possible: bool) -> str:
    """Keys that the destination may hold and a complete read lacks; for a replay, among the asked ones.

    A removal that may still land is no reason to remove again what the snapshot does not hold.
    """
    due = possible and rules.mode is SyncMode.MIRROR and (rules.complete or rules.by_key)
    among = "AND EXISTS (SELECT 1 FROM asked a WHERE a.key = k.key)" if rules.by_key else ""
    parked = f"l.rejections >= {rules.max_attempts} AND l.fingerprint = UUID '{REMOVED}'"
    here = in_partition(rules.partition)
    return f"""
        CREATE OR REPLACE TABLE removals AS
        SELECT k.key, k.record_keys, k.record_id, l.key IS NOT NULL AS has_letter,
            CASE WHEN {str(rules.baseline).upper()} THEN 'skipped:baseline'
                WHEN {parked} AND {str(not rules.retry_parked).upper()} THEN 'skipped:parked' ELSE 'send' END AS fate
        FROM (
            SELECT key, record_keys, record_id FROM unseen WHERE {here}
            UNION ALL
            SELECT key, any_value(record_keys), NULL FROM suspects
            WHERE key NOT IN (SELECT key FROM unseen) AND fingerprint <> UUID '{REMOVED}' AND {here} GROUP BY key
        ) k
        LEFT JOIN letters l ON l.key = k.key
        WHERE {str(due).upper()} AND NOT EXISTS (SELECT 1 FROM candidates s WHERE s.key = k.key) {among}
    """


def _sends(connection: duckdb.DuckDBPyConnection, rules: DiffRules) -> str:
    """What is written. A limit takes the first rows of the query."""
    due = "fate = 'send'"
    if rules.limit is not None:
        first = f"SELECT n FROM classified WHERE {due} ORDER BY n LIMIT {rules.limit}"
        last = count_rows(connection, f"SELECT coalesce(max(n), 0) FROM ({first})")
        due += f" AND n <= {last}"
    return f"""
        CREATE OR REPLACE VIEW sends AS
        SELECT n, key, record_keys, content, record_id, has_letter, '{rules.operation}' AS operation,
            FALSE AS removal, added, row_hash
        FROM classified WHERE {due}
        UNION ALL
        SELECT NULL, key, record_keys, UUID '{REMOVED}', record_id, has_letter, '{Operation.DELETE}', TRUE, FALSE, NULL
        FROM removals WHERE fate = 'send'
    """


def _totals(connection: duckdb.DuckDBPyConnection, removals_held: str | None) -> PlanTotals:
    fates = dict(connection.execute("SELECT fate, count(*) FROM classified GROUP BY fate ORDER BY fate").fetchall())
    removals = dict(connection.execute("SELECT fate, count(*) FROM removals GROUP BY fate").fetchall())
    added, sent = connection.execute(
        "SELECT count(*) FILTER (WHERE added), count(*) FROM sends WHERE NOT removal"
    ).fetchall()[0]
    skipped = {fate.removeprefix("skipped:"): n for fate, n in fates.items() if fate.startswith("skipped:")}
    if over := fates.get("send", 0) - sent:
        skipped["limit"] = over
    read, looked_at = (count_rows(connection, f"SELECT count(*) FROM {name}") for name in ("staged", "candidates"))
    return PlanTotals(
        read=sum(fates.values()) + read - looked_at,
        unchanged=fates.get("unchanged", 0) + read - looked_at,
        send=sent,
        added=added,
        changed=sent - added,
        failed={fate: n for fate, n in fates.items() if fate in ErrorCode.__members__},
        skipped=skipped,
        removed=sum(removals.values()),
        removals_sent=removals.get("send", 0),
        removals_held=removals_held,
    )


def failures(connection: duckdb.DuckDBPyConnection, *, block: int = 2_000) -> Iterator[pa.RecordBatch]:
    """Keyed rows that fail before delivery, one record a key: key, record_keys, fate, copies, error_field, error."""
    return _blocks(
        connection,
        f"""
        SELECT key, any_value(record_keys) AS record_keys, any_value(fate) AS fate, count(*) AS copies,
            any_value(error_field) AS error_field, any_value(error) AS error
        FROM classified WHERE key IS NOT NULL AND fate IN ({_codes()}) GROUP BY key
        """,
        block,
    )


def keyless_failures(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, str]]:
    """Rows whose key is null or could not be computed: code → how many, and an example of why."""
    rows = connection.execute(
        "SELECT fate, count(*), coalesce(any_value(error), '') FROM classified WHERE key IS NULL GROUP BY fate"
    ).fetchall()
    return {fate: (count, error) for fate, count, error in rows}


def settled_letters(connection: duckdb.DuckDBPyConnection, rules: DiffRules) -> Iterator[tuple[str, str]]:
    """Dead letters that the truth closes, and silences that it lifts: (key, resolution)."""
    held = "" if rules.mode is SyncMode.INSERT else "AND NOT l.held"
    reverted = f"""
        SELECT l.key, 'reverted' FROM letters l JOIN classified c ON c.key = l.key
        WHERE c.fate IN ('unchanged', 'skipped:mode') {held}
    """
    yield from _pairs(connection, reverted)
    yield from _pairs(
        connection,
        """
        SELECT q.key, 'row_changed' FROM silenced q JOIN classified c ON c.key = q.key
        WHERE c.content <> q.fingerprint AND c.fate <> 'skipped:later'
            AND (c.fate IN ('send', 'unchanged') OR starts_with(c.fate, 'skipped:'))
        """,
    )
    if rules.complete or rules.by_key:
        known = "asked" if rules.by_key else "looked_up" if rules.windowed else None
        among = f"AND EXISTS (SELECT 1 FROM {known} a WHERE a.key = l.key)" if known else ""
        yield from _pairs(
            connection,
            f"""
            SELECT l.key, 'source_row_missing' FROM letters l
            WHERE NOT l.held AND NOT starts_with(l.key, 'code:') AND {in_partition(rules.partition, "l")} {among}
                AND NOT EXISTS (SELECT 1 FROM candidates s WHERE s.key = l.key)
                AND NOT EXISTS (SELECT 1 FROM removals r WHERE r.key = l.key) AND NOT EXISTS ({_UNIDENTIFIED})
            """,
        )


def forgotten_query(rules: DiffRules) -> str:
    """Keys that a `delete` sync need not remember, because they left the query."""
    due = rules.mode is SyncMode.DELETE and rules.complete and not rules.windowed
    return f"""
        SELECT p.key, p.record_keys, p.fingerprint, p.record_id FROM snapshot p
        WHERE {str(due).upper()} AND {in_partition(rules.partition, "p")}
            AND NOT EXISTS (SELECT 1 FROM staged s WHERE s.key = p.key)
            AND NOT EXISTS ({_UNIDENTIFIED})
    """


def _codes() -> str:
    return ", ".join(f"'{code}'" for code in ErrorCode)


def _pairs(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[str, str]]:
    for batch in _blocks(connection, query, 5_000):
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


def _blocks(connection: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    yield from connection.cursor().sql(query).to_arrow_reader(rows)
