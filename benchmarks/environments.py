"""The environments of other tools: made once under `.bench/`, from pinned releases, apart from this project's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".bench"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool. requirements: pinned; the first names it and its version. driver: the script that runs it."""

    name: str
    driver: str
    requirements: tuple[str, ...]

    @property
    def version(self) -> str:
        """As pinned."""
        return self.requirements[0].partition("==")[2]

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return FOLDER / f"{self.name}-{self.version}" / "bin" / "python"


DRT = Peer("drt", "peer_drt.py", ("drt-core[postgres]==1.2.1",))
DLT = Peer("dlt", "peer_dlt.py", ("dlt[parquet]==1.31.0", "sqlalchemy>=2,<2.2", "psycopg2-binary>=2.9", "requests"))


def prepare(peer: Peer) -> str | None:
    """Make the environment unless it is there. Returns why that is not possible, in a sentence."""
    done = peer.python.parent.parent / ".installed"
    if done.exists():
        return None
    shutil.rmtree(done.parent, ignore_errors=True)
    print(f"Installing {peer.requirements[0]} into {done.parent} …", file=sys.stderr, flush=True)
    commands = [
        [sys.executable, "-m", "venv", str(done.parent)],
        [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements],
    ]
    for command in commands:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            reason = (ended.stderr.strip() or "no reason given").splitlines()[-1]
            return f"{peer.requirements[0]} cannot be installed: {reason}"
    done.touch()
    return None
