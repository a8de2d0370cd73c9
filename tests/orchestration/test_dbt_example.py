"""`examples/dbt_duckdb`: real dbt models feed syncs to a CRM, in one Dagster process with its own environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from installed import install
from programs import ROOT

from dagster_retl.testing import FakeHttpService

pytestmark = pytest.mark.long

EXAMPLE = ROOT / "examples" / "dbt_duckdb"
PYTHON = EXAMPLE / ".venv" / "bin" / "python"
RUN = """
import json, sys
import dagster as dg
from definitions import defs

specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
instance = dg.DagsterInstance.ephemeral()
job = defs.resolve_implicit_global_asset_job_def()
result = job.execute_in_process(instance=instance, raise_on_error=False)
lineage, counts = {}, {}
for event in result.get_asset_materialization_events():
    metadata = event.materialization.metadata
    if event.asset_key.path[0] == "retl":
        found = metadata["dagster/column_lineage"].value.deps_by_column
        lineage[event.asset_key.path[-1]] = {
            field: sorted([dep.asset_key.to_user_string(), dep.column_name] for dep in each)
            for field, each in found.items()
        }
        counts[event.asset_key.path[-1]] = metadata["dagster/row_count"].value
deps = {key: sorted(dep.asset_key.to_user_string() for dep in spec.deps) for key, spec in specs.items()}
print("RESULT", json.dumps({"success": result.success, "deps": deps, "lineage": lineage, "counts": counts}))
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON.parents[1]} does not exist: `make test-all` makes it")
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".venv", "target", "logs", "*.duckdb"))
    install(folder / "installed")
    return folder


def run(folder: Path, service: FakeHttpService) -> dict[str, Any]:
    variables = os.environ | {
        "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'installed'}",
        "CRM_URL": service.url,
        "SHOP_WAREHOUSE": str(folder / "warehouse.duckdb"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    done = subprocess.run([PYTHON, "-c", RUN], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert told, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(told[0].removeprefix("RESULT "))
    assert found["success"], done.stderr[-5000:]
    return found


def test_models_feed_syncs(example: Path, service: FakeHttpService) -> None:
    service.rules = replace(service.rules, key="external_id")
    found = run(example, service)
    assert found["deps"]["retl/crm_accounts"] == ["dim_accounts"]
    assert found["deps"]["retl/crm_contacts"] == ["dim_accounts", "dim_contacts"]
    assert found["lineage"]["crm_accounts"]["name"] == [["dim_accounts", "name"]]
    assert found["lineage"]["crm_contacts"]["company"] == [["dim_accounts", "name"]]
    assert found["lineage"]["crm_contacts"]["email"] == [["dim_contacts", "email"]]
    assert set(service.records["accounts"]) == {"A-1", "A-2", "A-4"}
    assert service.records["contacts"]["C-1"]["email"] == "ada@aster.example"
    assert found["counts"] == {"crm_accounts": 3, "crm_contacts": 3}
    seed = example / "dbt" / "seeds" / "raw_accounts.csv"
    seed.write_text(seed.read_text().replace("Cedar SA,es,false", "Cedar SA,es,true"))
    assert run(example, service)["counts"] == {"crm_accounts": 1, "crm_contacts": 1}
