"""What an installation of this package leaves behind for others to find, for processes that only see its code."""

from __future__ import annotations

import tomllib
from pathlib import Path

from programs import ROOT


def install(folder: Path) -> Path:
    """Write the entry points of pyproject.toml into a folder that goes onto a process's PYTHONPATH."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    information = folder / "dagster_retl_here-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: dagster-retl-here\nVersion: 0\n")
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in entries.items()) for group, entries in groups.items()]
    (information / "entry_points.txt").write_text("\n".join(lines))
    return folder
