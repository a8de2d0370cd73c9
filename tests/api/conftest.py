"""Fixtures of the API's tests: a desk, the API in front of it, and a client with every scope."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_desk import Desk, build_desk, client, listening, serving


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with listening() as destination:
        yield build_desk(tmp_path_factory.mktemp("desk"), destination)


@pytest.fixture(scope="module")
def url(desk: Desk) -> Iterator[str]:
    """The address of the API, which finds no Dagster."""
    with serving(desk.project()) as address:
        yield address


@pytest.fixture(scope="module")
def api(desk: Desk, url: str) -> Iterator[httpx.Client]:
    with client(url, desk.key()) as opened:
        yield opened


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Desk]:
    """A desk of the test's own."""
    with listening() as destination:
        yield build_desk(tmp_path, destination)
