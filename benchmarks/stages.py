"""Where a run spends its time and memory, stage by stage, measured in the real engine.

    python benchmarks/stages.py                    # 100k rows
    python benchmarks/stages.py 1000000 10000000   # as many as you like

Each size runs in a process of its own: a first sync from DuckDB (or `--postgres`) to a loopback service,
then an unchanged one. Methods of the engine are wrapped with a clock; nothing else changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

from data import duckdb_table, postgres
from measure import MARK, drive, peak_memory
from ours import prepare, run
from server import Server

from dagster_retl.engine import planning
from dagster_retl.engine.commit import Closer
from dagster_retl.engine.delivery import Delivery
from dagster_retl.engine.payload import Payload
from dagster_retl.engine.stage import Stage
from dagster_retl.mapping.compile import CompiledMapping
from dagster_retl.service import Service

STAGES = ("extract", "map", "key, fingerprint, stage", "diff", "payload, manifest", "deliver", "fold")


@dataclass(slots=True)
class Spent:
    """seconds and CPU seconds of a stage, without those of stages inside it; peak: bytes of memory at most."""

    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0


@dataclass(slots=True)
class Clock:
    """Adds up what stages of one thread spend. A stage that is inside another one is taken out of it."""

    spent: dict[str, Spent] = field(default_factory=dict)
    threads: dict[str, float] = field(default_factory=dict)
    _inside: list[str] = field(default_factory=list)
    _at: tuple[float, float] = (0.0, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens in this block belongs to the stage."""
        self._turn()
        self._inside.append(name)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def _turn(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._inside:
            spent = self.spent.setdefault(self._inside[-1], Spent())
            spent.seconds += now[0] - self._at[0]
            spent.cpu += now[1] - self._at[1]
            spent.peak = max(spent.peak, peak_memory())
            _forget_peak()
        self._at = now

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Let a function or method count as a stage. Raises `AttributeError` when the engine has no such one."""
        original: Callable[..., Any] = getattr(owner, name)

        @wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return original(*args, **kwargs)

        setattr(owner, name, timed)

    def wrap_source(self) -> None:
        """Let the time in which a source makes its blocks count as `extract`."""
        original = Service.source

        def timed(service: Service, warehouse: Any) -> Any:
            source = original(service, warehouse)
            read = source.read

            @contextmanager
            def reading(*args: Any, **kwargs: Any) -> Iterator[Any]:
                with ExitStack() as stack:
                    with self.stage("extract"):
                        extract = stack.enter_context(read(*args, **kwargs))
                    yield replace(extract, blocks=self._pulled(extract.blocks))

            source.read = reading  # type: ignore[method-assign]  # this object alone is measured
            return source

        setattr(Service, "source", timed)  # noqa: B010 - a method, in the one process that measures

    def _pulled(self, blocks: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.stage("extract"):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def wrap_threads(self) -> None:
        """Let each thread of the delivery say how much CPU it took, by its kind."""
        original = threading.Thread.run

        def timed(thread: threading.Thread) -> None:
            start = time.thread_time()
            try:
                original(thread)
            finally:
                kind = thread.name.rstrip("0123456789-")
                self.threads[kind] = self.threads.get(kind, 0.0) + time.thread_time() - start

        setattr(threading.Thread, "run", timed)  # noqa: B010 - a method, in the one process that measures


def _forget_peak() -> None:
    """Let the peak of memory start anew (Linux alone can)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def measured(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Driver: one run under the clock."""
    clock = Clock()
    clock.wrap_source()
    clock.wrap_threads()
    clock.wrap(CompiledMapping, "apply", "map")
    clock.wrap(Stage, "fill", "key, fingerprint, stage")
    clock.wrap(planning, "diff", "diff")
    clock.wrap(Payload, "write", "payload, manifest")
    clock.wrap(Delivery, "run", "deliver")
    clock.wrap(Closer, "fold", "fold")
    with clock.stage("everything else"):
        told = run(settings)
    stages = {name: [spent.seconds, spent.cpu, spent.peak] for name, spent in clock.spent.items()}
    return {**told, "stages": stages, "threads": clock.threads}


def child(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.split(MARK)[1])
    return result


def table(title: str, rows: int, result: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [f"### {title}: {rows:,} rows in {result['seconds']:.2f} s, {result['cpu']:.2f} s of CPU", ""]
    lines += ["| stage | rows/s | seconds | CPU seconds | peak RSS, MB |", "|---|---:|---:|---:|---:|"]
    names = [*(name for name in STAGES if name in result["stages"]), "everything else"]
    for name in names:
        seconds, cpu, peak = result["stages"][name]
        rate = f"{rows / seconds:,.0f}" if seconds > 0 and name != "everything else" else ""
        lines.append(f"| {name} | {rate} | {seconds:.2f} | {cpu:.2f} | {peak / 1e6:.0f} |")
    threads = ", ".join(f"{name} {cpu:.2f}" for name, cpu in sorted(result["threads"].items()))
    return "\n".join([*lines, "", f"CPU seconds of threads: {threads}", ""])


def measure_size(rows: int, given: argparse.Namespace) -> None:
    """A first and an unchanged sync."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(latency=given.latency, keep=False))
        if given.postgres:
            warehouse = stack.enter_context(postgres()).table(rows)
        else:
            warehouse = duckdb_table(folder / "warehouse.duckdb", rows)
        settings = {
            "folder": str(folder),
            "warehouse": warehouse,
            "destination": server.url,
            "batch_rows": given.batch_rows,
            "concurrency": given.concurrency,
        }
        print(table("First sync", rows, child(settings)), flush=True)
        print(table("Unchanged sync", rows, child(settings)), flush=True)


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", type=int, nargs="*", default=[100_000])
    parser.add_argument("--postgres", action="store_true", help="read from Postgres instead of DuckDB")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before the service answers")
    parser.add_argument("--batch-rows", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    given = parser.parse_args()
    for rows in given.rows:
        measure_size(rows, given)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        drive(measured, prepare)
    else:
        main()
