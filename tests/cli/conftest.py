"""Fixtures of the command line: a shop to work in, and the bare program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_shop import TOKEN, Shop, build_shop, forget_environment, refuse
from click.testing import CliRunner, Result

from dagster_retl.cli import main
from dagster_retl.testing import FakeHttpService, Rules


@pytest.fixture
def service() -> Iterator[FakeHttpService]:
    with FakeHttpService(Rules(token=TOKEN, refuse=refuse)) as running:
        yield running


@pytest.fixture(scope="session")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Dagster instance for all shops: to set one up takes longer than a run."""
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture
def shop(tmp_path: Path, dagster_home: Path, service: FakeHttpService, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop of the test's own."""
    forget_environment(monkeypatch)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    return build_shop(tmp_path, service)


@pytest.fixture
def call_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `retl …` in a folder, without `--project`."""

    def call(folder: Path, *arguments: str) -> Result:
        forget_environment(monkeypatch)
        monkeypatch.chdir(folder)
        return CliRunner().invoke(main, list(arguments))

    return call
