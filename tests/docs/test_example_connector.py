"""The connector of docs/writing-a-connector.md: it is what the page shows, it installs, and its own tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "acme_connector"
PAGE = (ROOT / "docs" / "writing-a-connector.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example is installed beside this package."""
    folder = tmp_path_factory.mktemp("acme")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder, EXAMPLE], check=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")])}


def _run(environment: dict[str, str], *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_shows_what_the_example_has() -> None:
    files = [*(EXAMPLE / "acme_connector").glob("*.py"), *(EXAMPLE / "tests").glob("*.py")]
    sources = [path.read_text(encoding="utf-8") for path in files]
    shown = _blocks("py")
    assert len(shown) >= 6
    assert [block for block in shown if not any(block in source for source in sources)] == []


def test_the_page_shows_the_entry_point() -> None:
    (block,) = _blocks("toml")
    shown = tomllib.loads(block)["project"]
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert shown.items() <= project.items()


def test_it_is_found_by_its_entry_point(installed: dict[str, str], tmp_path: Path) -> None:
    shown = _run(installed, "-c", "from dagster_retl.cli import main; main()", "connectors", "acme", folder=tmp_path)
    assert "people:write" in shown
    assert "50 rows" in shown


@pytest.mark.long
def test_its_own_tests_pass(installed: dict[str, str], tmp_path: Path) -> None:
    shown = _run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests"), folder=tmp_path)
    assert re.search(r"\d{2} passed", shown)
    assert "failed" not in shown
