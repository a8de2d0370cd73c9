"""Work on blocks of columns, several at once: DuckDB and Arrow let go of Python's lock while they compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """The results of `work` in the order of `items`, which this thread reads a few ahead, and no more.

    An item should take a fraction of a second: an end that comes early waits for those under way.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="retl-columns")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
