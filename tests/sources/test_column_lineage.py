"""Columns of a query, followed to the tables that they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_retl.sources.column_lineage import columns_of_expression, origins_of_columns
from dagster_retl.sources.query import resolve_query


def origins(sql: str, *columns: str, dialect: str = "duckdb") -> dict[str, set[str]]:
    query = resolve_query(sql, dialect=dialect, base=Path())
    found = origins_of_columns(query.sql, query.relations, columns, dialect)
    return {name: {".".join((*each.relation, each.column)) for each in names} for name, names in found.items()}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM main.people", {"id": {"main.people.id"}, "name": {"main.people.name"}}),
        (
            "WITH c AS (SELECT * FROM people) SELECT id, upper(full_name) AS name FROM c",
            {"id": {"people.id"}, "name": {"people.full_name"}},
        ),
        (
            "SELECT p.id, p.first || o.last AS name FROM people p JOIN shop.others o ON o.id = p.id",
            {"id": {"people.id"}, "name": {"people.first", "shop.others.last"}},
        ),
        ("SELECT a AS id, 1 AS name FROM x UNION ALL SELECT b, c FROM y", {"id": {"x.a", "y.b"}, "name": {"y.c"}}),
        ("SELECT * FROM people JOIN others USING (id)", {"id": set(), "name": set()}),
        (
            "SELECT id, (SELECT max(q.z) FROM q WHERE q.id = t.id) AS name FROM t",
            {"id": {"t.id"}, "name": {"q.z"}},
        ),
        ("SELECT count(*) AS id, 'x' AS name FROM t", {"id": set(), "name": set()}),
        ("SELECT t.id, r.name FROM t, LATERAL (SELECT t.label AS name) r", {"id": {"t.id"}, "name": {"t.label"}}),
    ],
)
def test_columns_come_from_tables(sql: str, expected: dict[str, set[str]]) -> None:
    assert origins(sql, "id", "name") == expected


def test_names_keep_the_dialects_case() -> None:
    assert origins('SELECT t."Id" AS id FROM db.t', "id", dialect="snowflake") == {"id": {"DB.T.Id"}}
    assert origins("SELECT ID, Name FROM Main.People", "Id", "NAME") == {
        "Id": {"main.people.id"},
        "NAME": {"main.people.name"},
    }
    assert origins('SELECT t."Id" AS "id" FROM db.t', "id", dialect="postgres") == {"id": {"db.t.Id"}}
    assert origins("SELECT * FROM t", "Id") == {"Id": {"t.id"}}
    assert origins("SELECT * FROM t", "id", dialect="snowflake") == {"id": {"T.ID"}}


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("id", ("id",)),
        ("annual revenue", ("annual revenue",)),
        ("upper(name) || ' ' || coalesce(city, name)", ("name", "city")),
        ("address.city", ("address",)),
        ("1 + 1", ()),
    ],
)
def test_expressions_name_columns(source: str, columns: tuple[str, ...]) -> None:
    assert sorted(columns_of_expression(source)) == sorted(columns)
