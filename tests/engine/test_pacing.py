"""Rates, pauses, and what `Retry-After` says."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from dagster_retl.engine.known_secrets import secrets_in
from dagster_retl.engine.pacing import Pacer, retry_after
from dagster_retl.model.redactor import Redactor

NOON = datetime(2025, 3, 27, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        ("Thu, 27 Mar 2025 12:00:30 GMT", 30.0),
        ("Thu, 27 Mar 2025 11:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=NOON) == seconds


def test_a_rate_is_kept_by_many_threads_together() -> None:
    pacer = Pacer(200.0)
    stop = threading.Event()
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: [pacer.wait(stop) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started >= 39 / 200


def test_a_pause_holds_everybody_and_a_stop_ends_it() -> None:
    pacer = Pacer(None)
    stop = threading.Event()
    pacer.pause(30)
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    pacer.wait(stop)
    assert time.monotonic() - started < 20


def test_secrets_are_found_at_any_depth_and_masked() -> None:
    found = secrets_in({"url": "postgresql://me:hunter22@db/x", "nested": [{"password_of": "mysql://a:s3cret99@h/d"}]})
    assert found == {"hunter22", "s3cret99"}
    assert Redactor(found)("login hunter22 failed at s3cret99") == "login *** failed at ***"
