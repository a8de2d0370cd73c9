"""What syncs hang on: tables by key, by the table names of other assets, DataFrames, columns."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene import QUIET, Scene

from dagster_retl import Project, Service, build_definitions, link_upstreams
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.runs import RunStatus
from dagster_retl.orchestration.build import standalone_definitions
from dagster_retl.orchestration.instance import open_instance
from dagster_retl.orchestration.launch import launch
from dagster_retl.orchestration.names import JOB_NAME
from dagster_retl.orchestration.upstream import upstreams_metadata, upstreams_of

KEY = dg.AssetKey(["retl", "people"])


def table(key: str, name: str) -> dg.AssetSpec:
    return dg.AssetSpec(dg.AssetKey(key.split("/")), metadata={"dagster/table_name": name})


def definitions(scene: Scene, query: str, *assets: Any, **changes: Any) -> dg.Definitions:
    project = scene.project(scene.sync(source_query=query, **changes))
    return dg.Definitions.merge(build_definitions(project), dg.Definitions(assets=list(assets)))


def deps(defs: dg.Definitions) -> set[str]:
    spec = defs.get_assets_def(KEY).get_asset_spec(KEY)
    return {dep.asset_key.to_user_string() for dep in spec.deps}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT id, name FROM people", {"people"}),
        ("table:main.people", {"main/people"}),
        ("WITH people AS (SELECT * FROM a.b) SELECT id, name FROM people JOIN c USING (id)", {"a/b", "c"}),
        ('SELECT id, name FROM "My Schema"."My ""Table"""', {"My_Schema/My__Table_"}),
        ("SELECT 1 AS id, 'x' AS name", set()),
        ("SELECT id FROM", set()),
    ],
)
def test_tables_are_dependencies_by_key(scene: Scene, query: str, expected: set[str]) -> None:
    defs = definitions(scene, query)
    assert deps(defs) == expected
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize(
    ("reads", "names", "expected"),
    [
        ("dim_account", {"dbt/dim": "analytics.main.dim_account"}, "dbt/dim"),
        ("MAIN.Dim_Account", {"dbt/dim": "analytics.main.dim_account"}, "dbt/dim"),
        ("analytics.main.dim_account", {"dbt/dim": "dim_account"}, "dbt/dim"),
        ("main.dim_account", {"dbt/dim": "a.main.dim_account", "raw/dim": "a.raw.dim_account"}, "dbt/dim"),
        ("other.dim_account", {"dbt/dim": "a.main.dim_account"}, "other/dim_account"),
        ("m_account", {"dbt/dim": "a.main.dim_account"}, "m_account"),
    ],
)
def test_a_table_is_the_asset_that_says_so(scene: Scene, reads: str, names: dict[str, str], expected: str) -> None:
    assets = [table(key, name) for key, name in names.items()]
    linked = link_upstreams(definitions(scene, f"SELECT id, name FROM {reads}", *assets))
    assert deps(linked) == {expected}
    dg.Definitions.validate_loadable(linked)


def test_a_table_that_could_be_several_assets_is_none_of_them(scene: Scene) -> None:
    assets = [table("a/dim", "a.main.dim"), table("b/dim", "b.main.dim")]
    with pytest.warns(UserWarning, match="reads 'main.dim', which could be any of the assets a/dim, b/dim"):
        linked = link_upstreams(definitions(scene, "table:main.dim", *assets))
    assert deps(linked) == {"main/dim"}


