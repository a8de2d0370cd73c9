"""What staging and payload are made of: blocks on disk, work in threads, memory and processors of the machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dagster_retl.changes.outcomes import Outcomes, Status, outcome_table
from dagster_retl.engine.machine import ENOUGH_MEMORY, processors, spare_memory
from dagster_retl.engine.parallel import map_in_order
from dagster_retl.engine.spool import Spool


def test_blocks_come_back_as_they_were_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "rows")
    late, early = pa.table({"a": ["x", None], "b": [1, 2]}), pa.table({"a": ["y"], "b": [3]})
    spool.append(10, 11, late)
    spool.append(1, 1, early)
    assert list(spool.ranges()) == [(1, 1), (10, 11)]
    assert (spool.read(10), spool.read(1)) == (late, early)


def test_results_come_in_order_and_items_are_read_a_few_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(20):
            read.append(number)
            yield number

    first_may_end = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            first_may_end.wait(10)
        if number == 2:
            first_may_end.set()  # the second thread gets this far while the first one waits
        return number * number

    results = map_in_order(work, items(), threads=2)
    assert next(results) == 0
    assert len(read) == 3
    assert list(results) == [number * number for number in range(1, 20)]


def test_an_error_of_any_item_is_raised_and_ends_the_reading() -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(1_000):
            read.append(number)
            yield number

    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda number: 1 // (number - 3), items(), threads=2))
    assert len(read) < 10


def test_memory_is_a_share_of_what_a_container_may_take(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("640000000\n")
    assert spare_memory(tmp_path) == 80_000_000
    (tmp_path / "memory.max").write_text("100000000\n")
    assert spare_memory(tmp_path) == 64_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert spare_memory(tmp_path) == spare_memory(tmp_path / "none") <= ENOUGH_MEMORY


def test_processors_are_those_that_a_container_may_keep_busy(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert processors(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert processors(tmp_path) == processors(tmp_path / "none") >= 1


def test_a_batch_of_one_outcome_takes_one_row() -> None:
    alike = Outcomes([Status.WRITTEN] * 3).encode()
    mixed = Outcomes([Status.WRITTEN, Status.FAILED]).encode()
    named = Outcomes([Status.WRITTEN] * 2, [1], {0: "id"}).encode()
    rows = outcome_table([(1, "t", alike), (2, "t", mixed), (3, "t", named)]).to_pylist()
    found = [(row["batch"], row["position"], row["status"], row["ambiguous"], row["record_id"]) for row in rows]
    assert found == [
        (1, None, "w", False, None),
        (2, 0, "w", False, None),
        (2, 1, "f", False, None),
        (3, 0, "w", False, "id"),
        (3, 1, "w", True, None),
    ]
