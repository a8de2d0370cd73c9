"""The `sftp` connector against OpenSSH's own server, where that is installed (Debian: openssh-server)."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from file_readers import only_part, read
from programs import free_port

from dagster_retl.connectors.sftp import SftpConnector
from dagster_retl.connectors.sftp_config import SftpConfig
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.testing.rows import make_batch

PEOPLE = replace(make_batch([{"id": 1}, {"id": 2}], object_name="people"), run_id="retl_run_1", number=3)


@dataclass(frozen=True)
class OpenSsh:
    """A server whose keys are in a folder, and a folder for files."""

    folder: Path
    port: int

    def connector(self, **others: Any) -> SftpConnector:
        usual = {
            "host": "127.0.0.1",
            "port": self.port,
            "username": getpass.getuser(),
            "private_key_file": str(self.folder / "user"),
            "host_key": (self.folder / "host.pub").read_text().strip(),
            "folder": str(self.folder / "out"),
            "timeout": 10,
        }
        return SftpConnector(SftpConfig.model_validate({**usual, **others}))


@pytest.fixture
def openssh(tmp_path: Path) -> Iterator[OpenSsh]:
    server = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if server is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    for name, passphrase in (("host", ""), ("user", ""), ("locked", "open sesame")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", tmp_path / name], check=True)
    authorized = tmp_path / "authorized"
    authorized.write_text((tmp_path / "user.pub").read_text() + (tmp_path / "locked.pub").read_text())
    (tmp_path / "out").mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # its unprivileged part is in there
    port = free_port()
    settings = {
        "ListenAddress": "127.0.0.1", "Port": port, "HostKey": tmp_path / "host", "PidFile": "none", "UsePAM": "no",
        "AuthorizedKeysFile": authorized, "StrictModes": "no", "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    process = subprocess.Popen([server, "-D", "-e", "-f", "/dev/null", *options], stderr=subprocess.PIPE)
    place = OpenSsh(tmp_path, port)
    try:
        _await(place, process)
        yield place
    finally:
        process.terminate()
        process.communicate()


def _await(place: OpenSsh, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()[1].decode()
        with suppress(DestinationError):
            place.connector().check()
            return
        time.sleep(0.05)
    place.connector().check()


def test_a_batch_is_a_file_that_is_replaced_when_it_is_sent_again(openssh: OpenSsh) -> None:
    out = openssh.folder / "out"
    for _ in range(2):
        openssh.connector().write(PEOPLE)
        path = only_part(out)
        assert [row["id"] for row in read(path)] == ["1", "2"]
        path.write_bytes(b"other")
    assert [each for each in out.rglob("*") if each.is_file()] == [path]
    assert [info.api_name for info in openssh.connector().objects()] == ["people"]


def test_a_key_with_a_passphrase_logs_in(openssh: OpenSsh) -> None:
    locked = {"private_key_file": str(openssh.folder / "locked")}
    openssh.connector(**locked, passphrase="open sesame").check()
    for wrong in (locked, {**locked, "passphrase": "guess"}):
        with pytest.raises(DestinationError, match="private key") as caught:
            openssh.connector(**wrong).check()
        assert caught.value.code is ErrorCode.CONFIGURATION


def test_what_is_wrong_is_said(openssh: OpenSsh) -> None:
    stranger = {"host_key": (openssh.folder / "user.pub").read_text()}
    for wrong, code, problem in (
        ({"folder": str(openssh.folder / "nowhere")}, ErrorCode.CONFIGURATION, "there is no folder"),
        ({"username": "no-such-user"}, ErrorCode.AUTH, "cannot connect"),
        (stranger, ErrorCode.CONFIGURATION, "is not the one that is trusted"),
    ):
        with pytest.raises(DestinationError, match=problem) as caught:
            openssh.connector(**wrong).write(PEOPLE)
        assert caught.value.code is code
