"""How long Dagster takes to load many syncs, imports aside: `python benchmarks/load.py [SYNCS …]`.

CPU seconds of one process, which is what it takes on a machine that has nothing else to do. Each
size is measured in a process of its own. Nothing is there to be reached: no store, no warehouse, no
vendor; and nothing is written.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (1_000, 5_000)


def project_data(count: int) -> dict[str, Any]:
    """A project whose syncs differ in query and schedule, over a few hundred tables."""
    syncs = [
        {
            "name": f"sync {number}",
            "source_query": f"SELECT id, name, u.total AS x{number} FROM dim_{number % 200} JOIN orders u USING (id)",
            "destination_id": f"crm_{number % 20}",
            "object_name": f"object_{number}",
            "key": "id",
            "field_mappings": {"id": "id", "name": "upper(name)", "total": f"x{number}"},
            "schedule": f"{number % 60} {number % 24} * * *",
            "owners": ["team:revops"],
        }
        for number in range(count)
    ]
    connector = {"connector": "http", "config": {"url": "http://127.0.0.1:9/{object}"}}
    return {
        "warehouses": {"default": {"url": "postgresql://reader@127.0.0.1:9/none"}},
        "destinations": {f"crm_{number}": connector for number in range(20)},
        "syncs": syncs,
    }


def measure(path: Path) -> dict[str, float]:
    """Seconds: to read the file, to build the definitions, to have Dagster resolve them; MB at the most."""
    import dagster as dg  # noqa: PLC0415 - imports are not measured

    import dagster_retl.sources.query  # noqa: F401, PLC0415
    from dagster_retl import Project, build_definitions, link_upstreams  # noqa: PLC0415

    began = time.process_time()
    project = Project.load(path)
    read = time.process_time()
    definitions = build_definitions(project)
    built = time.process_time()
    dg.Definitions.validate_loadable(definitions)
    resolved = time.process_time()
    link_upstreams(build_definitions(project))
    linked = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "read": read - began,
        "build": built - read,
        "resolve": resolved - built,
        "total": resolved - began,
        "link": linked - resolved,
        "peak_mb": peak,
    }


def main(sizes: list[int]) -> None:
    """Measure and print."""
    print(f"{'syncs':>7} {'read':>7} {'build':>7} {'resolve':>8} {'total':>7} {'link':>7}  seconds; peak MB")
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "retl.yaml"
            path.write_text(json.dumps(project_data(count)))
            command = [sys.executable, "-W", "ignore", __file__, "--measure", str(path)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            left = sorted(each.name for each in Path(folder).iterdir())
            assert left == ["retl.yaml"], left
        seconds = " ".join(f"{found[name]:7.2f}" for name in ("read", "build", "resolve", "total", "link"))
        print(f"{count:>7} {seconds}   {found['peak_mb']:.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
