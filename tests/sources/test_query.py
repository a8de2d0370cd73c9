"""What a sync may read: one statement that only reads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dagster_retl.errors import ConfigurationError
from dagster_retl.sources.dbt_manifest import dbt_model
from dagster_retl.sources.query import ResolvedQuery, asset_of, dbt_model_of, resolve_query


def resolve(text: str, dialect: str = "postgres", base: Path = Path()) -> ResolvedQuery:
    return resolve_query(text, dialect=dialect, base=base)


@pytest.mark.parametrize(
    ("dialect", "sql", "tables"),
    [
        ("postgres", "SELECT a FROM s.t JOIN u USING (a)", ("s.t", "u")),
        (
            "postgres",
            "WITH t AS (SELECT * FROM raw.t) SELECT * FROM t WHERE a IN (SELECT a FROM other)",
            ("raw.t", "other"),
        ),
        ("postgres", "(SELECT a FROM t) UNION ALL (SELECT a FROM t)", ("t",)),
        ("postgres", "VALUES (1), (2)", ()),
        ("postgres", "SELECT pg_sleep(1), query, checkpoint FROM t", ("t",)),
        ("postgres", "SELECT 'DELETE FROM t; DROP TABLE t' AS \"insert\"", ()),
        ("duckdb", "FROM t SELECT a", ("t",)),
        ("duckdb", "SELECT * FROM read_parquet('x.parquet') JOIN read_csv('y.csv') USING (a)", ()),
        ("duckdb", "SELECT {'a': 1} AS s, struct_pack(b := 2) AS p, list_transform(l, x -> x + 1) AS l FROM t", ("t",)),
        ("duckdb", "PIVOT sales ON year USING sum(amount)", ("sales",)),
        ("bigquery", "SELECT a FROM `p.d.t`", ("p.d.t",)),
    ],
)
def test_reading_statements_pass_unchanged(dialect: str, sql: str, tables: tuple[str, ...]) -> None:
    resolved = resolve(sql, dialect)

    assert resolved.sql == sql
    assert sorted(resolved.tables) == sorted(tables)


@pytest.mark.parametrize(
    ("dialect", "sql", "what"),
    [
        ("postgres", "INSERT INTO t VALUES (1)", "INSERT"),
        ("postgres", "UPDATE t SET a = 1", "UPDATE"),
        ("postgres", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "DELETE"),
        (
            "postgres",
            "SELECT * FROM t WHERE a IN (WITH d AS (UPDATE u SET a = 1 RETURNING a) SELECT a FROM d)",
            "UPDATE",
        ),
        ("postgres", "SELECT 1 INTO t", "INTO"),
        ("postgres", "SELECT * FROM t FOR UPDATE", "lock"),
        ("postgres", "SELECT 1; DROP TABLE t", "2 statements"),
        ("postgres", "SELECT 1; SELECT 2", "2 statements"),
        ("postgres", "CREATE TABLE t AS SELECT 1", "CREATE"),
        ("postgres", "TRUNCATE t", "TRUNCATE"),
        ("postgres", "COPY t TO PROGRAM 'x'", "COPY"),
        ("postgres", "DO $$ BEGIN END $$", "command"),
        ("postgres", "CALL p()", "command"),
        ("postgres", "EXPLAIN ANALYZE SELECT 1", "command"),
        ("postgres", "SET ROLE admin", "command"),
        ("postgres", "BEGIN", "TRANSACTION"),
        ("postgres", "SELECT pg_read_file('/etc/passwd')", r"pg_read_file\(\)"),
        ("postgres", "SELECT pg_catalog.\"pg_read_file\"('x')", r"pg_read_file\(\)"),
        ("postgres", "SELECT * FROM dblink('x', 'y') AS d(a int)", r"dblink\(\)"),
        ("postgres", "SELECT lo_import('x')", r"lo_import\(\)"),
        ("postgres", "SELECT query_to_xml('DELETE', true, true, '')", r"query_to_xml\(\)"),
        ("duckdb", "ATTACH 'x.db'", "ATTACH"),
        ("duckdb", "PRAGMA database_list", "PRAGMA"),
        ("duckdb", "INSTALL httpfs", "INSTALL"),
        ("duckdb", "SELECT * FROM read_text('/etc/passwd')", r"read_text\(\)"),
        ("duckdb", "SELECT * FROM query('SELECT 1')", r"query\(\)"),
        ("mysql", "SELECT @a := 1", "assignment"),
        ("mysql", "SELECT load_file('x')", r"load_file\(\)"),
        ("mysql", "SELECT 1 /*! INTO OUTFILE 'x' */", "executable comment"),
        ("mysql", "SELECT a FROM t LOCK IN SHARE MODE", "lock"),
        ("sqlite", "SELECT load_extension('x')", r"load_extension\(\)"),
        ("tsql", "SELECT * INTO #t FROM x", "INTO"),
        ("postgres", " -- nothing\n ; ", "empty"),
    ],
)
def test_everything_else_is_refused(dialect: str, sql: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        resolve(sql, dialect)

    assert caught.value.hint


def test_trailing_semicolons_and_comments_go_and_the_rest_stays() -> None:
    text = "-- ünïcode\nSELECT '; --' AS a /* keep */ FROM t -- last ;\n ; ; -- end"

    assert resolve(text).sql == "-- ünïcode\nSELECT '; --' AS a /* keep */ FROM t"


def test_a_mistake_is_placed() -> None:
    with pytest.raises(ConfigurationError, match=r"not valid postgres: .* \(line 2, column 10, at 'oops'\)"):
        resolve("SELECT a\nFROM t x oops")
    with pytest.raises(ConfigurationError, match="cannot be read as SQL"):
        resolve("SELECT 'abc")


@pytest.mark.parametrize(
    ("dialect", "reference", "sql", "table"),
    [
        ("postgres", "table:public.Orders", 'SELECT * FROM "public"."Orders"', "public.Orders"),
        ("postgres", "table: order", 'SELECT * FROM "order"', "order"),
        ("mysql", "table:shop.order", "SELECT * FROM `shop`.`order`", "shop.order"),
        ("bigquery", "table:p.d.t", "SELECT * FROM `p`.`d`.`t`", "p.d.t"),
        ("snowflake", "table:analytics.dim", 'SELECT * FROM "ANALYTICS"."DIM"', "ANALYTICS.DIM"),
        ("snowflake", 'table:analytics."dim"', 'SELECT * FROM "ANALYTICS"."dim"', "ANALYTICS.dim"),
        ("duckdb", 'table:"a.b"."c""d"', 'SELECT * FROM "a.b"."c""d"', 'a.b.c"d'),
    ],
)
def test_a_table_is_selected_whole_and_quoted(dialect: str, reference: str, sql: str, table: str) -> None:
    resolved = resolve(reference, dialect)
    assert (resolved.sql, resolved.tables) == (sql, (table,))


@pytest.mark.parametrize(
    "reference", ["table:", "table:a; DROP TABLE b", "table:(SELECT 1)", "table:f(1)", "table:a, b"]
)
def test_what_is_no_table_is_refused(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name a table"):
        resolve(reference)


def test_a_file_holds_the_query(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "x.sql").write_text("\ufeffSELECT 'é' AS a FROM t;\n", encoding="utf-8")

    assert resolve("file:sql/x.sql", base=tmp_path) == ResolvedQuery("SELECT 'é' AS a FROM t", (("t",),))


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("file:missing.sql", "missing.sql cannot be read: No such file"),
        ("file:../outside.sql", "lies outside"),
        ("file:/etc/hostname", "lies outside"),
        ("file:link.sql", "lies outside"),
        ("file:latin.sql", "latin.sql is not UTF-8"),
        ("file:write.sql", "the query in write.sql must only read, and contains DROP"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, reference: str, why: str) -> None:
    base = tmp_path / "project"
    base.mkdir()
    (tmp_path / "outside.sql").write_text("SELECT 1")
    (base / "link.sql").symlink_to(tmp_path / "outside.sql")
    (base / "latin.sql").write_bytes("SELECT 'é'".encode("latin-1"))
    (base / "write.sql").write_text("DROP TABLE t")

    with pytest.raises(ConfigurationError, match=why):
        resolve(reference, base=base)


def test_an_asset_is_selected_whole() -> None:
    assert resolve("asset:crm/accounts", "duckdb") == ResolvedQuery("SELECT * FROM frame", ())
    assert asset_of(" asset: crm / accounts ") == ("crm", "accounts")
    assert asset_of("SELECT 'asset:crm'") is None
    with pytest.raises(ConfigurationError, match="names no asset"):
        asset_of("asset:crm//accounts")


def model(name: str, package: str = "shop", **changes: object) -> dict[str, object]:
    node = {"resource_type": "model", "package_name": package, "name": name, "relation_name": f'"db"."main"."{name}"'}
    return node | {"config": {}} | changes


def manifest(folder: Path, *nodes: dict[str, object]) -> Path:
    """A dbt project in `folder`."""
    (folder / "target").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: shop")
    named = {f"{node['resource_type']}.{node['package_name']}.{node['name']}": node for node in nodes}
    (folder / "target" / "manifest.json").write_text(json.dumps({"nodes": named}))
    return folder


def test_a_dbt_model_is_its_table(tmp_path: Path) -> None:
    manifest(tmp_path / "dbt", model("dim"), model("test", resource_type="test"))
    expected = ResolvedQuery('SELECT * FROM "db"."main"."dim"', (("db", "main", "dim"),))
    assert resolve("dbt:dim", "duckdb", tmp_path) == expected
    assert resolve("dbt:shop.dim", "duckdb", tmp_path) == expected
    assert dbt_model_of("dbt: dim") == "dim"


def test_a_manifest_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    folder = manifest(tmp_path, model("dim"))
    assert resolve("dbt:dim", "duckdb", tmp_path).tables == ("db.main.dim",)
    path = folder / "target" / "manifest.json"
    path.write_text(path.read_text().replace("main", "prod"))
    os.utime(path, ns=(1, 1))
    assert resolve("dbt:dim", "duckdb", tmp_path).tables == ("db.prod.dim",)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("dbt:dimm", "has no such model"),
        ("dbt:twice", "any of the packages shop, other"),
        ("dbt:gone", "ephemeral"),
    ],
)
def test_a_model_that_cannot_be_read_is_named(tmp_path: Path, reference: str, why: str) -> None:
    gone = model("gone", relation_name=None)
    manifest(tmp_path, model("dim"), model("twice"), model("twice", "other"), gone)
    with pytest.raises(ConfigurationError, match=why):
        resolve(reference, "duckdb", tmp_path)


def test_without_a_manifest_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no dbt_project"):
        resolve("dbt:dim", "duckdb", tmp_path)
    (tmp_path / "dbt_project.yml").touch()
    with pytest.raises(ConfigurationError, match=r"there is no .*manifest"):
        resolve("dbt:dim", "duckdb", tmp_path)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "dbt_project.yml").touch()
    with pytest.raises(ConfigurationError, match="several dbt projects"):
        resolve("dbt:dim", "duckdb", tmp_path)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, ("dim",)),
        ({"schema": "crm"}, ("crm", "dim")),
        ({"meta": {"dagster": {"asset_key": ["a", "b"]}}}, ("a", "b")),
    ],
)
def test_the_asset_of_a_model_is_called_as_dagster_dbt_does(
    tmp_path: Path, config: dict[str, object], key: tuple[str, ...]
) -> None:
    manifest(tmp_path, model("dim", config=config))
    assert dbt_model("dim", tmp_path).asset_key == key
