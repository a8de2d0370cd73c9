"""What a run does when something around it is wrong: a clear error, and everything as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worlds import World, project_of, world

from dagster_retl.errors import DestinationError, ErrorCode, RetlError, SourceError
from dagster_retl.model.runs import RunStatus
from dagster_retl.service import Service
from dagster_retl.store.snapshots import Pointer


def pointer(made: World) -> Pointer | None:
    found = made.service.store.snapshots.pointer(made.project.syncs[0].id)
    return found and replace(found, updated_at=None)


@pytest.fixture
def delivered(tmp_path: Path) -> Iterator[World]:
    """A world with one row delivered, and another one waiting."""
    with world(tmp_path) as made:
        made.put((1, "a", 1))
        made.run()
        made.put((2, "b", 2))
        yield made


def fails(made: World, kind: type[RetlError]) -> RetlError:
    before, letters = pointer(made), made.service.dead_letters()
    with pytest.raises(kind) as caught:
        made.run()
    assert pointer(made) == before
    assert made.service.dead_letters() == letters
    run = made.service.runs()[0]
    assert run.status is RunStatus.FAILED
    assert run.error_code == caught.value.code
    assert run.counters.balanced()
    assert made.service.store.leases.holder(made.project.syncs[0].id) is None
    return caught.value


def test_an_unreachable_warehouse(delivered: World) -> None:
    delivered.warehouse.rename(delivered.warehouse.with_suffix(".gone"))
    error = fails(delivered, SourceError)
    assert error.code is ErrorCode.SOURCE_UNAVAILABLE
    assert "default" in error.message
    assert error.hint


def test_an_unreachable_destination(delivered: World) -> None:
    delivered.http.close()
    error = fails(delivered, DestinationError)
    assert error.code is ErrorCode.DESTINATION_DOWN
    assert "127.0.0.1" in error.message
    assert delivered.service.runs()[0].counters.skipped == 1


def test_a_full_disk_in_the_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "small"
    state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(state)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with world(tmp_path) as made:
            small = made.project.model_copy(update={"state": str(state)})
            made.service.project = small
            made.sql("INSERT INTO t SELECT n, 'name ' || hash(n), n FROM range(5000) r(n)")
            error = fails(made, RetlError)
            assert "small" in error.message
            assert made.writes() == 0
            assert list(state.rglob("*.tmp")) == []
    finally:
        subprocess.run(["umount", str(state)], check=True)


def test_an_expression_that_reads_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    mappings: list[dict[str, Any]] = [
        {"source": "id", "destination": "id", "key": True},
        {"source": f"(SELECT content FROM read_text('{secret}'))", "destination": "name"},
    ]
    with world(tmp_path, field_mappings=mappings) as made:
        made.put((1, "a", 1))
        with pytest.raises(RetlError) as caught:
            made.run()
        assert caught.value.code is ErrorCode.CONFIGURATION
        assert "hunter2" not in str(caught.value)
        assert made.writes() == 0


def test_a_query_that_writes(tmp_path: Path) -> None:
    with world(tmp_path, source_query="DELETE FROM t") as made:
        made.put((1, "a", 1))
        with pytest.raises(RetlError, match="SELECT") as caught:
            made.run()
        assert caught.value.code is ErrorCode.CONFIGURATION


def test_no_secret_reaches_store_or_error(tmp_path: Path) -> None:
    token = "s3cr3t-t0ken-value"
    with world(tmp_path, config={"auth": {"type": "bearer", "token": token}}) as made:
        made.http.rules = type(made.http.rules)(refuse=lambda record: f"who sent {token}?")
        made.put((1, "a", 1))
        made.run()
        assert token not in repr(made.service.dead_letters()) + repr(made.project)
        assert "***" in made.service.dead_letters()[0].message


def test_a_service_can_be_opened_twice(tmp_path: Path) -> None:
    project = project_of(tmp_path, "http://127.0.0.1:1")
    with Service.open(project) as one, Service.open(project) as other:
        assert one.store.uuid == other.store.uuid


def test_a_spill_folder_is_made_beside_the_project(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        engine = made.project.engine.model_copy(update={"spill": "scratch/runs"})
        made.service.project = made.project.model_copy(update={"engine": engine})
        made.put((1, "a", 1))
        assert made.run().run.counters.written == 1
        assert (tmp_path / "scratch" / "runs").is_dir()
        assert list((tmp_path / "scratch" / "runs").iterdir()) == []
