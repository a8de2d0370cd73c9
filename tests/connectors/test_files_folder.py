"""Files in a folder of this machine: whole or not there, and what is wrong with a folder that takes none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from file_readers import make_connector, parts, plain, read

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.testing.rows import make_batch


def error_of(folder: Path, object_name: str = "people") -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        make_connector(folder).write(make_batch([{"id": 1}], object_name=object_name))
    return caught.value


def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    account = make_connector(tmp_path).check()
    assert (account.id, account.name) == (str(tmp_path), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_check_needs_a_folder_that_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="there is no folder") as caught:
        make_connector(tmp_path / "nowhere").check()
    assert caught.value.code is ErrorCode.CONFIGURATION
    assert "mount it" in str(caught.value.hint)
    assert not (tmp_path / "nowhere").exists()


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    error = error_of(tmp_path / "nowhere")
    assert error.code is ErrorCode.CONFIGURATION
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(DestinationError):
        make_connector(tmp_path / "nowhere").objects()


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "people").touch()
    error = error_of(tmp_path)
    assert (error.code, error.vendor_code) == (ErrorCode.CONFIGURATION, "ENOTDIR")
    assert str(tmp_path / "people") in error.message


def test_a_name_that_is_too_long_is_the_configurations_fault(tmp_path: Path) -> None:
    error = error_of(tmp_path, "x" * 300)
    assert (error.code, error.vendor_code) == (ErrorCode.CONFIGURATION, "ENAMETOOLONG")


AS_NOBODY = """
import os, sys
from file_readers import make_connector
from dagster_retl.errors import DestinationError
from dagster_retl.testing.rows import make_batch

connector = make_connector(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
for do in (connector.check, connector.objects, lambda: connector.write(make_batch([{"id": 1}]))):
    try:
        do()
    except DestinationError as error:
        print(error.code, error.vendor_code, error.message)
"""

LIMITED = """
import resource, sys
from file_readers import make_connector
from dagster_retl.errors import DestinationError
from dagster_retl.testing.rows import make_batch

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    make_connector(sys.argv[1]).write(make_batch([{"id": 1, "text": "x" * 200_000}]))
except DestinationError as error:
    print(error.code, error.vendor_code, error)
"""

FOREVER = """
import sys
import orjson
from dataclasses import replace
from file_readers import make_connector
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing.rows import MadeRow

size = int(sys.argv[2])
row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":1,"text":"' + b"x" * size + b'"}'))
batch = Batch("people", Operation.UPSERT, [row] * 20, ("id",), "k", "run")
connector = make_connector(sys.argv[1], format="jsonl")
print("ready", flush=True)
for number in range(1_000_000):
    connector.write(replace(batch, number=number))
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="users and rights are POSIX")
@pytest.mark.parametrize("rights", [0o555, 0o000])
def test_missing_rights_end_the_run(rights: int) -> None:
    with TemporaryDirectory() as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "out"
        folder.mkdir()
        folder.chmod(rights)
        output, errors = child(AS_NOBODY, folder).communicate(timeout=60)
        folder.chmod(0o755)
        assert errors == ""
        assert len(output.splitlines()) == (2 if rights else 3), "a folder that can be read can be listed"
        assert all(line.startswith("PERMISSION EACCES cannot") for line in output.splitlines())
        assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    output, errors = child(LIMITED, tmp_path).communicate(timeout=60)
    assert errors == ""
    assert output.startswith("DESTINATION_DOWN EFBIG cannot write")
    assert "Free some space" in output
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def files_with_content(folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*.*"):
        try:
            if path.is_file() and path.stat().st_size:
                found.append(path)
        except FileNotFoundError:  # it was renamed this very moment
            continue
    return found


def killed_while_writing(folder: Path, size: int, after: float) -> None:
    """Kill a process so many seconds after there is a file with something in it."""
    with child(FOREVER, folder, size) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + 60
        while not files_with_content(folder):
            assert process.poll() is None
            assert time.monotonic() < until
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_writer_that_is_killed_leaves_no_half_file_that_looks_whole(tmp_path: Path) -> None:
    """In the middle of its first file, which takes a while."""
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        killed_while_writing(folder, 10_000_000, after=0)
        assert all(plain(path).count(b"\n") == 20 for path in parts(folder))
        (left,) = files_with_content(folder)
        if left.stat().st_size < 200_000_000:
            assert left.name.startswith(".part-00000-")
            assert left.name.endswith(".tmp")
            return
        left.unlink()
    raise AssertionError("no writer was killed in the middle of a file")


@pytest.mark.parametrize("after", [0.01, 0.05, 0.1])
def test_every_part_that_a_killed_writer_leaves_is_whole(tmp_path: Path, after: float) -> None:
    killed_while_writing(tmp_path, 20_000, after)
    found = parts(tmp_path)
    assert [len(read(path)) for path in found] == [20] * len(found)
    make_connector(tmp_path, format="jsonl").write(make_batch([{"id": 1}], object_name="people"))
    assert len(parts(tmp_path)) == len(found) + 1
