"""The demo's warehouse: a DuckDB file with accounts, contacts and invoices, the same every time.

It holds what makes data hard: 64-bit ids, decimals, nulls, timestamps, names in a dozen scripts,
and mistakes that somebody made while typing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dagster_retl.demo.names import BY_CODE, company, person

ACCOUNTS = 4_000
CONTACTS = 2_500
INVOICES = 9_000
SEED = 20_250_327

FIRST_ID = 9_007_199_254_740_993
"""2^53 + 1: the first whole number that a float cannot hold."""

BAD_EMAILS = ("ask@@example.com", "nobody", "sales at example.com", "info@localhost", "Ø@", "a b@example.com")

_NOW = datetime(2025, 3, 27, 17, 0, tzinfo=UTC)

_ACCOUNTS = pa.schema(
    [
        ("account_id", pa.int64()),
        ("name", pa.string()),
        ("email", pa.string()),
        ("country", pa.string()),
        ("employees", pa.int32()),
        ("annual_revenue", pa.decimal128(18, 2)),
        ("is_partner", pa.bool_()),
        ("parent_id", pa.int64()),
        ("customer_since", pa.date32()),
        ("last_activity_at", pa.timestamp("us", tz="UTC")),
        ("is_active", pa.bool_()),
    ]
)
_CONTACTS = pa.schema(
    [
        ("contact_id", pa.int64()),
        ("account_id", pa.int64()),
        ("first_name", pa.string()),
        ("last_name", pa.string()),
        ("email", pa.string()),
    ]
)
_INVOICES = pa.schema(
    [
        ("invoice_id", pa.int64()),
        ("account_id", pa.int64()),
        ("amount", pa.decimal128(12, 2)),
        ("paid", pa.bool_()),
        ("invoiced_on", pa.date32()),
    ]
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How many accounts have which mistake."""

    emails: int = 14
    long_names: int = 4
    missing_names: int = 3
    twice: int = 2

    @property
    def rows(self) -> int:
        """Rows that no destination should take: of an account that is there twice, both."""
        return self.emails + self.long_names + self.missing_names + 2 * self.twice


MISTAKES = Mistakes()


@dataclass(frozen=True, slots=True)
class Changes:
    """What a day brings: how many accounts are changed, new and gone."""

    updated: int = 320
    inserted: int = 130
    deleted: int = 60


CHANGES = Changes()


def build(path: Path) -> None:
    """Write the warehouse to a new file."""
    dice = random.Random(SEED)  # noqa: S311 - the same data every time, not a secret
    accounts = [_account(dice, number) for number in range(ACCOUNTS)]
    contacts = [_contact(dice, number, dice.choice(accounts)) for number in range(CONTACTS)]
    invoices = [_invoice(dice, number) for number in range(INVOICES)]
    _spoil(accounts, dice)
    for contact in dice.sample(contacts, 5):
        contact["email"] = dice.choice(BAD_EMAILS)
    with opened(path) as connection:
        _create(connection, "accounts", accounts, _ACCOUNTS)
        _create(connection, "contacts", contacts, _CONTACTS)
        _create(connection, "invoices", invoices, _INVOICES)


