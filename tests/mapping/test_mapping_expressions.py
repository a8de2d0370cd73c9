"""Expressions: what they may say, what they may not, and that nothing outside can be reached."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dagster_retl.errors import ConfigurationError, RetlError
from dagster_retl.mapping.compile import compile_mapping
from dagster_retl.mapping.sandbox import Sandbox
from dagster_retl.model.sync import FieldMapping

ROWS = pa.RecordBatch.from_pydict(
    {
        "first": ["Ada"],
        "last name": ["Lovelace"],
        "email": pa.array([" Ada@Example.com "]),
        "n": [7],
        "tags": [["a", "b"]],
        "people": [[{"name": "x"}]],
        "address": [{"city": "Paris", "zip": ["7", "5"]}],
        "at": pa.array([1_743_094_800_120_000]).cast(pa.timestamp("us", "UTC")),
        "user": ["u1"],
        "date": ["d1"],
        'q"x': [1],
        "😀": [2],
        "j": pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(['{"a": [1.5]}'])),
    }
)


def result(expression: str) -> Any:
    with compile_mapping([FieldMapping(destination="x", source=expression)], ROWS.schema) as mapping:
        table = mapping.apply(ROWS)
    assert table.column("_error").to_pylist() == [None]
    return table.column("x").to_pylist()[0]


ALLOWED: list[tuple[str, Any]] = [
    ("first || ' ' || \"last name\"", "Ada Lovelace"),
    ('FIRST || "LAST NAME" -- a comment', "AdaLovelace"),
    ("lower(trim(email)) /* for matching */", "ada@example.com"),
    ("split_part(trim(email), '@', 2)", "Example.com"),
    ("regexp_replace(first, '[^A]', '', 'g')", "A"),
    ("'--' || first || e'\\n'", "--Ada\n"),
    ("'é😀' || first", "é😀Ada"),
    ('"q""x" + "😀"', 3),
    ("CASE WHEN n > 5 THEN 'big' ELSE 'small' END", "big"),
    ("if(n > 5, 1, 0)", 1),
    ("coalesce(nullif(first, 'Ada'), 'none')", "none"),
    ("n BETWEEN 1 AND 9 AND first ILIKE 'a%' AND n IN (7, 8) AND n IS NOT NULL", True),
    ("n::VARCHAR", "7"),
    ("TRY_CAST(first AS INTEGER)", None),
    ("try(first::INTEGER)", None),
    ("n::HUGEINT * 10000000000000000000", Decimal("7E19")),
    ("n / 2", 3.5),
    ("n // 2", 3),
    ("address.city", "Paris"),
    ("address.zip[1]", "7"),
    ("tags[1:1]", ["a"]),
    ("list_transform(tags, lambda t: t || n)", ["a7", "b7"]),
    ("list_transform(people, lambda p: p.name || first)", ["xAda"]),
    ("[t || n FOR t IN tags IF t <> 'a']", ["b7"]),
    ("[first, upper(first)]", ["Ada", "ADA"]),
    ("{'first': first, 'n': n}", {"first": "Ada", "n": 7}),
    ("MAP {'a': n}", [("a", 7)]),
    ("strftime(at, '%d/%m/%Y')", "27/03/2025"),
    ("extract(hour FROM at AT TIME ZONE 'Europe/Paris')", 18),
    ("date_trunc('month', at)::DATE::VARCHAR", "2025-03-01"),
    ("at + INTERVAL 1 DAY > at", True),
    ("j ->> '$.a[0]'", "1.5"),
    ("j", '{"a": [1.5]}'),
    ("'[1.10]'::JSON", "[1.10]"),
    ("{'j': '[1.5]'::JSON}", '{"j":[1.5]}'),
    ("md5(first)::UUID", "d0c88407-2ae2-a1f4-dc8d-8f1b1bd8c2a3"),
    ("INTERVAL 26 HOUR", "26:00:00"),
    ("user", "u1"),
    ("date || user", "d1u1"),
    ("'constant'", "constant"),
    ("NULL", None),
    ("age(at, at)", "00:00:00"),
    ("list_sum([n, 1])", Decimal(8)),
]


@pytest.mark.parametrize(("expression", "value"), ALLOWED, ids=[text for text, _ in ALLOWED])
def test_what_an_expression_may_say(expression: str, value: Any) -> None:
    if "::UUID" in expression:
        value = duckdb.sql("SELECT md5('Ada')::UUID::VARCHAR").fetchall()[0][0]
    assert result(expression) == value


REFUSED = [
    ("first, n", "neither a column nor one SQL expression"),
    ("(first, n)", "more than one expression"),
    ("first; n", "more than one expression"),
    ("first) , (n", "neither a column nor one SQL expression"),
    ("first name", "neither a column nor one SQL expression"),
    ("SELECT 1", "neither a column nor one SQL expression"),
    ("first FROM people", "neither a column nor one SQL expression"),
    ("first AS f", "neither a column nor one SQL expression"),
    ("*", "a star"),
    ("COLUMNS('.*')", "a star"),
    ("?", "a parameter"),
    ("$1", "a parameter"),
    ("(SELECT 1)", "a subquery"),
    ("n IN (SELECT 1)", "a subquery"),
    ("EXISTS(SELECT 1)", "a subquery"),
    ("(SELECT content FROM read_text('/etc/hostname'))", "a subquery"),
    ("sum(n)", "an aggregate"),
    ("count(*)", "an aggregate"),
    ("first(n)", "an aggregate"),
    ("sum(n) OVER ()", "a window function"),
    ("row_number() OVER ()", "a window function"),
    ("unnest(tags)", "makes rows"),
    ("generate_subscripts(tags, 1)", "makes rows"),
    ("regexp_split_to_table(first, 'd')", "makes rows"),
    ("read_text('/etc/hostname')", "makes rows"),
    ("read_csv('/etc/hostname')", "makes rows"),
    ("query('SELECT 1')", "makes rows"),
    ("first.upper()", r"write upper\(first, …\)"),
    ("grouping(n)", "no scalar expression"),
    ("random()", r"random\(\), which depends on more than the row"),
    ("now()", "depends on more than the row"),
    ("today()", "depends on more than the row"),
    ("uuid()", "depends on more than the row"),
    ("gen_random_uuid()", "depends on more than the row"),
    ("current_timestamp", "depends on more than the row"),
    ("CURRENT_DATE", "depends on more than the row"),
    ("localtime", "depends on more than the row|no column"),
    ("age(at::TIMESTAMP)", "depends on more than the row"),
    ("ago(INTERVAL 1 DAY)", "depends on more than the row"),
    ("current_localtimestamp()", "depends on more than the row"),
    ("current_setting('threads')", "depends on more than the row"),
    ("getvariable('x')", "depends on more than the row"),
    ("current_user", "depends on more than the row"),
    ("version()", "depends on more than the row"),
    ("nextval('s')", "depends on more than the row"),
    ("sleep_ms(1)", "depends on more than the row"),
    ("pg_sleep(1)", "depends on more than the row"),
    ("write_log('x')", "depends on more than the row"),
    ("error('x')", "depends on more than the row"),
    ("list_transform(tags, lambda t: t || random())", "depends on more than the row"),
    ("CASE WHEN n = 1 THEN random() END", "depends on more than the row"),
    ("getenv('HOME')", "cannot be computed"),
    ("no_such(first)", "no_such does not exist"),
    ("first + [1]", "cannot be computed"),
    ("address.street", "cannot be computed"),
]


@pytest.mark.parametrize(("expression", "reason"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_an_expression_may_not_say(expression: str, reason: str) -> None:
    with pytest.raises(RetlError, match=reason) as caught:
        compile_mapping([FieldMapping(destination="x", source=expression)], ROWS.schema)
    assert "field 'x'" in str(caught.value)


def test_every_function_that_is_not_stable_is_refused() -> None:
    with duckdb.connect() as connection:
        names = connection.sql(
            "SELECT DISTINCT function_name, len(parameters) FROM duckdb_functions() "
            "WHERE function_type = 'scalar' AND stability <> 'CONSISTENT'"
        ).fetchall()
    assert len(names) > 20
    for name, parameters in names:
        call = f"{name}({', '.join(['first'] * parameters)})"
        with pytest.raises(ConfigurationError, match="depends on more than the row"):
            compile_mapping([FieldMapping(destination="x", source=call)], ROWS.schema)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('{path}')",
        "SELECT * FROM '{path}'",
        "COPY (SELECT 1) TO '{path}'",
        "ATTACH '{path}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 4",
        "SELECT * FROM secret_frame",
    ],
)
def test_the_sandbox_reaches_nothing(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a\n1\n")
    secret_frame = pa.table({"a": [1]})
    with Sandbox() as sandbox, pytest.raises(duckdb.Error):
        sandbox._connection.execute(statement.format(path=path)).fetchall()
    assert path.read_text() == "a\n1\n"
    assert secret_frame.num_rows == 1


def test_a_closed_mapping_can_be_closed_again() -> None:
    mapping = compile_mapping([FieldMapping(destination="x", source="n + 1")], ROWS.schema)
    mapping.close()
    mapping.close()
    with pytest.raises(duckdb.Error):
        mapping.apply(ROWS)
