"""Whether the CRM holds what the query says, worked out without the engine: from the warehouse, in plain Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from dagster_retl.demo.warehouse import opened

_DIFFERENCES = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """What the comparison found. held: records in the CRM. refused: accounts with an open dead letter."""

    held: int
    refused: int
    differences: Sequence[str]

    @property
    def holds(self) -> bool:
        return not self.differences


def prove(warehouse: Path, query: str, held: Mapping[str, Mapping[str, Any]], refused: set[str]) -> Proof:
    """Compare the CRM's accounts with the query; an account is there, exactly, unless a dead letter names it."""
    with opened(warehouse) as connection:
        relation = connection.sql(query)
        rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    expected = {str(row["account_id"]): _account(row) for row in rows if str(row["account_id"]) not in refused}
    return Proof(len(held), len(refused), list(_differences(expected, held))[:_DIFFERENCES])


def _differences(expected: Mapping[str, Mapping[str, Any]], held: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for external_id in sorted(expected.keys() - held.keys()):
        yield f"account {external_id} is not in the CRM"
    for external_id in sorted(held.keys() - expected.keys()):
        yield f"the CRM has account {external_id}, which it should not have"
    for external_id in sorted(expected.keys() & held.keys()):
        here, there = expected[external_id], _exact(held[external_id])
        if here != there:
            fields = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            yield f"account {external_id} differs in {', '.join(fields)}"


def _account(row: Mapping[str, Any]) -> dict[str, Any]:
    """An account as the mapping of retl.yaml says."""
    parent = {} if row["parent_id"] is None else {"parent_external_id": row["parent_id"]}
    copied = ("name", "email", "country", "employees", "annual_revenue", "is_partner")
    return {
        "external_id": row["account_id"],
        **{name: row[name] for name in copied},
        "segment": _segment(row["employees"]),
        **parent,
        "customer_since": _day(row["customer_since"]),
        "last_activity_at": _moment(row["last_activity_at"]),
        "source": "warehouse",
    }


def _segment(employees: int | None) -> str:
    if employees is None or employees < 50:
        return "small"
    return "enterprise" if employees >= 250 else "mid-market"


def _day(value: date | None) -> str | None:
    return None if value is None else value.isoformat()


def _moment(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _exact(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its revenue as a decimal: the CRM keeps such numbers digit by digit."""
    revenue = record.get("annual_revenue")
    return {**record, "annual_revenue": None if revenue is None else Decimal(str(revenue))}
