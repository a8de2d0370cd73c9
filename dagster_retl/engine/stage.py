"""Staging: the whole query result, mapped, keyed and fingerprinted, in the run's workspace.

Nothing is decided and nothing is sent before the last row was read (a duplicate may come last).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dagster_retl.changes.fingerprint import fingerprint_sql
from dagster_retl.changes.keys import key_sql, record_keys_sql
from dagster_retl.mapping.compile import CompiledMapping
from dagster_retl.mapping.wire import unsendable_sql
from dagster_retl.model.rows import FieldType, KeyForm, WireForm
from dagster_retl.sources.base import Extract


@dataclass(frozen=True, slots=True)
class Stage:
    """How mapped rows become staged ones."""

    fields: tuple[FieldType, ...]
    key_form: KeyForm
    wire_form: WireForm
    fingerprint_version: int
    asked: Sequence[str] = ()

    def fill(self, connection: duckdb.DuckDBPyConnection, mapping: CompiledMapping, extract: Extract) -> int:
        """Create and fill the table `mapped_rows` and the view `staged`; returns how many rows the query gave.

        `mapped_rows` has the mapped fields under their own names, whatever these are, and beside them the
        columns of `staged`, whose names begin with `retl:` there.
        """
        self._ask(connection)
        read = 0
        connection.execute("BEGIN")
        for number, block in enumerate(_at_least_one(extract)):
            connection.register("incoming", mapping.apply(block))
            verb = "INSERT INTO mapped_rows" if number else "CREATE TABLE mapped_rows AS"
            connection.execute(f"{verb} {self._select(read)}")
            connection.unregister("incoming")
            read += block.num_rows
        if not self._keyed:
            connection.execute(_NUMBER_EQUALS)
        connection.execute(_STAGED)
        connection.execute("COMMIT")
        return read

    @property
    def _keyed(self) -> bool:
        return any(field.key for field in self.fields)

    def _ask(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("CREATE TABLE asked (key VARCHAR)")
        if self.asked:
            connection.register("asked_keys", pa.table({"key": list(self.asked)}))
            connection.execute("INSERT INTO asked SELECT DISTINCT key FROM asked_keys")
            connection.unregister("asked_keys")

    def _select(self, offset: int) -> str:
        names = ", ".join(f"m.{_quoted(field.name)}" for field in self.fields)
        among = f"WHERE {_ASKED}" if self.asked else ""
        key = key_sql(self.fields, self.key_form) if self._keyed else "NULL::VARCHAR"
        record_keys = record_keys_sql(self.fields) if self._keyed else "'{}'"
        unsendable = unsendable_sql(self.fields, self.wire_form) or "NULL"
        return f"""
            SELECT * FROM (
                SELECT row_number() OVER () + {offset} AS "retl:n", {key} AS "retl:key",
                    {record_keys} AS "retl:record_keys",
                    {fingerprint_sql(self.fields, self.fingerprint_version)} AS "retl:fingerprint",
                    _error_field AS "retl:error_field", _error AS "retl:error",
                    {unsendable}::VARCHAR AS "retl:unsendable", {names}
                FROM incoming m
            ) {among}
        """


_ASKED = '"retl:key" IN (SELECT key FROM asked) OR ("retl:key" IS NULL AND "retl:error" IS NOT NULL)'
"""A row whose key cannot be computed may be one of those that are asked for."""

_NUMBER_EQUALS = """
    CREATE OR REPLACE TABLE mapped_rows AS
    SELECT * REPLACE (
        CASE WHEN "retl:error" IS NULL THEN "retl:fingerprint"::VARCHAR || '#' ||
            row_number() OVER (PARTITION BY "retl:fingerprint" ORDER BY "retl:n") END AS "retl:key"
    ) FROM mapped_rows
"""
"""Rows without a key are told apart by content and by their number among equals."""

_COLUMNS = ("n", "key", "record_keys", "fingerprint", "error_field", "error", "unsendable")
_NAMED = ", ".join(f'"retl:{name}" AS {name}' for name in _COLUMNS)
_STAGED = f"CREATE VIEW staged AS SELECT {_NAMED} FROM mapped_rows"


def _at_least_one(extract: Extract) -> Iterator[pa.RecordBatch]:
    """The blocks, or one empty block where the query gave none: the table needs its columns."""
    empty = True
    for block in extract.blocks:
        empty = False
        yield block
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=extract.schema)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