def test_definitions_without_syncs_are_left_alone() -> None:
    defs = dg.Definitions(assets=[table("a", "a")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [spec.key.to_user_string() for spec in link_upstreams(defs).resolve_all_asset_specs()] == ["a"]


def materialized(defs: dg.Definitions, instance: dg.DagsterInstance, keys: list[dg.AssetKey]) -> dict[str, Any]:
    job = defs.resolve_job_def(JOB_NAME) if keys == [KEY] else defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=keys, run_config={"loggers": QUIET})
    assert result.success
    [event] = [event for event in result.get_asset_materialization_events() if event.asset_key == KEY]
    return {name: value.value for name, value in event.materialization.metadata.items()}


@pytest.mark.parametrize("reads", ["dim_account", "dim_account JOIN (SELECT id AS i FROM main.dim_account) ON i = id"])
def test_a_sync_waits_for_the_asset_that_makes_its_table(
    scene: Scene, instance: dg.DagsterInstance, reads: str
) -> None:
    @dg.asset(key=dg.AssetKey(["zoo", "dim"]), metadata={"dagster/table_name": "main.dim_account"})
    def model() -> None:
        scene.sql("CREATE TABLE dim_account AS SELECT 1 AS id, 'one' AS name")

    linked = link_upstreams(definitions(scene, f"SELECT id, name FROM {reads}", model))
    assert deps(linked) == {"zoo/dim"}
    assert materialized(linked, instance, [model.key, KEY])["retl/rows_written"] == 1


def lineage(metadata: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    found = metadata["dagster/column_lineage"].deps_by_column
    return {field: {(dep.asset_key.to_user_string(), dep.column_name) for dep in each} for field, each in found.items()}


def test_columns_are_followed_through_query_and_mapping(scene: Scene, instance: dg.DagsterInstance) -> None:
    scene.sql("CREATE TABLE jobs AS SELECT i AS person, 'job ' || i AS title, 7 AS pay FROM range(10) r(i)")
    query = """
        WITH busy AS (SELECT person, title AS work, pay * 12 AS yearly FROM jobs)
        SELECT p.id, p.name, busy.work, busy.yearly FROM people p JOIN busy ON busy.person = p.id
    """
    fields = {"id": "id", "label": "upper(name) || ' ' || work", "pay": "yearly", "source": {"value": "x"}}
    defs = definitions(scene, query, table("dbt/people", "w.main.people"), field_mappings=fields)
    assert lineage(materialized(link_upstreams(defs), instance, [KEY])) == {
        "id": {("dbt/people", "id")},
        "label": {("dbt/people", "name"), ("jobs", "title")},
        "pay": {("jobs", "pay")},
    }


def test_a_star_of_one_table_is_followed(scene: Scene, instance: dg.DagsterInstance) -> None:
    found = lineage(materialized(definitions(scene, "table:people"), instance, [KEY]))
    assert found == {"id": {("people", "id")}, "name": {("people", "name")}}


def test_columns_that_cannot_be_told_apart_are_left_out(scene: Scene, instance: dg.DagsterInstance) -> None:
    scene.sql("CREATE TABLE ages AS SELECT i AS person, i + 20 AS age FROM range(10) r(i)")
    defs = definitions(scene, "SELECT * FROM people JOIN ages ON person = id")
    assert "dagster/column_lineage" not in materialized(defs, instance, [KEY])


@dg.asset(key_prefix="crm")
def scores() -> pd.DataFrame:
    return pd.DataFrame({"id": [1, 2, 3], "name": ["a", None, "c"]}, index=pd.Index([7, 8, 9], name="id"))


@dg.asset(key=dg.AssetKey(["crm", "scores"]))
def arrow_scores() -> pa.Table:
    return pa.table({"id": pa.array([1, 2, None], pa.int64()), "name": ["a", "b", "c"]})


def test_a_dataframe_of_an_asset_is_a_source(scene: Scene, instance: dg.DagsterInstance) -> None:
    defs = definitions(scene, "asset:crm/scores", scores)
    assert deps(defs) == {"crm/scores"}
    metadata = materialized(defs, instance, [scores.key, KEY])
    assert metadata["retl/rows_written"] == 3
    assert scene.service.records["people"]["2"] == {"id": 2, "name": None}
    assert lineage(metadata)["name"] == {("crm/scores", "name")}


def test_an_arrow_table_keeps_its_integers(scene: Scene, instance: dg.DagsterInstance) -> None:
    metadata = materialized(definitions(scene, "asset:crm/scores", arrow_scores), instance, [scores.key, KEY])
    assert (metadata["retl/rows_written"], metadata["retl/rows_failed"]) == (2, 1)
    assert scene.service.records["people"]["1"] == {"id": 1, "name": "a"}


def test_what_is_no_table_fails_the_run(scene: Scene, instance: dg.DagsterInstance) -> None:
    @dg.asset(key=dg.AssetKey(["crm", "scores"]))
    def text() -> str:
        return "not a table"

    defs = definitions(scene, "asset:crm/scores", text)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, raise_on_error=False, run_config={"loggers": QUIET}
    )
    failure = result.failure_data_for_node("people")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "asset:crm/scores gave a str" in str(failure.user_failure_data.description)


def test_outside_dagster_a_dataframe_cannot_be_had(scene: Scene) -> None:
    project: Project = scene.project(scene.sync(source_query="asset:crm/scores"))
    with Service.open(project) as service:
        assert [finding.error for finding in service.check(offline=True)] == [None, None]
        with pytest.raises(ConfigurationError, match="only a run in Dagster is given"):
            service.plan("people")


def test_a_run_of_the_project_alone_reads_what_was_stored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    project = scene.project(scene.sync(source_query="asset:crm/scores"), scene.sync(name="tables"))
    dg.Definitions.validate_loadable(standalone_definitions(project))
    with open_instance(scene.folder) as instance:
        assert dg.materialize([scores], instance=instance, run_config={"loggers": QUIET}).success
    run = launch(project, "people")
    assert (run.status, run.counters.written) == (RunStatus.SUCCEEDED, 3)
    assert launch(project, "tables").counters.written == 10


names = st.lists(st.sampled_from(["a", "B", "c"]), min_size=1, max_size=3).map(tuple)


@given(reads=names, tables=st.lists(names, unique=True, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_table_is_linked_where_just_one_asset_ends_like_it(
    reads: tuple[str, ...], tables: list[tuple[str, ...]]
) -> None:
    def ends_alike(name: tuple[str, ...]) -> bool:
        return all(x.lower() == y.lower() for x, y in zip(reversed(name), reversed(reads), strict=False))

    assets = [table(f"asset/{number}", ".".join(name)) for number, name in enumerate(tables)]
    own = dg.AssetKey(list(reads))
    sync = dg.AssetSpec(KEY, deps=[own], metadata=upstreams_metadata({".".join(reads): own}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        linked = link_upstreams(dg.Definitions(assets=[*assets, sync]))
    fitting = [spec.key for spec, name in zip(assets, tables, strict=True) if ends_alike(name)]
    [found] = [spec for spec in linked.assets or [] if isinstance(spec, dg.AssetSpec) and spec.key == KEY]
    expected = fitting[0] if len(fitting) == 1 else own
    assert [dep.asset_key for dep in found.deps] == [expected]
    assert upstreams_of(found) == {".".join(reads): expected}
