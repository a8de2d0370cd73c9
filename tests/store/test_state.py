"""The state folder: what is written stays, what is damaged is named, what nobody needs goes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType

import duckdb
import pytest

from dagster_retl.errors import ConfigurationError, RetlError, StateMissingError
from dagster_retl.store.state import GRACE, State, generation_name, manifest_name

UUID = "0123456789abcdef"


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(str(tmp_path / "state"))


def parquet(path: Path) -> int:
    duckdb.connect().execute(f"COPY (SELECT range AS key FROM range(1000)) TO '{path}' (FORMAT parquet)").close()
    return 1000


def test_a_written_file_is_read_back(state: State) -> None:
    stored = state.write(generation_name(UUID, "s", 7), parquet)
    assert stored.rows == 1000
    path = state.local_path(stored.name, stored.checksum)
    assert duckdb.connect().execute(f"SELECT count(*) FROM '{path}'").fetchone() == (1000,)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert State.open(str(state.folder)).local_path(stored.name, stored.checksum) == path


def test_names_say_whose_they_are_and_are_never_used_twice(state: State) -> None:
    names = {generation_name(UUID, "s", 7) for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(f"s/g-{UUID}-000000000007-") for name in names)
    assert manifest_name(UUID, "s", 7).startswith(f"s/m-{UUID}-000000000007-")
    name = names.pop()
    stored = state.write(name, parquet)
    with pytest.raises(RetlError, match="cannot be written"):
        state.write(name, lambda path: path.write_bytes(b"other") and None)
    assert state.local_path(name, stored.checksum).stat().st_size > 5


def test_file_and_name_are_on_the_disk_before_anybody_hears_of_them(state: State) -> None:
    """The interpreter tells which functions of the system are called; none of them is replaced."""
    done: list[str] = []

    def watch(frame: FrameType, event: str, function: object) -> None:
        if event == "c_call" and function is os.fsync:
            folder = stat.S_ISDIR(os.fstat(frame.f_locals["descriptor"]).st_mode)
            done.append("flush folder" if folder else "flush file")
        elif event == "c_call" and function is os.rename:
            done.append("rename")

    sys.setprofile(watch)
    try:
        state.write(generation_name(UUID, "s", 7), parquet)
    finally:
        sys.setprofile(None)
    assert done == ["flush file", "rename", "flush folder"]


@pytest.mark.parametrize("name", ["", "../x", "s/../../x", "/etc/x", "s//x", "s/.hidden", "s/a b"])
def test_a_name_cannot_leave_the_folder(state: State, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a state file"):
        state.write(name, parquet)


@pytest.mark.parametrize("fresh", [True, False], ids=["next process", "same process"])
def test_damage_and_loss_are_named_with_the_way_out(state: State, fresh: bool) -> None:
    stored = state.write(generation_name(UUID, "s", 1), parquet)
    path = state.local_path(stored.name, stored.checksum)
    reader = State(state.folder) if fresh else state
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateMissingError, match=f"{path.name} is not what was written") as caught:
        reader.local_path(stored.name, stored.checksum)
    assert "--reset" in str(caught.value)
    path.unlink()
    with pytest.raises(StateMissingError, match=f"{path.name} cannot be read"):
        reader.local_path(stored.name, stored.checksum)


def test_another_checksum_is_not_taken_for_a_verified_one(state: State) -> None:
    stored = state.write(generation_name(UUID, "s", 1), parquet)
    state.local_path(stored.name, stored.checksum)
    with pytest.raises(StateMissingError):
        state.local_path(stored.name, stored.checksum.replace("blake2b:", "blake2b:0"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_nothing_and_says_what_to_do(state: State) -> None:
    def fill(path: Path) -> None:
        path.write_bytes(b"begun")
        Path("/dev/full").write_bytes(b"x" * 10)

    with pytest.raises(RetlError, match="No space left") as caught:
        state.write(generation_name(UUID, "s", 1), fill)
    assert "free some space" in str(caught.value)
    assert list((state.folder / "s").iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
import duckdb
from dagster_retl.errors import RetlError
from dagster_retl.store.state import State

def big(path):
    duckdb.connect().execute(f"COPY (SELECT random() FROM range(1000000)) TO '{path}' (FORMAT parquet)")

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    State(Path(sys.argv[1])).write("s/x", big)
except RetlError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_duckdb_running_out_of_space_is_the_same(state: State) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(state.folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "cannot be written" in done.stdout
    assert "free some space" in done.stdout
    assert list((state.folder / "s").iterdir()) == []


def test_a_writer_that_fails_leaves_nothing(state: State) -> None:
    def broken(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        state.write("s/x", broken)
    assert list((state.folder / "s").iterdir()) == []


def test_places_that_are_not_supported_are_named(tmp_path: Path) -> None:
    for url in ("hdfs://bucket/state", "file://host/state"):
        with pytest.raises(ConfigurationError, match=url.split(":", maxsplit=1)[0]):
            State.open(url)
    with pytest.raises(ConfigurationError, match="empty"):
        State.open(" ")
    assert State.open(f"file://{tmp_path}/with%20space").folder == tmp_path / "with space"
    assert State.open(".retl/state", base=tmp_path).folder == tmp_path / ".retl" / "state"


def write_aged(state: State, name: str, age: timedelta) -> str:
    path = state.local_path(name, state.write(name, parquet).checksum)
    moment = time.time() - age.total_seconds()
    os.utime(path, (moment, moment))
    return name


def test_only_old_files_that_nobody_names_go(state: State) -> None:
    old, new = GRACE + timedelta(hours=1), GRACE - timedelta(hours=1)
    named, first, second, third, fourth = (
        write_aged(state, generation_name(UUID, "s", token), old) for token in (1, 2, 3, 9, 10)
    )
    manifest = write_aged(state, manifest_name(UUID, "s", 10), old)
    kept_manifest = write_aged(state, manifest_name(UUID, "s", 10), old)
    recent = write_aged(state, manifest_name(UUID, "s", 11), new)
    foreign = write_aged(state, generation_name("fedcba", "s", 1), old)
    other_sync = write_aged(state, generation_name(UUID, "t", 1), old)
    notes = write_aged(state, "s/notes.txt", old)
    leftover = state.folder / "s" / ".x.parquet.0a.tmp"
    leftover.touch()
    os.utime(leftover, (0, 0))

    removed = state.collect("s", {named, kept_manifest}, store_uuid=UUID)

    assert sorted(removed) == sorted([first, second, manifest, f"s/{leftover.name}"])
    stay = {named, third, fourth, kept_manifest, recent, foreign, other_sync, notes}
    assert {str(path.relative_to(state.folder)) for path in state.folder.rglob("*") if path.is_file()} == stay
    assert state.collect("never", set(), store_uuid=UUID) == []
    assert state.collect("s", {named, kept_manifest}, store_uuid=UUID, generations=1) == [third]
    assert state.collect("s", {kept_manifest}, store_uuid=UUID, generations=0) == [named, fourth]


def test_a_generation_is_needed_until_the_next_one_was_written(state: State) -> None:
    """Who read the pointer right before it moved has a day to read the file, however old that is."""
    hour = timedelta(hours=1)
    ancient, old, last, newest = (
        write_aged(state, generation_name(UUID, "s", token), age)
        for token, age in enumerate([300 * hour, 200 * hour, 100 * hour, 1 * hour])
    )
    assert state.collect("s", {newest}, store_uuid=UUID, generations=1) == [ancient, old]
    assert state.collect("s", {newest}, hour / 2, store_uuid=UUID, generations=1) == [last]
