"""What a driver says of itself: seconds, CPU seconds and peak memory of the work, imports excluded.

Only the standard library: the drivers of other tools import this in their own environments.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MARK = "benchmark result: "


def peak_memory() -> int:
    """Bytes of memory that this process held at most.

    Linux keeps `ru_maxrss` across exec, so that a child would report what its parent held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def drive(
    work: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    prepare: Callable[[Mapping[str, Any]], None] = lambda settings: None,
) -> None:
    """Run a driver: `work` takes the settings of `sys.argv[1]`; what it returns is printed beside the measures.

    prepare: what happens before the clock starts, such as imports that would otherwise come late.
    """
    settings: dict[str, Any] = json.loads(sys.argv[1])
    prepare(settings)
    before = peak_memory()
    cpu, start = time.process_time(), time.perf_counter()
    told = work(settings)
    seconds = time.perf_counter() - start
    measured = {
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "memory": peak_memory(),
        "memory_before": before,
    }
    print(MARK + json.dumps({**measured, **told}))