@contextmanager
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, for somebody who may change it."""
    connection = duckdb.connect(str(path))
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def change(path: Path) -> Changes:
    """A day passes: accounts grow, come and go. What is wrong stays wrong."""
    dice = random.Random(SEED + 1)  # noqa: S311 - as above
    with opened(path) as connection:
        sound = [row[0] for row in connection.execute(_SOUND).fetchall()]
        picked = dice.sample(sound, CHANGES.updated + CHANGES.deleted)
        connection.execute(_GROW, [picked[: CHANGES.updated]])
        connection.execute("DELETE FROM accounts WHERE list_contains(?, account_id)", [picked[CHANGES.updated :]])
        rows = pa.Table.from_pylist([_account(dice, ACCOUNTS + n) for n in range(CHANGES.inserted)], _ACCOUNTS)
        _insert(connection, "accounts", rows)
    return CHANGES


def mend(path: Path) -> None:
    """Somebody corrects all mistakes in the accounts."""
    with opened(path) as connection:
        for statement in _MENDING:
            connection.execute(statement)


def count(path: Path, table: str) -> int:
    """How many rows a table has."""
    with opened(path) as connection:
        return connection.table(table).shape[0]


def _create(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row], schema: pa.Schema) -> None:
    connection.from_arrow(pa.Table.from_pylist(list(rows), schema)).create(table)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.from_arrow(rows).insert_into(table)


def _account(dice: random.Random, number: int) -> Row:
    named = company(dice, number)
    account_id = FIRST_ID + 7 * number
    revenue = Decimal(dice.randrange(1_000_000, 90_000_000_000)) / 100
    return {
        "account_id": account_id,
        "name": named.name,
        "email": None if dice.random() < 0.08 else f"hello@{named.domain}",
        "country": named.country.code,
        "employees": None if dice.random() < 0.1 else int(dice.lognormvariate(4, 1.4)) + 1,
        "annual_revenue": None if dice.random() < 0.15 else revenue,
        "is_partner": dice.random() < 0.2,
        "parent_id": FIRST_ID + 7 * dice.randrange(number) if number and dice.random() < 0.12 else None,
        "customer_since": date(2012, 1, 1) + timedelta(days=dice.randrange(4_800)),
        "last_activity_at": None if dice.random() < 0.05 else _NOW - timedelta(seconds=dice.randrange(40_000_000)),
        "is_active": dice.random() < 0.97,
    }


def _contact(dice: random.Random, number: int, account: Row) -> Row:
    first, last = person(dice, BY_CODE[account["country"]])
    return {
        "contact_id": FIRST_ID + 11 * number,
        "account_id": account["account_id"],
        "first_name": first,
        "last_name": last,
        "email": f"person.{number}@example.com",
    }


def _invoice(dice: random.Random, number: int) -> Row:
    return {
        "invoice_id": FIRST_ID + number,
        "account_id": FIRST_ID + 7 * dice.randrange(ACCOUNTS),
        "amount": Decimal(dice.randrange(900, 9_000_000)) / 100,
        "paid": dice.random() < 0.85,
        "invoiced_on": date(2024, 1, 1) + timedelta(days=dice.randrange(450)),
    }


def _spoil(accounts: list[Row], dice: random.Random) -> None:
    """Put the mistakes in, each into an account of its own."""
    active = iter(dice.sample([row for row in accounts if row["is_active"]], MISTAKES.rows))
    for number in range(MISTAKES.emails):
        next(active)["email"] = BAD_EMAILS[number % len(BAD_EMAILS)]
    for _ in range(MISTAKES.long_names):
        row = next(active)
        row["name"] = f"{row['name']} {'und Partner ' * 6}".strip()
    for _ in range(MISTAKES.missing_names):
        next(active)["name"] = None
    for _ in range(MISTAKES.twice):
        row = next(active)
        accounts.append({**row, "name": f"{row['name']} (2)"})


_SOUND = r"""
SELECT account_id FROM accounts
WHERE is_active AND name IS NOT NULL AND length(name) <= 60
    AND (email IS NULL OR regexp_full_match(email, '[^@\s]+@[^@\s.]+(\.[^@\s.]+)+'))
    AND account_id NOT IN (SELECT account_id FROM accounts GROUP BY ALL HAVING count(*) > 1)
ORDER BY account_id
"""

_GROW = """
UPDATE accounts SET
    annual_revenue = coalesce(annual_revenue, 0) + 1250.50,
    employees = coalesce(employees, 0) + 3,
    last_activity_at = TIMESTAMPTZ '2025-03-28 09:30:00.125+00'
WHERE list_contains(?, account_id)
"""

_MENDING = (
    "DELETE FROM accounts WHERE ends_with(name, ' (2)')",
    "UPDATE accounts SET name = trim(replace(name, 'und Partner ', '')) WHERE length(name) > 60",
    "UPDATE accounts SET name = 'Account ' || account_id WHERE name IS NULL",
    r"UPDATE accounts SET email = NULL WHERE NOT regexp_full_match(email, '[^@\s]+@[^@\s.]+(\.[^@\s.]+)+')",
)
