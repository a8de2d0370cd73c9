"""The demo's data: the same every time, lifelike, with as many mistakes as it says."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dagster_retl.demo import warehouse
from dagster_retl.demo.crm import objection
from dagster_retl.demo.proof import prove
from dagster_retl.demo.warehouse import CHANGES, MISTAKES

QUERY = "SELECT * FROM accounts WHERE is_active"
SCRIPTS = {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "DEVANAGARI"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warehouse") / "w.duckdb"
    warehouse.build(path)
    return path


def _rows(path: Path, query: str = QUERY) -> list[dict[str, Any]]:
    with warehouse.opened(path) as connection:
        relation = connection.sql(query)
        return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def test_it_is_the_same_every_time(built: Path, tmp_path: Path) -> None:
    warehouse.build(tmp_path / "again.duckdb")
    for table in ("accounts", "contacts", "invoices"):
        assert _rows(built, f"FROM {table}") == _rows(tmp_path / "again.duckdb", f"FROM {table}")


def test_it_holds_what_makes_data_hard(built: Path) -> None:
    rows = _rows(built)
    assert min(row["account_id"] for row in rows) > 2**53
    words = {unicodedata.name(char, "").split()[0] for row in rows for char in row["name"] or "" if char.isalpha()}
    assert words >= SCRIPTS
    assert any("🚀" in (row["name"] or "") for row in rows)
    for field in ("email", "employees", "annual_revenue", "parent_id", "last_activity_at"):
        assert 0 < sum(row[field] is None for row in rows) < len(rows)


def test_mistakes_changes_and_mending(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(built.read_bytes())
    before = {row["account_id"]: row for row in _rows(path)}
    assert _mistaken(path) == (MISTAKES.emails + MISTAKES.long_names + MISTAKES.missing_names, MISTAKES.twice)
    warehouse.change(path)
    after = {row["account_id"]: row for row in _rows(path)}
    assert len(before.keys() - after.keys()) == CHANGES.deleted
    assert sum(before[key] != after[key] for key in before.keys() & after.keys()) == CHANGES.updated
    assert _mistaken(path) == (MISTAKES.emails + MISTAKES.long_names + MISTAKES.missing_names, MISTAKES.twice)
    warehouse.mend(path)
    assert _mistaken(path) == (0, 0)
    assert {row["account_id"] for row in _rows(path)} == after.keys()


def _mistaken(path: Path) -> tuple[int, int]:
    """Accounts that the CRM would refuse, and accounts that are there twice."""
    rows = _rows(path)
    refused = [row for row in rows if objection({**row, "external_id": row["account_id"]})]
    ids = [row["account_id"] for row in rows]
    return len(refused), len(ids) - len(set(ids))


def test_a_proof_finds_what_differs(built: Path) -> None:
    query = f"{QUERY} ORDER BY account_id LIMIT 3"
    first, second, third = (str(row["account_id"]) for row in _rows(built, query))
    proof = prove(built, query, {second: {"external_id": int(second)}, "7": {}}, {third})
    assert not proof.holds
    assert proof.differences[:2] == [
        f"account {first} is not in the CRM",
        "the CRM has account 7, which it should not have",
    ]
    assert proof.differences[2].startswith(f"account {second} differs in annual_revenue, country, customer_since")
    assert prove(built, f"{QUERY} AND false", {}, set()).holds
