from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from capricious import Capricious
from crash_kinds import Kind
from nursery import Nursery
from scenarios import Prepare, Scenario


@pytest.fixture(scope="session")
def _nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture
def nursery(_nursery: Nursery) -> Iterator[Nursery]:
    """The nursery of all tests; what one of them leaves behind, standing still perhaps, is not the next one's."""
    yield _nursery
    _nursery.clear()


@pytest.fixture
def prepare(tmp_path: Path, nursery: Nursery, request: pytest.FixtureRequest) -> Iterator[Prepare]:
    """Makes the scenario of a kind of run, with a store on SQLite or on Postgres."""
    with ExitStack() as stack:

        def make(kind: Kind, *, postgres: bool = False) -> Scenario:
            store = str(request.getfixturevalue("postgres_url")) if postgres else None
            scenario = Scenario(kind, tmp_path, stack.enter_context(Capricious(kind.rules)), nursery, store)
            scenario.prepare()
            return scenario

        yield make
