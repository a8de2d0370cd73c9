"""Fingerprints of rows that need one after all: those that are not as the snapshot has them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pyarrow as pa

from dagster_retl.changes.fingerprint import fingerprint_sql
from dagster_retl.engine.documents import chosen_rows
from dagster_retl.engine.parallel import map_in_order
from dagster_retl.engine.spool import Spool
from dagster_retl.engine.stage import NUMBER
from dagster_retl.engine.workspace import Workspace
from dagster_retl.model.rows import FieldType


def fill_fingerprints(space: Workspace, rows: Spool, fields: Sequence[FieldType], version: int, numbers: str) -> None:
    """Make the table `fingerprints` (n, fingerprint) of the rows whose `n` the query `numbers` names."""
    connection = space.connection
    connection.execute("CREATE OR REPLACE TABLE fingerprints (n BIGINT, fingerprint UUID)")
    connection.execute(f"CREATE OR REPLACE TABLE wanted AS SELECT n FROM ({numbers}) ORDER BY n")
    query = f'SELECT "{NUMBER}" AS n, {fingerprint_sql(fields, version)} AS fingerprint FROM incoming'

    def compute(block: tuple[int, int]) -> pa.Table | None:
        first, last = block
        with closing(connection.cursor()) as cursor:
            these = cursor.sql(f"SELECT n FROM wanted WHERE n BETWEEN {first} AND {last} ORDER BY n").to_arrow_table()
            if not these.num_rows:
                return None
            cursor.register("incoming", chosen_rows(rows.read(first), these["n"].to_numpy()))
            return cursor.sql(query).to_arrow_table()

    for found in map_in_order(compute, rows.ranges(), space.threads):
        if found is not None:
            connection.register("found", found)
            connection.execute("INSERT INTO fingerprints SELECT * FROM found")
            connection.unregister("found")
