"""Files on an SFTP server: whole or not there; who it is, is verified; what is wrong, is said."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import orjson
import pytest
from file_readers import only_part, parts, read
from programs import free_port
from sftp_server import PASSWORD, DropBox, Files, Full, OldFiles, ReadOnly, SftpPlace, WithoutRename

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing.rows import MadeRow, make_batch

PEOPLE = replace(make_batch([{"id": 1}, {"id": 2}], object_name="people"), run_id="retl_run_1", number=3)


def large(size: int) -> Batch:
    row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":"' + b"x" * size + b'"}'))
    return Batch("people", Operation.UPSERT, [row], ("id",), "k", "run")


def failure(do: Callable[[], object]) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        do()
    assert PASSWORD not in str(caught.value)
    return caught.value


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def place(tmp_path: Path) -> Any:
    with SftpPlace(tmp_path) as made:
        yield made


@pytest.mark.parametrize("files", [Files, OldFiles])
def test_a_batch_is_a_file_that_is_replaced_when_it_is_sent_again(tmp_path: Path, files: type[Files]) -> None:
    with SftpPlace(tmp_path, files) as place:
        for _ in range(2):
            place.connector().write(PEOPLE)
            path = only_part(place.out)
            assert path.relative_to(place.out).as_posix().startswith("people/run=retl_run_1/part-00003-")
            assert path.read_bytes() == b"id\r\n1\r\n2\r\n"
            path.write_bytes(b"other")
        assert everything(place.out) == [path]
        assert [info.api_name for info in place.connector().objects()] == ["people"]


def test_a_large_file_arrives_whole(place: SftpPlace) -> None:
    place.connector(format="jsonl").write(large(5_000_000))
    (row,) = read(only_part(place.out))
    assert row == {"id": "x" * 5_000_000}


def test_a_check_leaves_nothing(place: SftpPlace) -> None:
    assert place.connector().check().id == f"sftp://127.0.0.1:{place.port}/~/out"
    assert everything(place.root) == []
    assert place.connector(folder="/out").check().id == f"sftp://127.0.0.1:{place.port}/out"
    assert place.connector(folder=".").check().id == f"sftp://127.0.0.1:{place.port}/~"


def test_files_are_handed_over_from_within_a_running_loop(place: SftpPlace) -> None:
    async def write() -> None:
        place.connector().write(PEOPLE)

    asyncio.run(write())
    assert len(parts(place.out)) == 1


# Who logs in


def test_a_private_key_logs_in(place: SftpPlace, tmp_path: Path) -> None:
    place.connector(private_key=place.private_key()).check()
    place.connector(private_key=place.private_key("open sesame"), passphrase="open sesame").check()
    file = tmp_path / "id"
    file.write_text(place.private_key())
    place.connector(private_key_file=str(file)).check()
    assert place.logins >= 3


def test_what_does_not_log_in_is_named(place: SftpPlace, tmp_path: Path) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    for wrong in ({"password": "wrong"}, {"username": "nobody"}, {"private_key": stranger}):
        error = failure(place.connector(**wrong).check)
        assert (error.code, error.vendor_code) == (ErrorCode.AUTH, "SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE")
        assert f"cannot connect to 127.0.0.1:{place.port}" in error.message
    assert place.logins == 0


def test_a_private_key_that_cannot_be_read_is_not_shown(place: SftpPlace, tmp_path: Path) -> None:
    locked = place.private_key("open sesame")
    for wrong in (
        {"private_key": locked, "passphrase": "guess"},
        {"private_key": locked},
        {"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"},
        {"private_key_file": str(tmp_path / "nowhere")},
    ):
        error = failure(place.connector(**wrong).check)
        assert error.code is ErrorCode.CONFIGURATION
        assert "private key" in error.message
        assert "c2VjcmV0" not in str(error)
        assert "guess" not in str(error)


def test_no_key_but_the_configured_one_is_tried(place: SftpPlace, tmp_path: Path) -> None:
    """A key in the usual folder of the user would log in."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(place.private_key())
    place.known_hosts(home / ".ssh" / "known_hosts")
    code = (
        "import sys, json; from dagster_retl.connectors.sftp import *; from dagster_retl.errors import *\n"
        "try: SftpConnector(SftpConfig.model_validate(json.loads(sys.argv[1]))).check()\n"
        "except DestinationError as error: print(error.code)"
    )
    settings = {"host": "127.0.0.1", "port": place.port, "username": "partner", "folder": "out"}
    told = []
    for password in ("wrong", PASSWORD):
        command = [sys.executable, "-c", code, orjson.dumps({**settings, "password": password}).decode()]
        environment = {**os.environ, "HOME": str(home)}
        told.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    assert told == ["AUTH", ""], "known_hosts of the user is read, keys are not"


# Who the server is


