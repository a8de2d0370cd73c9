"""Counts of dead letters, kept right by the database itself.

Whoever writes to `dead_letters`, an older version of this code too, has its change counted by triggers, in the same
transaction. SQLite has one writer at a time, which changes the counts in place. On Postgres a statement adds rows that
say how much more or fewer there are, and takes up those that nobody else is at: nobody waits, so that a run and a
person who resolves entries cannot block one another, and the rows stay few.

A migration that makes the table `dead_letters` anew has to make its triggers anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

SPANS = {"all": 0, "month": 7, "day": 10, "minute": 16}
"""Of what is counted together, how much of `first_seen_at` is the same."""

_SQLITE = """CREATE TRIGGER count_letters_{event} AFTER {when} BEGIN {changes} END"""

_SQLITE_CHANGE = """
    INSERT INTO letter_counts (span, begins, sync_id, error_code, part, open, resolved)
    SELECT span, begins, {row}.sync_id, {row}.error_code, 0,
        {sign} ({row}.resolved_at IS NULL), {sign} ({row}.resolved_at IS NOT NULL) FROM ({spans}) WHERE true
    ON CONFLICT DO UPDATE SET open = open + excluded.open, resolved = resolved + excluded.resolved;"""

_SQLITE_TIDY = """
    DELETE FROM letter_counts WHERE (span, begins) IN ({spans})
    AND sync_id = OLD.sync_id AND error_code = OLD.error_code AND open = 0 AND resolved = 0;"""

_MOVED = """ OF sync_id, error_code, first_seen_at, resolved_at ON dead_letters
    WHEN (OLD.sync_id, OLD.error_code, OLD.first_seen_at, OLD.resolved_at IS NULL)
    IS NOT (NEW.sync_id, NEW.error_code, NEW.first_seen_at, NEW.resolved_at IS NULL)"""

_POSTGRES = """CREATE FUNCTION count_letters_{event}() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    WITH change AS MATERIALIZED (
        SELECT span, begins, sync_id, error_code, sum(open) AS open, sum(resolved) AS resolved
        FROM ({rows}) AS letters CROSS JOIN LATERAL ({spans}) AS spans
        GROUP BY span, begins, sync_id, error_code HAVING sum(open) <> 0 OR sum(resolved) <> 0
    ), taken AS (
        DELETE FROM letter_counts WHERE (span, begins, sync_id, error_code, part) IN (
            SELECT span, begins, sync_id, error_code, part FROM letter_counts AS found
            JOIN change USING (span, begins, sync_id, error_code) FOR UPDATE OF found SKIP LOCKED
        ) RETURNING span, begins, sync_id, error_code, open, resolved
    )
    INSERT INTO letter_counts (span, begins, sync_id, error_code, part, open, resolved)
    SELECT span, begins, sync_id, error_code, txid_current(), sum(open), sum(resolved)
    FROM (TABLE change UNION ALL TABLE taken) AS parts
    GROUP BY span, begins, sync_id, error_code HAVING sum(open) <> 0 OR sum(resolved) <> 0
    ORDER BY span, begins;
    RETURN NULL;
END $$"""

_POSTGRES_TRIGGER = """CREATE TRIGGER count_letters_{event} AFTER {event} ON dead_letters
    REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION count_letters_{event}()"""

_FILL = """INSERT INTO letter_counts (span, begins, sync_id, error_code, part, open, resolved)
    SELECT '{span}', substr(first_seen_at, 1, {length}), sync_id, error_code, 0,
        sum(CASE WHEN resolved_at IS NULL THEN 1 ELSE 0 END), sum(CASE WHEN resolved_at IS NULL THEN 0 ELSE 1 END)
    FROM dead_letters GROUP BY 2, sync_id, error_code ORDER BY 2"""


def upgrade() -> None:
    """Count what is there, once the triggers hold whoever writes."""
    op.create_table(
        "letter_counts",
        sa.Column("span", sa.Text(), nullable=False),
        sa.Column("begins", sa.Text(), nullable=False),
        sa.Column("sync_id", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=False),
        sa.Column("part", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("open", sa.BigInteger(), nullable=False),
        sa.Column("resolved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("span", "begins", "sync_id", "error_code", "part"),
        sqlite_with_rowid=False,
    )
    for statement in _sqlite() if op.get_bind().dialect.name == "sqlite" else _postgres():
        op.execute(statement)
    _indexes()
    for span, length in SPANS.items():
        op.execute(_FILL.format(span=span, length=length))


def _indexes() -> None:
    """Pages of one reason of one sync."""
    columns = ["sync_id", "error_code", "first_seen_at", "id"]
    for state, condition in (("open", "resolved_at IS NULL"), ("resolved", "resolved_at IS NOT NULL")):
        where = sa.text(condition)
        name = f"dead_letters_{state}_by_sync_and_code"
        op.create_index(name, "dead_letters", columns, sqlite_where=where, postgresql_where=where)


def _sqlite() -> list[str]:
    more, fewer = _sqlite_change("NEW", "+"), _sqlite_change("OLD", "-") + _SQLITE_TIDY.format(spans=_spans("OLD."))
    return [
        _SQLITE.format(event="insert", when="INSERT ON dead_letters", changes=more),
        _SQLITE.format(event="delete", when="DELETE ON dead_letters", changes=fewer),
        _SQLITE.format(event="update", when=f"UPDATE{_MOVED}", changes=more + fewer),
    ]


def _sqlite_change(row: str, sign: str) -> str:
    return _SQLITE_CHANGE.format(row=row, sign=sign, spans=_spans(f"{row}."))


def _postgres() -> list[str]:
    new, old = ("new_letters", "+"), ("old_letters", "-")
    return [
        *_postgres_trigger("insert", "NEW TABLE AS new_letters", new),
        *_postgres_trigger("delete", "OLD TABLE AS old_letters", old),
        *_postgres_trigger("update", "NEW TABLE AS new_letters OLD TABLE AS old_letters", new, old),
    ]


def _postgres_trigger(event: str, tables: str, *changes: tuple[str, str]) -> list[str]:
    rows = " UNION ALL ".join(
        f"SELECT sync_id, error_code, first_seen_at, {sign} (resolved_at IS NULL)::int AS open, "
        f"{sign} (resolved_at IS NOT NULL)::int AS resolved FROM {table}"
        for table, sign in changes
    )
    function = _POSTGRES.format(event=event, rows=rows, spans=_spans(""))
    return [function, _POSTGRES_TRIGGER.format(event=event, tables=tables)]


def _spans(row: str) -> str:
    """Where the letter `row` is counted: a row for each span and its beginning."""
    columns = (
        f"SELECT '{name}' AS span, substr({row}first_seen_at, 1, {size}) AS begins" for name, size in SPANS.items()
    )
    return " UNION ALL ".join(columns)
