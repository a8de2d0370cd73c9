"""The plan: the changes that a run would write, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from dagster_retl.changes.diff import DiffRules, PlanTotals
from dagster_retl.engine.documents import documents_of
from dagster_retl.engine.reading import Reading
from dagster_retl.engine.spool import Spool
from dagster_retl.errors import GuardTrippedError
from dagster_retl.model.rows import FieldType, WireForm

SAMPLE_ROWS = 5


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """An example of what would be written. change: `create`, `update` or `delete`.

    values: destination field → value, as it is sent. present: the same as the destination has it now; empty: it has
    no such record; None: nobody asked.
    """

    change: str
    key: str
    record_keys: Mapping[str, Any]
    values: Mapping[str, Any]
    record_id: str | None = None
    present: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FailingRow:
    """An example of a row that fails before delivery."""

    code: str
    record_keys: Mapping[str, Any]
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. guards: those that would stop it. warnings: what a person should know.

    fields, rows: the mapped rows, for the run that goes on with this plan; payload: what it sends, in batches.
    hash_terms: of the rows' hashes; rehash: those of the snapshot are of other terms. moved: some keys come to lie in
    the run's partition.
    """

    totals: PlanTotals
    batches: int
    rules: DiffRules
    reading: Reading
    samples: Sequence[PlannedRow] = ()
    failing: Sequence[FailingRow] = ()
    guards: Sequence[GuardTrippedError] = ()
    warnings: Sequence[str] = ()
    reason: str = ""
    fields: Sequence[FieldType] = field(default=(), repr=False)
    rows: Spool | None = field(default=None, repr=False)
    payload: Spool | None = field(default=None, repr=False)
    hash_terms: str | None = None
    rehash: bool = False
    moved: bool = False


def sample(
    connection: duckdb.DuckDBPyConnection, rows: Spool, fields: tuple[FieldType, ...], form: WireForm
) -> list[PlannedRow]:
    """A few rows of each kind of change. Run after the diff."""
    chosen = connection.execute(f"""
        (SELECT 'create', {_SAMPLED} FROM sends WHERE added ORDER BY n LIMIT {SAMPLE_ROWS}) UNION ALL
        (SELECT 'update', {_SAMPLED} FROM sends WHERE NOT added AND NOT removal ORDER BY n LIMIT {SAMPLE_ROWS})
        UNION ALL (SELECT 'delete', {_SAMPLED} FROM sends WHERE removal ORDER BY key LIMIT {SAMPLE_ROWS})
    """).fetchall()
    documents = documents_of(connection, rows, [n for _, n, *_ in chosen if n is not None], fields, form)
    return [
        PlannedRow(change, key, json.loads(keys), json.loads(documents.get(n, b"{}")), record_id)
        for change, n, key, keys, record_id in chosen
    ]


_SAMPLED = "n, key, record_keys, record_id"


def sample_failing(connection: duckdb.DuckDBPyConnection) -> list[FailingRow]:
    """A few rows that fail before delivery."""
    rows = connection.execute(f"""
        SELECT fate, coalesce(record_keys, '{{}}'), error_field, error, copies FROM classified
        WHERE fate NOT IN ('send', 'unchanged') AND NOT starts_with(fate, 'skipped:') ORDER BY n LIMIT {SAMPLE_ROWS}
    """).fetchall()
    return [
        FailingRow(code, json.loads(keys), failure_message(code, where, why, copies=copies))
        for code, keys, where, why, copies in rows
    ]


def failure_message(code: str, error_field: str | None, error: str | None, *, copies: int = 1) -> str:
    """Why a row failed before delivery, in a sentence."""
    if error is not None:
        return f"field {error_field!r}: {error}"
    return _MESSAGES.get(code, code).format(copies=copies)


_MESSAGES = {
    "MISSING_KEY": "a key field is null or empty",
    "DUPLICATE_SOURCE_KEY": "{copies} rows of the query have this key; none of them is sent",
    "TYPE_COERCION": "a number is NaN or infinite, which JSON cannot say",
}
