"""Staging: the whole query result, mapped, keyed and fingerprinted, in the run's workspace.

Nothing is decided and nothing is sent before the last row was read (a duplicate may come last). What the
diff looks at goes into one file of narrow columns; the mapped fields, which only rows that are sent need,
into a spool. Blocks are worked on side by side while the next ones are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dagster_retl.changes.fingerprint import fingerprint_sql
from dagster_retl.changes.keys import key_sql, record_keys_sql
from dagster_retl.changes.row_hash import row_hash_sql
from dagster_retl.changes.snapshot import literal
from dagster_retl.engine.parallel import map_in_order
from dagster_retl.engine.spool import Spool
from dagster_retl.engine.workspace import Workspace
from dagster_retl.mapping.columns import readable
from dagster_retl.mapping.compile import ERROR, ERROR_FIELD, CompiledMapping
from dagster_retl.mapping.wire import unsendable_sql
from dagster_retl.model.rows import FieldType, KeyForm, WireForm
from dagster_retl.sources.base import Extract

NUMBER = "retl:n"
"""The column of a spooled row's number, beside the mapped fields, whatever these are called."""
CURSOR = "retl:cursor"
"""The column of a mapped row's cursor."""


BLOCK_ROWS = 16_384
"""Rows of a block: many enough that what each block costs by itself does not count, few enough to hold several."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How mapped rows become staged ones. cursor: the column of the query that is the watermark.

    hashed: rows get a row hash. fingerprinted: they get a fingerprint too, instead of only those that need one.
    partition: that the rows are of: rows without a key are counted in each by itself.
    """

    fields: tuple[FieldType, ...]
    key_form: KeyForm
    wire_form: WireForm
    fingerprint_version: int
    asked: Sequence[str] = ()
    cursor: int | None = None
    hashed: bool = False
    fingerprinted: bool = True
    partition: str | None = None

    def fill(self, space: Workspace, mapping: CompiledMapping, extract: Extract) -> Spool:
        """Create `staged` (see `changes.diff`) and `asked`; returns the mapped rows, in blocks by `n`.

        Where there is a cursor, `staged` has it as its last column, `cursor`.
        """
        self._ask(space)
        spool = Spool(space.folder / "rows")
        file = space.folder / "staged.parquet"
        schema = self._schema(extract.schema)
        work = _Work(self, space, spool, schema)
        blocks = _numbered(mapping, extract, self.cursor)
        with pq.ParquetWriter(file, schema, compression="lz4", use_dictionary=_DICTIONARIES) as writer:
            for table in map_in_order(work.stage, blocks, space.threads):
                writer.write_table(table)
        space.connection.execute(f"CREATE VIEW staged AS {self._staged(literal(str(file)))}")
        return spool

    @property
    def keyed(self) -> bool:
        return any(field.key for field in self.fields)

    def _schema(self, columns: pa.Schema) -> pa.Schema:
        """The narrow columns of a query with these columns."""
        if self.cursor is None:
            return _SCHEMA
        return _SCHEMA.append(pa.field("cursor", readable(pa.array([], columns.field(self.cursor).type)).type))

    def _ask(self, space: Workspace) -> None:
        space.connection.execute("CREATE TABLE asked (key VARCHAR)")
        if self.asked:
            space.connection.register("asked_keys", pa.table({"key": list(self.asked)}))
            space.connection.execute("INSERT INTO asked SELECT DISTINCT key FROM asked_keys")
            space.connection.unregister("asked_keys")

    def _staged(self, file: str) -> str:
        """Rows without a key are told apart by content and by their number among equals."""
        if self.keyed:
            return f"SELECT * FROM read_parquet({file})"
        within = literal(f"@{self.partition}" if self.partition else "")
        return f"""
            SELECT * REPLACE (CASE WHEN error IS NULL THEN fingerprint::VARCHAR || '#' ||
                row_number() OVER (PARTITION BY fingerprint ORDER BY n) || {within} END AS key)
            FROM read_parquet({file})
        """

    def columns(self) -> str:
        """The query for the narrow columns of the block `incoming`."""
        key = key_sql(self.fields, self.key_form) if self.keyed else "NULL::VARCHAR"
        record_keys = record_keys_sql(self.fields) if self.keyed else "'{}'"
        unsendable = unsendable_sql(self.fields, self.wire_form) or "NULL"
        among = f"WHERE {_ASKED}" if self.asked else ""
        cursor = "" if self.cursor is None else f', "{CURSOR}" AS cursor'
        version = self.fingerprint_version
        fingerprint = fingerprint_sql(self.fields, version) if self.fingerprinted else "NULL::UUID"
        row_hash = row_hash_sql(self.fields) if self.hashed else "NULL::UBIGINT"
        return f"""
            SELECT * FROM (
                SELECT "{NUMBER}" AS n, {key} AS key, {record_keys} AS record_keys,
                    {fingerprint} AS fingerprint, {row_hash} AS row_hash,
                    {ERROR_FIELD} AS error_field, {ERROR} AS error, {unsendable}::VARCHAR AS unsendable{cursor}
                FROM incoming
            ) {among}
        """


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with a block, in any thread."""

    stage_: Stage
    space: Workspace
    spool: Spool
    schema: pa.Schema

    def stage(self, block: pa.Table) -> pa.Table:
        """Compute the narrow columns of a block and spool its mapped fields."""
        with closing(self.space.connection.cursor()) as cursor:
            cursor.register("incoming", block)
            table = _in_order(cursor.sql(self.stage_.columns()).to_arrow_table())
        beside = [ERROR_FIELD, ERROR, *([] if self.stage_.cursor is None else [CURSOR])]
        rows = block.drop_columns(beside)
        if table.num_rows < rows.num_rows:
            rows = rows.take(np.searchsorted(rows[NUMBER].to_numpy(), table["n"].to_numpy()))
        if rows.num_rows:
            self.spool.append(rows[NUMBER][0].as_py(), rows[NUMBER][-1].as_py(), rows)
        return table.cast(self.schema)


_ASKED = "key IN (SELECT key FROM asked) OR (key IS NULL AND error IS NOT NULL)"
"""A row whose key cannot be computed may be one of those that are asked for."""

_SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("key", pa.string()),
        ("record_keys", pa.string()),
        ("fingerprint", pa.uuid()),
        ("row_hash", pa.uint64()),
        ("error_field", pa.string()),
        ("error", pa.string()),
        ("unsendable", pa.string()),
    ]
)
_DICTIONARIES = ["error_field", "error", "unsendable"]


def _in_order(table: pa.Table) -> pa.Table:
    """As the rows came: DuckDB keeps to that with one block, but need not."""
    numbers = table["n"].to_numpy()
    return table if (np.diff(numbers) > 0).all() else table.take(np.argsort(numbers))


def _numbered(mapping: CompiledMapping, extract: Extract, cursor: int | None) -> Iterator[pa.Table]:
    """Mapped blocks whose rows are numbered from 1, with their cursor where there is one."""
    start = 1
    for block in _full(extract.blocks):
        numbers = pa.array(np.arange(start, start + block.num_rows, dtype=np.int64))
        start += block.num_rows
        mapped = mapping.apply(block).append_column(NUMBER, numbers)
        yield mapped if cursor is None else mapped.append_column(CURSOR, readable(block.column(cursor)))


def _full(blocks: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Small blocks put together: each costs some milliseconds, whatever its size."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for block in blocks:
        if waiting and held + block.num_rows > BLOCK_ROWS:
            yield _together(waiting)
            waiting, held = [], 0
        waiting.append(block)
        held += block.num_rows
    if waiting:
        yield _together(waiting)


def _together(blocks: list[pa.RecordBatch]) -> pa.RecordBatch:
    return blocks[0] if len(blocks) == 1 else pa.concat_batches(blocks)
