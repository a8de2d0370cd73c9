"""Settings of `sftp` that cannot be meant are refused before anybody is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sftp_server import PASSWORD

from dagster_retl.connectors.sftp import SftpConnector
from dagster_retl.connectors.sftp_config import SftpConfig


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"password": None}, "needs 'password', 'private_key' or 'private_key_file'"),
        ({"private_key": "a", "private_key_file": "b"}, "not both"),
        ({"passphrase": "a"}, "is for a private key"),
        ({"host_key": "SHA256:abcdef"}, "is not a public key"),
        ({"port": 0}, "port"),
        ({"format": "parquet", "delimiter": ";"}, "'delimiter' is for `format: csv`"),
        ({"ca_file": "x"}, "is for destinations over HTTP"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], problem: str) -> None:
    usual = {"host": "sftp.example.com", "username": "partner", "password": PASSWORD}
    with pytest.raises(ValidationError, match=problem) as caught:
        SftpConfig.model_validate({**usual, **settings})
    assert PASSWORD not in str(caught.value)


def test_files_are_looked_for_beside_the_project(tmp_path: Path) -> None:
    settings = {"host": "h", "username": "u", "private_key_file": "id", "known_hosts": "hosts"}
    config = SftpConfig.model_validate(settings, context={"base": tmp_path})
    assert (config.private_key_file, config.known_hosts) == (str(tmp_path / "id"), str(tmp_path / "hosts"))
    usual = SftpConfig.model_validate({"host": "h", "username": "u", "password": "p"}, context={"base": tmp_path})
    assert usual.known_hosts == "~/.ssh/known_hosts"


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['asyncssh'] = None\n"
        "from dagster_retl.connectors.sftp import *; from dagster_retl.errors import ConfigurationError\n"
        "config = SftpConfig.model_validate({'host': 'h', 'username': 'u', 'password': 'p'})\n"
        "try: SftpConnector(config).check()\n"
        "except ConfigurationError as error: print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'dagster-retl[sftp]'" in told


def test_the_connector_is_not_opened_where_nothing_is_asked() -> None:
    config = SftpConfig.model_validate({"host": "h", "username": "u", "password": "p"})
    connector = SftpConnector(config)
    assert connector.identity() == "sftp://h:22/~"
    assert PASSWORD not in repr(config)
    connector.close()
