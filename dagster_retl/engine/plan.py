"""The plan: the changes that a run would write, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from dagster_retl.changes.diff import PlanTotals
from dagster_retl.errors import GuardTrippedError
from dagster_retl.mapping.wire import json_sql
from dagster_retl.model.rows import FieldType, WireForm

SAMPLE_ROWS = 5


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """An example of what would be written. change: `create`, `update` or `delete`."""

    change: str
    record_keys: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FailingRow:
    """An example of a row that fails before delivery."""

    code: str
    record_keys: Mapping[str, Any]
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. guards: those that would stop it. warnings: what a person should know."""

    totals: PlanTotals
    batches: int
    samples: Sequence[PlannedRow] = ()
    failing: Sequence[FailingRow] = ()
    guards: Sequence[GuardTrippedError] = ()
    warnings: Sequence[str] = ()
    reason: str = ""
    fields: Sequence[FieldType] = field(default=(), repr=False)


def sample(connection: duckdb.DuckDBPyConnection, fields: tuple[FieldType, ...], form: WireForm) -> list[PlannedRow]:
    """A few rows of each kind of change. Run after the diff."""
    document = json_sql(fields, form)
    rows = connection.execute(f"""
        SELECT change, record_keys, document FROM (
            SELECT CASE WHEN p.removal THEN 'delete' WHEN c.added THEN 'create' ELSE 'update' END AS change,
                p.record_keys, coalesce(s."retl:document", '{{}}') AS document,
                row_number() OVER (PARTITION BY p.removal, c.added ORDER BY p.pos) AS place
            FROM (SELECT * FROM sends ORDER BY pos LIMIT 1000) p
            LEFT JOIN classified c ON c.n = p.n
            LEFT JOIN (SELECT "retl:n", {document} AS "retl:document" FROM mapped_rows WHERE "retl:n" IN
                (SELECT n FROM sends ORDER BY pos LIMIT 1000)) s ON s."retl:n" = p.n
            UNION ALL
            SELECT 'delete', record_keys, '{{}}', row_number() OVER (ORDER BY pos) FROM sends
            WHERE removal AND pos >= 1000
        ) WHERE place <= {SAMPLE_ROWS} ORDER BY change, place
    """).fetchall()
    return [PlannedRow(change, json.loads(keys), json.loads(values)) for change, keys, values in rows][
        : 3 * SAMPLE_ROWS
    ]


def sample_failing(connection: duckdb.DuckDBPyConnection) -> list[FailingRow]:
    """A few rows that fail before delivery."""
    rows = connection.execute(f"""
        SELECT fate, coalesce(record_keys, '{{}}'), error_field, error FROM classified
        WHERE fate NOT IN ('send', 'unchanged') AND NOT starts_with(fate, 'skipped:') ORDER BY n LIMIT {SAMPLE_ROWS}
    """).fetchall()
    return [FailingRow(code, json.loads(keys), failure_message(code, where, why)) for code, keys, where, why in rows]


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
