"""Fixtures of the Dagster tests: a scene, and a Dagster instance on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from scene import Scene

from dagster_retl.testing import FakeHttpService


@pytest.fixture
def service() -> Iterator[FakeHttpService]:
    with FakeHttpService() as running:
        yield running


@pytest.fixture
def scene(tmp_path: Path, service: FakeHttpService) -> Scene:
    return Scene(tmp_path, service)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
