"""Syncs to files, through the engine: first sync, changes, removals, rows that are refused, runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from file_readers import only_part, parts, read
from file_worlds import TABLE, project_of, rows_of, runs, state, warehouse
from object_server import Bucket
from sftp_server import SftpPlace

from dagster_retl.errors import ConfigurationError, DestinationError, ErrorCode
from dagster_retl.model.runs import RunStatus
from dagster_retl.service import Service

FORMATS = [{"format": "csv"}, {"format": "jsonl", "compression": "zstd"}, {"format": "parquet"}]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    warehouse(tmp_path, TABLE, "INSERT INTO t SELECT n, 'name ' || n, n * 1.25 FROM range(25) r(n)")
    return folder


def settings(**others: Any) -> dict[str, Any]:
    return {"url": "out", "operation_column": True, "batch_rows": 10, **others}


def expected(folder: Path) -> dict[str, tuple[str, Decimal]]:
    return {str(key): (name, amount) for key, name, amount in warehouse(folder, "SELECT id, name, amount FROM t")}


def held(out: Path) -> dict[str, tuple[str, Decimal]]:
    return {key: (row["name"], Decimal(row["amount"])) for key, row in state(out).items()}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form["format"])
def test_files_tell_what_changed(tmp_path: Path, out: Path, form: Mapping[str, Any]) -> None:
    with Service(project_of(tmp_path, "files", settings(**form))) as service:
        assert service.run("people").run.counters.written == 25
        (first,) = runs(out)
        assert first == f"run={service.runs()[0].id}"
        assert [path.name[:10] for path in sorted(parts(out))] == ["part-00000", "part-00001", "part-00002"]
        assert list(rows_of(out, first)[0]) == ["_operation", "id", "name", "amount"]
        assert held(out) == expected(tmp_path)

        assert service.run("people").run.counters.unchanged == 25
        assert runs(out) == [first]

        warehouse(tmp_path, "UPDATE t SET amount = 99.99 WHERE id = 7", "DELETE FROM t WHERE id < 3")
        counters = service.run("people").run.counters
        assert (counters.written, counters.deleted, counters.unchanged) == (1, 3, 21)
        told = rows_of(out, runs(out)[-1])
        assert [(row["_operation"], str(row["id"])) for row in told] == [
            ("upsert", "7"), ("delete", "0"), ("delete", "1"), ("delete", "2"),
        ]  # fmt: skip
        assert list(told[-1]) == ["_operation", "id"], "of what is gone, only the key is known"
        assert held(out) == expected(tmp_path)
        assert [info.api_name for info in service.objects("outbox")] == ["people"]


def test_a_row_that_is_refused_waits_as_a_dead_letter(tmp_path: Path, out: Path) -> None:
    warehouse(tmp_path, "UPDATE t SET name = 'a' || chr(0) || 'b' WHERE id = 4")
    with Service(project_of(tmp_path, "files", settings())) as service:
        counters = service.run("people").run.counters
        assert (counters.written, counters.failed) == (24, 1)
        (letter,) = service.dead_letters()
        assert (letter.error_code, letter.record_keys) == ("DESTINATION_VALIDATION", {"id": 4})
        assert "4" not in state(out)
        warehouse(tmp_path, "UPDATE t SET name = 'mended' WHERE id = 4")
        assert service.run("people").run.counters.written == 1
        assert service.dead_letters() == []
        assert held(out) == expected(tmp_path)


def test_types_of_the_warehouse_arrive_in_parquet(tmp_path: Path, out: Path) -> None:
    columns = {
        "id": "9223372036854775807::BIGINT",
        "amount": "12345678901234567.89::DECIMAL(20, 2)",
        "moment": "TIMESTAMPTZ '2025-03-27 18:00:00.123456+01'",
        "local": "TIMESTAMP '2025-03-27 18:00:00'",
        "day": "DATE '2025-03-27'",
        "flag": "true",
        "raw": "'\\x00\\xFF'::BLOB",
        "tags": "['a', NULL]",
        "person": "{'name': 'Zoë', 'age': 7}",
    }
    query = "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    sync = {"source_query": query, "sync_mode": "upsert", "field_mappings": {name: name for name in columns}}
    with Service(project_of(tmp_path, "files", settings(format="parquet", operation_column=False), **sync)) as service:
        assert service.run("people").run.counters.written == 1
    table = pq.ParquetFile(only_part(out)).read()
    assert table.column_names == list(columns)
    assert table.to_pylist() == [
        {
            "id": 2**63 - 1,
            "amount": Decimal("12345678901234567.89"),
            "moment": datetime(2025, 3, 27, 17, 0, 0, 123456, UTC),
            "local": datetime(2025, 3, 27, 18),  # noqa: DTZ001  # it has none
            "day": datetime(2025, 3, 27, tzinfo=UTC).date(),
            "flag": True,
            "raw": b"\x00\xff",
            "tags": ["a", None],
            "person": {"name": "Zoë", "age": 7},
        }
    ]


def test_a_mode_that_removes_needs_the_column_that_says_so(tmp_path: Path, out: Path) -> None:
    for mode in ("mirror", "delete"):
        project = project_of(tmp_path, "files", settings(operation_column=False), sync_mode=mode)
        with Service(project) as service, pytest.raises(ConfigurationError, match="operation_column: true"):
            service.run("people")
    assert list(out.iterdir()) == []


def test_rows_that_are_to_be_deleted_are_told(tmp_path: Path, out: Path) -> None:
    with Service(project_of(tmp_path, "files", settings(batch_rows=100), sync_mode="delete")) as service:
        service.run("people")
    assert {row["_operation"] for row in read(only_part(out))} == {"delete"}
    assert len(read(only_part(out))) == 25


def test_an_object_that_leads_out_of_the_folder_ends_the_run(tmp_path: Path, out: Path) -> None:
    with Service(project_of(tmp_path, "files", settings(), object_name="../elsewhere")) as service:
        with pytest.raises(DestinationError, match="is not the name of a folder below"):
            service.run("people")
        assert service.runs()[0].error_code == "CONFIGURATION"
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_gone_costs_nothing(tmp_path: Path, out: Path) -> None:
    out.rename(tmp_path / "away")
    with Service(project_of(tmp_path, "files", settings())) as service:
        with pytest.raises(DestinationError, match="there is no folder") as caught:
            service.run("people")
        assert caught.value.code is ErrorCode.CONFIGURATION
        (tmp_path / "away").rename(out)
        assert service.run("people").run.counters.written == 25
        assert held(out) == expected(tmp_path)


# Runs that are killed


def killed(folder: Path, out: Path, config: Mapping[str, Any], files: int, **sync: Any) -> None:
    """Start a run in a process of its own and kill it once there are so many files."""
    given = json.dumps({"connector": "files", "config": config, "sync": sync})
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, str(Path(__file__).parent / "file_worlds.py"), str(folder), given]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 60
        while len(parts(out)) < files:
            assert child.poll() is None, child.communicate()[1].decode()
            assert time.monotonic() < until
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.communicate()


@pytest.mark.parametrize("files", [1, 20])
def test_a_killed_run_is_finished_by_the_next_one(tmp_path: Path, out: Path, files: int) -> None:
    warehouse(tmp_path, "INSERT INTO t SELECT n, 'name ' || n, n FROM range(25, 1000) r(n)")
    config = settings(format="jsonl")
    killed(tmp_path, out, config, files)
    assert all(0 < len(read(path)) <= 10 for path in parts(out)), "every part is whole"
    with Service(project_of(tmp_path, "files", config)) as service:
        counters = service.run("people").run.counters
        dead = service.runs()[1]
        assert (dead.status, dead.error_code) == (RunStatus.FAILED, "INTERRUPTED")
        assert dead.counters.balanced()
        assert counters.written + counters.unchanged == 1000
        assert counters.unchanged == dead.counters.written
        assert len(runs(out)) == 2
        assert held(out) == expected(tmp_path)
        again = {row["id"] for row in rows_of(out, runs(out)[0])} & {row["id"] for row in rows_of(out, runs(out)[1])}
        assert len(again) <= dead.counters.unknown, "only what nobody had answered for is told again"
        warehouse(tmp_path, "DELETE FROM t WHERE id = 999", "UPDATE t SET name = 'x' WHERE id = 0")
        service.run("people")
        assert held(out) == expected(tmp_path)


def test_of_a_killed_insert_nothing_is_told_twice(tmp_path: Path, out: Path) -> None:
    warehouse(tmp_path, "INSERT INTO t SELECT n, 'name ' || n, n FROM range(25, 1000) r(n)")
    config = settings(format="jsonl", settle=0.0)
    killed(tmp_path, out, config, 20, sync_mode="insert")
    with Service(project_of(tmp_path, "files", config, sync_mode="insert")) as service:
        service.run("people")
        letters = service.dead_letters(limit=200)
    told = [row["id"] for path in parts(out) for row in read(path)]
    assert len(told) == len(set(told))
    assert {letter.error_code for letter in letters} <= {"UNKNOWN_OUTCOME"}
    assert set(range(1000)) - set(told) <= {letter.record_keys["id"] for letter in letters}


# Elsewhere


def test_the_same_on_an_object_store(tmp_path: Path, out: Path, bucket: Bucket) -> None:
    config = settings(url=bucket.url("out"), batch_rows=100, format="csv")
    with Service(project_of(tmp_path, "files", config)) as service:
        assert service.run("people").run.counters.written == 25
        warehouse(tmp_path, "DELETE FROM t WHERE id < 3")
        assert service.run("people").run.counters.deleted == 3
    _download(bucket, tmp_path / "copy")
    assert held(tmp_path / "copy" / "out") == expected(tmp_path)


def _download(bucket: Bucket, folder: Path) -> None:
    for name in bucket.names():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.read(name))


def test_the_same_on_an_sftp_server(tmp_path: Path, out: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    with SftpPlace(remote) as place:
        config = place.settings(operation_column=True, batch_rows=10)
        with Service(project_of(tmp_path, "sftp", config)) as service:
            assert service.run("people").run.counters.written == 25
            warehouse(tmp_path, "DELETE FROM t WHERE id < 3", "UPDATE t SET name = 'new' WHERE id = 5")
            counters = service.run("people").run.counters
            assert (counters.written, counters.deleted) == (1, 3)
            assert held(place.out) == expected(tmp_path)
        wrong = project_of(tmp_path, "sftp", {**config, "password": "a wrong password"})
        with Service(wrong) as service, pytest.raises(DestinationError, match="Permission denied") as caught:
            service.run("people")
        assert caught.value.code is ErrorCode.AUTH
