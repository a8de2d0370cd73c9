"""Where files go and what they are called: a name for each part of each run, and no way out of the folder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from file_readers import make_connector, only_part, parts, read
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dagster_retl.connectors.files_names import check_pattern, object_folder, part_name
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch
from dagster_retl.testing.rows import make_batch


def batch_of(*numbers: int, run: str = "retl_run_1", number: int = 0, object_name: str = "people") -> Batch:
    made = make_batch([{"id": n} for n in numbers], object_name=object_name)
    return replace(made, run_id=run, number=number)


def test_a_batch_is_a_file_of_its_run(tmp_path: Path) -> None:
    make_connector(tmp_path).write(batch_of(1, 2, number=7))
    (path,) = parts(tmp_path)
    assert re.fullmatch(r"people/run=retl_run_1/part-00007-[0-9a-f]{8}\.csv", path.relative_to(tmp_path).as_posix())


def test_a_batch_that_is_sent_again_replaces_its_own_file(tmp_path: Path) -> None:
    connector = make_connector(tmp_path)
    connector.write(batch_of(1, 2))
    before = only_part(tmp_path).stat().st_ino
    connector.write(batch_of(1, 2))
    assert only_part(tmp_path).stat().st_ino != before
    assert [row["id"] for row in read(only_part(tmp_path))] == ["1", "2"]


def test_a_part_of_a_batch_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Its key begins as that of the batch does, as the engine makes it."""
    whole = replace(batch_of(1, 2), idempotency_key="f" * 32)
    halves = [replace(whole, rows=whole.rows[n : n + 1], idempotency_key=f"{'f' * 32}-{n}-1") for n in (0, 1)]
    for each in (whole, *halves):
        make_connector(tmp_path).write(each)
    assert len(parts(tmp_path)) == 3


def test_runs_and_batches_have_files_of_their_own(tmp_path: Path) -> None:
    for run, number in (("a", 0), ("a", 1), ("b", 0)):
        make_connector(tmp_path).write(batch_of(1, run=run, number=number))
    assert len(parts(tmp_path)) == 3


@pytest.mark.parametrize(
    ("settings", "ending"),
    [
        ({}, "csv"),
        ({"compression": "gzip"}, "csv.gz"),
        ({"format": "jsonl", "compression": "zstd"}, "jsonl.zst"),
        ({"format": "parquet", "compression": "gzip"}, "parquet"),
    ],
)
def test_a_name_says_what_is_in_the_file(tmp_path: Path, settings: dict[str, str], ending: str) -> None:
    make_connector(tmp_path, **settings).write(batch_of(1))
    assert only_part(tmp_path).name.partition(".")[2] == ending


def test_the_pattern_is_configurable(tmp_path: Path) -> None:
    connector = make_connector(tmp_path, file_name="{run_id}-{number}-{{x}}-{key}.{extension}.txt")
    connector.write(batch_of(1))
    assert re.fullmatch(r"retl_run_1-00000-\{x\}-\w{8}\.csv\.txt", only_part(tmp_path).name)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("part-{number}-{key}", "needs {run_id}"),
        ("{run_id}/{key}", "needs {number}"),
        ("{run_id}/{number}", "needs {key}"),
        ("{run_id}{number}{key}{date}", "has no placeholder {date}"),
        ("{run_id}{number:05d}{key}", "take no format"),
        ("{run_id!r}{number}{key}", "take no format"),
        ("{run_id}{number}{key}{", "literal braces are doubled"),
        ("{run_id}{number}{key}{0}", "has no placeholder {0}"),
        ("../{run_id}{number}{key}", "empty, '.' or '..'"),
        ("/{run_id}{number}{key}", "absolute"),
        ("{run_id}//{number}{key}", "empty, '.' or '..'"),
        ("{run_id}\\{number}{key}", "backslash"),
    ],
)
def test_patterns_that_would_lose_parts_are_refused(tmp_path: Path, pattern: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)):
        make_connector(tmp_path, file_name=pattern)


NAMES = [
    "",
    ".",
    "..",
    "../up",
    "a/../../up",
    "a/..",
    "/etc",
    "//host/share",
    "a//b",
    "a/",
    "C:\\x",
    "C:/x",
    "a\\b",
    "a\0b",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_object_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "out"
    inside.mkdir()
    connector = make_connector(inside)
    for do in (lambda: connector.write(batch_of(1, object_name=name)), lambda: connector.fields(name)):
        with pytest.raises(DestinationError, match="is not the name of a folder below") as caught:
            do()
        assert caught.value.code is ErrorCode.CONFIGURATION
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@given(st.text())
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    root = Path("/srv/out")
    try:
        path = part_name(check_pattern("{run_id}-{number}-{key}"), batch_of(1, object_name=name), "csv")
    except DestinationError:
        return
    resolved = Path(re.sub(r"/+", "/", str(root / path)))
    assert root in resolved.parents
    assert ".." not in resolved.parts
    assert object_folder(name) == name


def test_folders_that_are_there_are_objects(tmp_path: Path) -> None:
    connector = make_connector(tmp_path)
    assert connector.objects() == []
    for name in ("people", "crm/contacts"):
        connector.write(batch_of(1, object_name=name))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").touch()
    assert [info.api_name for info in connector.objects()] == ["crm", "people"]
    assert connector.fields("people") == []
