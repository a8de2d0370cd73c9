"""The snapshot: for each key, the last version that the destination accepted.

A generation is a Parquet file with the columns of `COLUMNS`. `fingerprint` is the content that was
accepted; null means that the key is known to be there, with content nobody vouches for (after a full
refresh that did not reach it). The column of row hashes is called after their terms (`changes.row_hash`), so that
those of other terms are not found. `partition` is that of the sync in which the key was last found
(`Partition.identity`); null where the sync had none. Besides fingerprints of rows, two fixed contents exist: `REMOVED`,
what a removal leaves behind, and `DELETED`, what a delivered row of a `delete` sync is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

REMOVED = "00000000-0000-0000-0000-000000000000"
DELETED = "00000000-0000-0000-0000-000000000001"

COLUMNS = "key VARCHAR, record_keys VARCHAR, fingerprint UUID, record_id VARCHAR, row_hash UBIGINT, partition VARCHAR"


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """The last version of a key that was accepted; `content` as a fingerprint, None where nobody vouches for it."""

    key: str
    record_keys: str
    content: str | None
    record_id: str | None
    partition: str | None = None

    @property
    def deleted(self) -> bool:
        return self.content == DELETED


def find(connection: duckdb.DuckDBPyConnection, generation: Path, key: str) -> SnapshotRow | None:
    """What a generation says of a key; None: it was never delivered, or is gone."""
    columns = f"record_keys, fingerprint::VARCHAR, record_id, {_partition(generation)}"
    query = f"SELECT {columns} FROM read_parquet({literal(str(generation))}) WHERE key = ?"
    rows = connection.execute(query, [key]).fetchall()
    return SnapshotRow(key, *rows[0]) if rows else None


def hashed_under(generation: Path | None, terms: str | None) -> bool:
    """Whether a generation has row hashes that were made under these terms."""
    return generation is not None and terms is not None and _hashes(terms) in _columns(generation)


def _columns(generation: Path) -> list[str]:
    return list(pq.read_schema(generation).names)


def _partition(generation: Path) -> str:
    """SQL for the partition of an entry: generations of older versions know of none."""
    return "partition" if "partition" in _columns(generation) else "NULL::VARCHAR AS partition"


def hash_terms_of(generation: Path) -> str | None:
    """The terms of a generation's row hashes; None: it has none."""
    found = [name for name in _columns(generation) if name.startswith(_HASHES)]
    return found[0].removeprefix(_HASHES) if found else None


_HASHES = "row_hash:"


def _hashes(terms: str) -> str:
    return f"{_HASHES}{terms}"


def load_snapshot(
    connection: duckdb.DuckDBPyConnection, generation: Path | None, *, stale: bool = False, terms: str | None = None
) -> None:
    """Make a generation (None: an empty one) the view `snapshot`; `stale`: no fingerprint counts.

    terms: of the row hashes that count.
    """
    if generation is None:
        connection.execute(f"CREATE OR REPLACE TABLE no_snapshot ({COLUMNS})")
        connection.execute("CREATE OR REPLACE VIEW snapshot AS SELECT * FROM no_snapshot")
        return
    fingerprint = "NULL::UUID" if stale else "fingerprint"
    row_hash = f'"{_hashes(terms)}"' if terms is not None and hashed_under(generation, terms) else "NULL::UBIGINT"
    connection.execute(
        f"CREATE OR REPLACE VIEW snapshot AS SELECT key, record_keys, {fingerprint} AS fingerprint, record_id, "
        f"{row_hash} AS row_hash, {_partition(generation)} FROM read_parquet({literal(str(generation))})"
    )


def narrow(connection: duckdb.DuckDBPyConnection, partition: str) -> None:
    """Leave in `snapshot` what a run of one partition has to know: its entries, and those of the rows that it read.

    Entries of suspects stay as well: they tell that a key belongs to another partition.
    """
    connection.execute("ALTER VIEW snapshot RENAME TO snapshot_of_all")
    connection.execute(f"""
        CREATE OR REPLACE TABLE narrowed AS
        SELECT * FROM snapshot_of_all
        WHERE partition = {literal(partition)} OR key IN (SELECT key FROM staged) OR key IN (SELECT key FROM suspects)
    """)
    connection.execute("CREATE VIEW snapshot AS SELECT * FROM narrowed")


def all_stale(partition: str) -> str:
    """The query for a generation in which no fingerprint of a partition counts."""
    fingerprint = f"CASE WHEN partition = {literal(partition)} THEN NULL ELSE fingerprint END"
    return f"SELECT * REPLACE ({fingerprint} AS fingerprint) FROM snapshot"


def overlay_accepted(connection: duckdb.DuckDBPyConnection) -> None:
    """Put what people declared delivered over the view `snapshot`, as the next fold will.

    It is the table `accepted` (id, key, record_keys, fingerprint, partition); the last word about a key counts.
    """
    connection.execute("ALTER VIEW snapshot RENAME TO delivered")
    connection.execute(f"""
        CREATE VIEW snapshot AS
        SELECT * FROM delivered d WHERE NOT EXISTS (SELECT 1 FROM accepted a WHERE a.key = d.key)
        UNION ALL
        SELECT key, record_keys, fingerprint, NULL AS record_id, NULL AS row_hash, partition
        FROM (SELECT * FROM accepted QUALIFY row_number() OVER (PARTITION BY key ORDER BY id DESC) = 1)
        WHERE fingerprint <> UUID '{REMOVED}'
    """)


def write_generation(connection: duckdb.DuckDBPyConnection, query: str, path: Path, *, terms: str | None = None) -> int:
    """Write the snapshot rows of `query` to a Parquet file; returns how many there are.

    terms: of their row hashes; without them these are left out.
    """
    hashes = "EXCLUDE (row_hash)" if terms is None else f'RENAME (row_hash AS "{_hashes(terms)}")'
    query = f"SELECT * {hashes} FROM ({query})"
    return copy_rows(connection, query, path)


def copy_rows(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """Write the rows of `query` as they are to a generation; returns how many there are."""
    rows = connection.execute(
        f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 122880)"
    ).fetchone()
    return int(rows[0]) if rows else 0