def test_a_server_that_is_not_the_one_that_is_trusted_gets_nothing(place: SftpPlace, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    for trust in (
        {"host_key": other},
        {"known_hosts": str(place.known_hosts(tmp_path / "known_hosts", other))},
    ):
        error = failure(lambda trust=trust: place.connector(**trust).write(PEOPLE))  # type: ignore[misc]
        assert (error.code, error.vendor_code) == (ErrorCode.CONFIGURATION, "SSH_DISCONNECT_HOST_KEY_NOT_VERIFIABLE")
        assert place.host_key in error.message
        assert "another way" in str(error.hint)
    assert place.logins == 0
    assert everything(place.out) == []


def test_a_server_that_is_not_known_is_not_trusted_at_first_sight(place: SftpPlace, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("elsewhere.example.com " + place.host_key + "\n")
    error = failure(place.connector(known_hosts=str(empty)).check)
    assert error.vendor_code == "SSH_DISCONNECT_HOST_KEY_NOT_VERIFIABLE"
    error = failure(place.connector(known_hosts=str(tmp_path / "nowhere")).check)
    assert error.code is ErrorCode.CONFIGURATION
    assert "there is no file" in error.message
    assert place.logins == 0
    assert "elsewhere" in empty.read_text()
    assert place.host_key not in empty.read_text().replace("elsewhere.example.com " + place.host_key, "")


def test_a_server_without_a_key_of_the_trusted_kind_is_not_trusted(place: SftpPlace) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    lost = "SSH_DISCONNECT_10"  # asyncssh may see the end of the connection before its own verdict
    tries = (failure(place.connector(host_key=other).check) for _ in range(20))
    error = next(each for each in tries if each.vendor_code != lost)
    assert place.logins == 0
    assert (error.code, error.vendor_code) == (ErrorCode.CONFIGURATION, "SSH_DISCONNECT_KEY_EXCHANGE_FAILED")
    assert "of a kind that `host_key` has" in error.message


def test_known_hosts_are_trusted(place: SftpPlace, tmp_path: Path) -> None:
    place.connector(known_hosts=str(place.known_hosts(tmp_path / "known_hosts"))).check()
    assert place.logins == 1


# What is wrong


def test_a_missing_folder_is_not_made(place: SftpPlace) -> None:
    connector = place.connector(folder="nowhere")
    for do in (connector.check, connector.objects, lambda: connector.write(PEOPLE)):
        error = failure(do)
        assert error.code is ErrorCode.CONFIGURATION
        assert "there is no folder sftp://127.0.0.1" in error.message
    assert not (place.root / "nowhere").exists()


@pytest.mark.parametrize(
    ("files", "code", "problem"),
    [
        (ReadOnly, ErrorCode.PERMISSION, "SSH_FX_PERMISSION_DENIED"),
        (WithoutRename, ErrorCode.PERMISSION, "SSH_FX_PERMISSION_DENIED"),
        (Full, ErrorCode.DESTINATION_UNAVAILABLE, "SSH_FX_4"),
    ],
)
def test_a_server_that_takes_no_files_says_why(
    tmp_path: Path, files: type[Files], code: ErrorCode, problem: str
) -> None:
    with SftpPlace(tmp_path, files) as place:
        for do in (lambda: place.connector().write(PEOPLE), place.connector().check):
            error = failure(do)
            assert (error.code, error.vendor_code, error.ambiguous) == (code, problem, False)
        assert everything(place.out) == []


def test_who_may_only_write_hands_files_over(tmp_path: Path) -> None:
    with SftpPlace(tmp_path, DropBox) as place:
        place.connector().check()
        place.connector().write(PEOPLE)
        assert len(parts(place.out)) == 1


def test_a_server_that_is_not_there_can_be_asked_again(place: SftpPlace) -> None:
    error = failure(lambda: place.connector(port=free_port()).write(PEOPLE))
    assert (error.code, error.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, False)
    error = failure(lambda: place.connector(host="no-such-host.invalid").write(PEOPLE))
    assert (error.code, error.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, False)


def test_a_connection_that_breaks_leaves_no_half_file_that_looks_whole(tmp_path: Path) -> None:
    with SftpPlace(tmp_path, hang_up_at=2_000_000) as place:
        error = failure(lambda: place.connector(format="jsonl").write(large(5_000_000)))
        assert (error.code, error.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, False)
        assert parts(place.out) == []
        (left,) = everything(place.out)
        assert left.name.endswith(".tmp")


WRITING = """
import sys, json
import orjson
from sftp_server import SftpConfig, SftpConnector
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing.rows import MadeRow

row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":"' + b"x" * 40_000_000 + b'"}'))
connector = SftpConnector(SftpConfig.model_validate(json.loads(sys.argv[1])))
connector.write(Batch("people", Operation.UPSERT, [row], ("id",), "k", "run"))
"""


def test_a_process_killed_while_it_uploads_leaves_no_file(place: SftpPlace) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", WRITING, orjson.dumps(place.settings(format="jsonl")).decode()]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 60
        while sum(path.stat().st_size for path in everything(place.out)) < 1_000_000:
            assert child.poll() is None, child.communicate()[1].decode()
            assert time.monotonic() < until
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert parts(place.out) == []
    (left,) = everything(place.out)
    assert left.stat().st_size < 40_000_000
    place.connector().write(PEOPLE)
    assert len(parts(place.out)) == 1
