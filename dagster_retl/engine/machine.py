"""What this machine, or the container (cgroup) that this process runs in, lets a run use.

https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

ENOUGH_MEMORY = 96_000_000
"""Bytes with which the embedded compute engine is as fast as with more: beyond them it works on the disk."""
_SHARE = 8
_LEAST_MEMORY = 64_000_000

_CGROUP = Path("/sys/fs/cgroup")


def spare_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes for the compute engine of a run: an eighth of what there is, and not more than are of use."""
    total = psutil.virtual_memory().total
    limit = _limit(cgroup / "memory.max") or _limit(cgroup / "memory" / "memory.limit_in_bytes") or total
    return max(_LEAST_MEMORY, min(ENOUGH_MEMORY, min(total, limit) // _SHARE))


def processors(cgroup: Path = _CGROUP) -> int:
    """Processors that this process may keep busy, at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    words = _words(cgroup / "cpu.max")
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        usable = min(usable, math.ceil(int(words[0]) / int(words[1])))
    return max(1, usable)


def _limit(file: Path) -> int | None:
    words = _words(file)
    return int(words[0]) if words and words[0].isdigit() else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
