"""How far a watermark may go, from what became of the rows that a run read (PROTOCOL 12).

It works on the tables of a run that ended well: `staged` (with the column `cursor`) and `classified` (see
`changes.diff`), and `answered` (see `changes.fold`). A row is passed when it was accepted (now or before),
or is with people: it has an open dead letter of its own key, somebody silenced it, or the mode leaves it alone.
A row that an update found no record for is passed too: its key is kept. All others hold the watermark.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from dagster_retl.changes.outcomes import Status

_PASSED = ", ".join(
    f"'{status}'" for status in (Status.WRITTEN, Status.UNCONFIRMED, Status.FAILED, Status.GONE, Status.MISSING)
)

_HELD = f"""
    SELECT s.cursor FROM staged s
    JOIN classified c ON c.n = s.n
    LEFT JOIN answered a ON a.key = c.key AND NOT a.removal
    WHERE s.cursor IS NOT NULL
        AND (c.key IS NULL OR (c.fate = 'send' AND (a.status IS NULL OR a.status NOT IN ({_PASSED}))))
"""


@dataclass(frozen=True, slots=True)
class Cursors:
    """Positions of a run's rows, as `position` has them; None where there is no row.

    seen: rows with a cursor. highest: of all rows. held: the lowest of rows that must not be passed.
    nowhere: how many of those have a cursor that is no position (infinite, or too far away).
    """

    seen: int
    highest: object
    held: object
    nowhere: int


def cursors(connection: duckdb.DuckDBPyConnection, position: str) -> Cursors:
    """position: SQL for the place of `cursor` in the order of its kind, NULL where it has none."""
    ((seen, highest),) = connection.execute(f"SELECT count(cursor), max({position}) FROM staged").fetchall()
    ((held, nowhere),) = connection.execute(f"""
        SELECT min({position}), count(*) FILTER (({position}) IS NULL) FROM ({_HELD})
    """).fetchall()
    return Cursors(seen, highest, held, nowhere)


def numbers_as_text(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the cursors are numbers of different lengths, written as text: those do not grow as text."""
    ((numbers, seen, lengths),) = connection.execute("""
        SELECT count(*) FILTER (regexp_full_match(cursor, '[-+]?[0-9]+([.][0-9]*)?')), count(*),
            count(DISTINCT strlen(split_part(cursor, '.', 1)))
        FROM staged WHERE cursor IS NOT NULL
    """).fetchall()
    return bool(numbers == seen and lengths > 1)
