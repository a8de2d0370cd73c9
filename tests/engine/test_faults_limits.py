"""What services limit: requests a second, requests a token, rows and bytes a request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from worlds import World, world

from dagster_retl.errors import DestinationError
from dagster_retl.model.runs import RunStatus
from dagster_retl.testing import Rules, faults

NAMES = {str(n): f"name {n}" for n in range(12)}
ONE_BY_ONE = {"batch_rows": 1, "concurrency": 1}
MODES = pytest.mark.parametrize("mode", ["upsert", pytest.param("insert", marks=pytest.mark.long)])
TOKENS = Rules(client=("me", "secret"), token_requests=5)


def fill(made: World) -> None:
    made.sql("DELETE FROM t")
    made.sql("INSERT INTO t SELECT n, 'name ' || n, 1 FROM range(12) r(n)")


def arrived_once(made: World) -> bool:
    """Every row is there, was changed once, and left nothing behind: no letter, no suspect, no request to come."""
    assert set(made.http.applications().values()) == {1}
    assert (made.names(), made.letters(), made.suspects()) == (NAMES, {}, 0)
    before = len(made.http.requests)
    counters = made.run().run.counters
    return (counters.unchanged, counters.requests, len(made.http.requests)) == (12, 0, before)


class TestRateLimit:
    """Nothing that a limit refuses was applied, so that inserts are sent again too."""

    @pytest.mark.parametrize(
        ("mode", "rules"),
        [
            ("upsert", Rules(rate=4, burst=2, rate_headers="x")),
            ("insert", Rules(rate=4, burst=2, rate_headers="ietf-10")),
            ("upsert", Rules(rate=4, burst=2, rate_headers="ietf-6", retry_after=None)),
            ("insert", Rules(rate=4, burst=2, retry_after="seconds")),
            ("upsert", Rules(rate=4, burst=2, retry_after="date")),
        ],
        ids=["x", "ietf-10", "ietf-6-alone", "seconds", "date"],
    )
    def test_of_a_bucket_is_waited_for(self, tmp_path: Path, mode: str, rules: Rules) -> None:
        with world(tmp_path, rules, config={"batch_rows": 2, "concurrency": 3}, sync_mode=mode) as made:
            fill(made)
            run = made.run().run
            assert (run.status, run.counters.written, run.counters.failed) == (RunStatus.SUCCEEDED, 12, 0)
            # More workers than tokens: some request may come too early, and is counted as one.
            assert run.counters.requests == 6 + made.http.refused_by_rate
            assert arrived_once(made)

    @MODES
    def test_for_all_is_waited_for_by_all(self, tmp_path: Path, mode: str) -> None:
        with world(tmp_path, config={"batch_rows": 1, "concurrency": 3}, sync_mode=mode) as made:
            fill(made)
            made.http.script(faults.rate_limited(1), "rate_limited_date", "ok", faults.rate_limited(0.1, "decimal"))
            assert made.run().run.counters.written == 12
            assert arrived_once(made)


@MODES
class TestToken:
    def oauth(self, made_at: str) -> dict[str, Any]:
        return {
            "type": "oauth2", "token_url": f"{made_at}/oauth/token", "client_id": "me", "client_secret": "secret"
        }  # fmt: skip

    def test_that_expires_is_renewed(self, tmp_path: Path, mode: str) -> None:
        with world(tmp_path, TOKENS, config=ONE_BY_ONE, sync_mode=mode) as made:
            fill(made)
            made.service.project = with_auth(made, self.oauth(made.http.url))
            run = made.run().run
            assert (run.status, run.counters.written, run.counters.failed) == (RunStatus.SUCCEEDED, 12, 0)
            asked = [request.path for request in made.http.requests]
            assert asked.count("/oauth/token") == math.ceil(12 / 5)
            assert asked.count("/v1/things") == 12 + 2
            assert arrived_once(made)

    def test_that_is_refused_once_is_renewed(self, tmp_path: Path, mode: str) -> None:
        with world(tmp_path, TOKENS, config=ONE_BY_ONE, sync_mode=mode) as made:
            fill(made)
            made.service.project = with_auth(made, self.oauth(made.http.url))
            made.http.script("ok", "expired_token")
            assert made.run().run.counters.written == 12
            assert arrived_once(made)

    def test_whose_renewal_fails_loses_no_row(self, tmp_path: Path, mode: str) -> None:
        """The service that hands out tokens has faults of its own; they say nothing about rows."""
        with world(tmp_path, TOKENS, config=ONE_BY_ONE, sync_mode=mode) as made:
            fill(made)
            made.service.project = with_auth(made, self.oauth(made.http.url))
            for name in ("reset_after", "reset_before", "truncated"):
                made.http.disturb(faults.named(name), where=lambda request: request.path == "/oauth/token")
            assert made.run().run.counters.written == 12
            assert arrived_once(made)

    def test_that_cannot_be_renewed_ends_the_run(self, tmp_path: Path, mode: str) -> None:
        rules = Rules(token="t")
        with world(tmp_path, rules, config=ONE_BY_ONE, sync_mode=mode) as made:
            fill(made)
            made.service.project = with_auth(made, {"type": "bearer", "token": "t"})
            made.http.script(*["ok"] * 4, "expired_token")
            with pytest.raises(DestinationError, match="401"):
                made.run()
            run = made.service.runs()[0]
            assert (run.status, run.error_code) == (RunStatus.FAILED, "AUTH")
            assert (run.counters.written, run.counters.skipped, made.letters()) == (4, 8, {})
            assert made.run().run.counters.written == 8
            assert arrived_once(made)


def with_auth(made: World, auth: Mapping[str, Any]) -> Any:
    destination = made.project.destinations["http_service"]
    destination = destination.model_copy(update={"config": {**destination.config, "auth": auth}})
    return made.project.model_copy(update={"destinations": {"http_service": destination}})


LIMITS = pytest.mark.parametrize(
    "rules", [Rules(max_rows=2), Rules(max_rows=1), Rules(max_bytes=100)], ids=["rows", "one-row", "bytes"]
)


class TestSize:
    """413. The batches that the engine cuts are larger than the service likes."""

    @LIMITS
    def test_a_request_that_is_too_large_is_halved(self, tmp_path: Path, rules: Rules) -> None:
        with world(tmp_path, rules, config={"concurrency": 1}) as made:
            fill(made)
            counters = made.run().run.counters
            assert (counters.written, counters.failed) == (12, 0)
            assert arrived_once(made)

    def test_a_row_that_is_too_large_alone_is_refused(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(max_bytes=100), config={"concurrency": 1}) as made:
            fill(made)
            made.put((5, "long " * 30, 1))
            for _ in range(2):
                counters = made.run().run.counters
                assert counters.failed == 1
                (letter,) = made.letters().values()
                assert (letter.record_keys, letter.error_code, letter.held) == ({"id": 5}, "PAYLOAD_TOO_LARGE", False)
                assert (letter.vendor_code, letter.message) == ("TOO_LARGE", "at most 100 bytes")
            fill(made)
            assert made.run().run.counters.written == 1
            assert arrived_once(made)

    @LIMITS
    def test_inserts_are_halved_where_refusals_are_atomic(self, tmp_path: Path, rules: Rules) -> None:
        config = {"concurrency": 1, "atomic_rejection": True}
        with world(tmp_path, rules, config=config, sync_mode="insert") as made:
            fill(made)
            assert made.run().run.counters.written == 12
            assert arrived_once(made)

    def test_and_held_where_nobody_says_that_they_are(self, tmp_path: Path) -> None:
        with world(tmp_path, Rules(max_rows=2), config={"concurrency": 1}, sync_mode="insert") as made:
            fill(made)
            counters = made.run().run.counters
            # Batches of ten and of two: the second one is as small as it must be.
            assert (counters.written, counters.failed, len(made.http.requests)) == (2, 10, 2)
            letters = made.letters()
            assert {(letter.error_code, letter.held) for letter in letters.values()} == {("UNKNOWN_OUTCOME", True)}
            assert all("refused as a whole: at most 2 rows" in letter.message for letter in letters.values())
            made.http.rules = Rules()
            made.settle()
            for _, options in made.service.replays([letter.id for letter in letters.values()]):
                made.service.run("things", options)
            assert arrived_once(made)
