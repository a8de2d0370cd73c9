"""Components in a Dagster project: `dg scaffold`, `dg check yaml`, `dg list defs`, loading, running, overriding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from installed import install
from programs import ROOT
from scene import QUIET, Scene

from dagster_retl import ReverseEtlComponent, ReverseEtlSyncComponent
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.component_schema import PROJECT_SETTINGS

PYPROJECT = """
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""
DEFINITIONS = """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


class DgProject:
    """A project of `dg`'s in a folder of its own; this package is installed as far as `dg` can see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.defs = folder / "src" / "shop" / "defs"
        self.defs.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(PYPROJECT)
        for name, text in (("__init__.py", ""), ("definitions.py", DEFINITIONS), ("defs/__init__.py", "")):
            (folder / "src" / "shop" / name).write_text(text)
        self._installed = folder / "installed"
        install(self._installed)

    def write(self, path: str, type_name: str, attributes: Mapping[str, Any]) -> Path:
        file = self.defs / path / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump({"type": type_name, "attributes": dict(attributes)}, sort_keys=False))
        return file

    def dg(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (self._installed, ROOT, self.folder / "src")))
        variables = {**os.environ, "PYTHONPATH": path, "DG_CLI_CONFIG": str(self.folder / "none"), **environment}
        variables.pop("DAGSTER_HOME", None)
        command = [sys.executable, "-m", "dagster_dg_cli.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def shop(tmp_path: Path) -> DgProject:
    return DgProject(tmp_path / "shop")


@pytest.fixture
def around(scene: Scene) -> dict[str, Any]:
    """Settings of a project beside those of one sync."""
    data = scene.data()
    del data["syncs"]
    store = {"store": f"sqlite:///{scene.folder}/retl.db", "state": str(scene.folder / "state")}
    warehouses = {"default": {"url": f"duckdb:///{scene.folder}/warehouse.duckdb"}}
    return json.loads(json.dumps({**data, **store, "warehouses": warehouses}))


@pytest.fixture
def component(scene: Scene, around: dict[str, Any]) -> dg.Definitions:
    attributes = {**around, **scene.sync(schedule="0 * * * *")}
    return build(ReverseEtlSyncComponent, attributes)


def build(kind: type[ReverseEtlComponent], attributes: Mapping[str, Any]) -> dg.Definitions:
    tree = dg.ComponentTree.for_test()
    loaded = kind.load(kind.get_model_cls().model_validate(attributes), tree.load_context)
    return loaded.build_defs(tree.load_context)


def _syncs(listed: Mapping[str, Any]) -> list[str]:
    """The keys of the assets that run, not of those that they hang on."""
    return [asset["asset_key"] for asset in listed["assets"] if asset["is_executable"]]


@pytest.mark.long
def test_a_sync_and_a_project_load_side_by_side(shop: DgProject, scene: Scene, around: dict[str, Any]) -> None:
    (shop.folder / "retl.yaml").write_text(
        json.dumps(scene.data(scene.sync(name="from the file", schedule="1 2 * * *")))
    )
    shop.write("project", "dagster_retl.ReverseEtlComponent", {"project_file": "../../../../retl.yaml"})
    one = {"project_file": "../../../../retl.yaml", **scene.sync(schedule="0 * * * *")}
    shop.write("people", "dagster_retl.ReverseEtlSyncComponent", one)
    shop.write("others", "dagster_retl.ReverseEtlSyncComponent", {**around, **scene.sync(name="others")})
    assert "validated successfully" in shop.dg("check", "yaml").stdout
    listed = shop.dg("list", "defs", "--json")
    assert listed.returncode == 0, listed.stderr + listed.stdout
    found = json.loads(listed.stdout)
    assert set(_syncs(found)) == {"retl/from_the_file", "retl/others", "retl/people"}
    assert {schedule["name"] for schedule in found["schedules"]} == {"from_the_file", "people"}
    assert {job["name"] for job in found["jobs"]} == {"retl_syncs", "retl_people", "retl_others"}
    each = ("retl_reaper", "retl_replays", "retl_destination_health")
    sensors = {f"{name}{suffix}" for name in each for suffix in ("", "_people", "_others")}
    assert {sensor["name"] for sensor in found["sensors"]} == sensors | {"retl_alerts"}
    assert {check["key"] for check in found["asset_checks"]} >= {"retl/people:row_balance", "retl/people:failure_rate"}


@pytest.mark.long
def test_mistakes_are_told_with_their_lines(shop: DgProject, scene: Scene, around: dict[str, Any]) -> None:
    attributes = {**around, **scene.sync(), "sync_mode": "upsrt", "shedule": "0 * * * *"}
    file = shop.write("people", "dagster_retl.ReverseEtlSyncComponent", attributes)
    line = 1 + file.read_text().splitlines().index("  sync_mode: upsrt")
    checked = shop.dg("check", "yaml")
    assert checked.returncode == 1
    assert f"defs.yaml:{line}" in checked.stdout
    assert "'shedule' was unexpected" in checked.stdout
    loaded = shop.dg("list", "defs")
    assert loaded.returncode == 1
    said = loaded.stdout + loaded.stderr
    assert f"attributes.sync_mode at {file}:{line}" in said
    assert "Did you mean `upsert`?" in said
    assert "Did you mean `schedule`?" in said


@pytest.mark.long
def test_templates_are_rendered_and_not_judged_before(shop: DgProject, scene: Scene, around: dict[str, Any]) -> None:
    sync = scene.sync(schedule="{{ env.PEOPLE_CRON }}", max_attempts="{{ env('PEOPLE_TRIES', '7') }}")
    attributes = {**around, **sync, "writes": "${PEOPLE_WRITES:-on}"}
    shop.write("people", "dagster_retl.ReverseEtlSyncComponent", attributes)
    assert "validated successfully" in shop.dg("check", "yaml").stdout
    listed = shop.dg("list", "defs", "--json", PEOPLE_CRON="15 3 * * *")
    [schedule] = json.loads(listed.stdout)["schedules"]
    assert schedule["cron_schedule"] == "15 3 * * *"
    wrong = shop.dg("list", "defs", PEOPLE_CRON="often")
    assert "schedule: 'often' is not a cron expression" in wrong.stdout + wrong.stderr
    unset = shop.dg("list", "defs")
    assert "the environment variable PEOPLE_CRON is not set" in unset.stdout + unset.stderr


@pytest.mark.long
@pytest.mark.parametrize("kind", ["ReverseEtlSyncComponent", "ReverseEtlComponent"])
def test_what_scaffolding_writes_is_valid_and_loads(shop: DgProject, kind: str) -> None:
    assert f"dagster_retl.{kind}" in shop.dg("list", "components", "--json").stdout.replace(".components.", ".")
    asked = ("--name", "crm contacts", "--query", "SELECT id FROM contacts") if "Sync" in kind else ()
    scaffolded = shop.dg("scaffold", "defs", f"dagster_retl.{kind}", "retl", *asked)
    assert scaffolded.returncode == 0, scaffolded.stdout + scaffolded.stderr
    written = yaml.safe_load((shop.defs / "retl" / "defs.yaml").read_text())
    assert written["type"] in (f"dagster_retl.{kind}", f"dagster_retl.components.{kind}")
    assert "validated successfully" in shop.dg("check", "yaml").stdout
    listed = shop.dg("list", "defs", "--json", DESTINATION_URL="http://127.0.0.1:9/{object}")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert _syncs(json.loads(listed.stdout)) == (["retl/crm_contacts"] if asked else [])


def test_a_component_runs(component: dg.Definitions, scene: Scene, instance: dg.DagsterInstance) -> None:
    job = component.resolve_job_def("retl_people")
    result = job.execute_in_process(instance=instance, run_config={"loggers": QUIET})
    assert result.success
    assert len(scene.service.records["people"]) == 10
    [schedule] = component.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.job_name == "retl_people"


class Louder(ReverseEtlSyncComponent):
    """What people do with a component: other looks, and something before each run."""

    def get_asset_spec(self, sync: Sync) -> dg.AssetSpec:
        return super().get_asset_spec(sync).replace_attributes(group_name="loud").merge_attributes(tags={"tier": "1"})

    def execute(self, context: dg.AssetExecutionContext, step: Any) -> Iterator[Any]:
        yield dg.AssetObservation(context.asset_key, metadata={"before": step.sync.name})
        yield from super().execute(context, step)


def test_spec_and_execution_can_be_overridden(
    scene: Scene, around: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    defs = build(Louder, {**around, **scene.sync()})
    spec = next(spec for spec in defs.resolve_all_asset_specs() if spec.key.path[0] == "retl")
    assert (spec.group_name, spec.tags["tier"]) == ("loud", "1")
    job = defs.resolve_job_def("retl_people")
    result = job.execute_in_process(instance=instance, run_config={"loggers": QUIET})
    kinds = [event.event_type_value for event in result.all_events]
    assert kinds.index("ASSET_OBSERVATION") < kinds.index("ASSET_MATERIALIZATION")


def test_numbers_in_quotes_stay_text(scene: Scene, around: dict[str, Any]) -> None:
    mapped = {"id": "id", "code": {"value": "010"}, "size": {"value": "10"}}
    attributes = {**around, **scene.sync(field_mappings=mapped)}
    context = dg.ComponentTree.for_test().load_context
    loaded = ReverseEtlSyncComponent.load(ReverseEtlSyncComponent.get_model_cls().model_validate(attributes), context)
    assert [mapping.value for mapping in loaded.project.syncs[0].field_mappings] == [None, "010", "10"]


def test_alerts_survive_yaml_1_1(scene: Scene, around: dict[str, Any]) -> None:
    text = yaml.safe_dump({"attributes": {**around, **scene.sync(), "alerts": [{"notify": ["json://x"]}]}})
    read = yaml.safe_load(text.replace("- notify:", "- on: [run_failed]\n    notify:"))["attributes"]
    assert True in read["alerts"][0]  # what Dagster's reader makes of `on`
    context = dg.ComponentTree.for_test().load_context
    loaded = ReverseEtlSyncComponent.load(ReverseEtlSyncComponent.get_model_cls().model_validate(read), context)
    assert loaded.project.alerts[0].on == ("run_failed",)


def test_every_setting_of_a_project_may_stand_beside_a_sync() -> None:
    inside = {"syncs", "path", "base", "elsewhere"}
    assert set(Project.model_fields) - inside | {"defaults"} == PROJECT_SETTINGS
    assert not PROJECT_SETTINGS & (set(Sync.model_fields) - {"project"})


def test_listing_components_imports_nothing_heavy() -> None:
    heavy = ("duckdb", "pyarrow", "pandas", "sqlglot", "dagster_retl.service", "dagster_retl.engine")
    code = f"import sys, dagster_retl.components; print([name for name in {heavy!r} if name in sys.modules])"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
