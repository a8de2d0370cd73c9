"""What importing costs, and what it must not drag in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import dagster as dg
import pytest
from programs import ROOT
from scene import Scene

import dagster_retl
from dagster_retl import build_definitions

ENGINE = (
    "import dagster_retl, dagster_retl.service, dagster_retl.engine.run; dagster_retl.Project, dagster_retl.Service"
)


def python(code: str, **environment: str) -> Any:
    """What `code` leaves in `result`, in a fresh process."""
    command = [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(result))"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return json.loads(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


def test_the_engine_runs_without_what_is_heavy() -> None:
    heavy = {"dagster", "fastapi", "pandas"}
    assert python(f"{ENGINE}\nresult = sorted(set({heavy!r}) & sys.modules.keys())") == []


def test_every_public_name_is_there() -> None:
    assert all(getattr(dagster_retl, name) is not None for name in dagster_retl.__all__)
    assert set(dagster_retl.__all__) <= set(dir(dagster_retl))
    with pytest.raises(AttributeError, match="has no attribute 'Synk'"):
        dagster_retl.Synk  # noqa: B018 - the access is the test


def test_both_code_locations_load(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data()))
    code = """
import definitions, dagster_retl.definitions
found = [definitions.defs, dagster_retl.definitions.defs]
result = [sorted(spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()) for defs in found]
"""
    assert python(code, RETL_PROJECT=str(path)) == [["people", "retl/people"]] * 2


def test_a_thousand_syncs_load_and_touch_nothing(scene: Scene) -> None:
    scheduled = {"schedule": "*/5 * * * *"}
    project = scene.project(*(scene.sync(name=f"sync {number}", **scheduled) for number in range(1_000)))
    before = sorted(project.base.rglob("*"))
    assert len(_loaded(project).resolve_all_asset_specs()) == 1_001  # the table that all of them read is one
    assert sorted(project.base.rglob("*")) == before


def _loaded(project: dagster_retl.Project) -> dg.Definitions:
    definitions = build_definitions(project)
    dg.Definitions.validate_loadable(definitions)
    return definitions
