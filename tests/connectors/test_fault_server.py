"""The fault server does what it says: tests of connectors and of the engine rely on it."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
import pytest

from dagster_retl.testing import FaultServer, LoopbackServer, Reply, Rules, Trouble, faults
from dagster_retl.testing.fault_server import WEIGHTS

ROWS = [{"id": 1, "name": "a"}, {"id": 2, "name": "bad"}, {"id": 3, "name": "c"}]
APPLIED_THOUGH = (
    "error_500_applied", "unavailable_applied", "reset_after", "hang_applied", "truncated", "invalid_json", "html_200",
    "latency", "drip", "reordered", "missing_answers", "ok",
)  # fmt: skip
NOT_APPLIED = (
    "rate_limited", "rate_limited_date", "error_500", "unavailable", "reset_before", "hang", "html_502",
    "expired_token", "too_many_rows",
)  # fmt: skip
LATE = ("late", "late_unavailable")
BY_CONTENT = ("too_large", "batch_refused", "row_errors", "row_errors_207")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False, trust_env=False, timeout=5) as made:
        yield made


def post(server: FaultServer, client: httpx.Client, rows: list[Any] | None = None, **how: Any) -> httpx.Response:
    return client.post(f"{server.url}/v1/things", json=ROWS if rows is None else rows, **how)


def post_anyhow(server: FaultServer, client: httpx.Client, patience: float = 5.0) -> None:
    """A request whose answer is nobody's concern."""
    with contextlib.suppress(httpx.TransportError):
        post(server, client, timeout=patience)


def test_every_fault_is_of_a_known_kind() -> None:
    assert sorted(faults.CATALOGUE) == sorted([*APPLIED_THOUGH, *NOT_APPLIED, *LATE, *BY_CONTENT])


@pytest.mark.parametrize("name", [*APPLIED_THOUGH, *NOT_APPLIED, *LATE])
def test_what_is_applied_in_a_fault(client: httpx.Client, name: str) -> None:
    with FaultServer(Rules(answers="index")) as server:
        server.script(name)
        post_anyhow(server, client, patience=1.0 if name.startswith(("hang", "late")) else 5.0)
        assert server.met() == {name: 1}
        assert set(server.applications().values()) == ({1} if name in APPLIED_THOUGH else set())
        server.land()
        assert set(server.applications().values()) == (set() if name in NOT_APPLIED else {1})


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    server = FaultServer()
    with pytest.raises(KeyError, match="reset_after"):
        server.script("reset_afterwards")
    with pytest.raises(KeyError, match="drip"):
        server.draw(1, {"drop": 1})
    server._server.server_close()


class TestLog:
    def test_knows_what_it_applied_when_how_often_and_why(self, client: httpx.Client) -> None:
        with FaultServer() as server:
            server.script("reset_after", "unavailable", "ok")
            before = time.monotonic()
            for _ in range(3):
                post_anyhow(server, client)
            assert server.applications() == {("things", "1"): 2, ("things", "2"): 2, ("things", "3"): 2}
            changes = [change for change in server.applied if change.key == "2"]
            assert [change.record for change in changes] == [ROWS[1], ROWS[1]]
            assert before < changes[0].at < changes[1].at < time.monotonic()
            assert [change.request for change in changes] == [server.requests[0], server.requests[2]]
            assert [(i.request, i.trouble.name) for i in server.incidents] == [
                (server.requests[0], "reset_after"),
                (server.requests[1], "unavailable"),
                (server.requests[2], "ok"),
            ]


class TestDraw:
    def bodies(self) -> list[list[dict[str, int]]]:
        return [[{"id": number}] for number in range(60)] * 2

    def drawn(self, seed: int | str, bodies: list[Any], threads: int = 1) -> Counter[tuple[bytes, str]]:
        weights = {"ok": 2, "unavailable": 1, "error_500": 1, "rate_limited": 1}
        with FaultServer(seed=seed, weights=weights) as server, ThreadPoolExecutor(threads) as pool:
            with httpx.Client(verify=False, trust_env=False) as client:
                list(pool.map(lambda rows: post(server, client, rows), bodies))
            return Counter((incident.request.body, incident.trouble.name) for incident in server.incidents)

    def test_the_same_seed_does_the_same(self) -> None:
        assert self.drawn(7, self.bodies()) == self.drawn(7, self.bodies())

    def test_in_whatever_order_requests_come(self) -> None:
        shuffled = self.bodies()
        random.Random(1).shuffle(shuffled)
        assert self.drawn("a", self.bodies()) == self.drawn("a", shuffled, threads=4)

    def test_another_seed_does_something_else(self) -> None:
        assert self.drawn(7, self.bodies()) != self.drawn(8, self.bodies())

    def test_a_request_that_comes_again_may_fare_otherwise(self) -> None:
        drawn = self.drawn(7, self.bodies())
        assert len(drawn) > 60
        assert {name for _, name in drawn} == {"ok", "unavailable", "error_500", "rate_limited"}

    def test_what_is_scripted_comes_first_and_calm_ends_it_all(self, client: httpx.Client) -> None:
        with FaultServer(seed=1, weights={"error_500": 1}) as server:
            server.script("unavailable", "ok")
            assert [post(server, client).status_code for _ in range(3)] == [503, 200, 500]
            server.script("unavailable")
            server.calm()
            assert post(server, client).status_code == 200

    def test_a_bad_day_neither_hangs_nor_ends_a_run(self) -> None:
        assert not {"hang", "hang_applied", "late", "expired_token"} & WEIGHTS.keys()
        assert WEIGHTS.keys() <= faults.CATALOGUE.keys()

    def test_a_service_of_ones_own_draws_too(self, client: httpx.Client) -> None:
        with LoopbackServer(lambda request: Reply(200)) as server:
            server.troubles.draw(1, {faults.unavailable: 1})
            assert client.get(server.url).status_code == 503


class TestWire:
    @pytest.mark.parametrize(
        ("form", "text"), [("seconds", "2"), ("decimal", "1.500"), ("date", None)], ids=["seconds", "decimal", "date"]
    )
    def test_retry_after(self, client: httpx.Client, form: Any, text: str | None) -> None:
        with FaultServer() as server:
            server.script(faults.rate_limited(1.5, form))
            asked = post(server, client).headers["Retry-After"]
            if text is None:
                assert 0 < (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds() <= 3
            else:
                assert asked == text

    def test_late_requests_wait_for_their_turn(self, client: httpx.Client) -> None:
        """An old version lands right after a new one."""
        with FaultServer() as server:
            server.script(faults.late_unavailable(2), faults.late_unavailable(), "ok", "ok")
            for name in ("old", "older", "new", "newer"):
                post(server, client, [{"id": 1, "name": name}])
            assert [change.record["name"] for change in server.applied] == ["new", "old", "newer"]
            server.land()
            assert server.records["things"]["1"]["name"] == "older"

    def test_only_so_many_land(self, client: httpx.Client) -> None:
        with FaultServer() as server:
            server.script(*["late_unavailable"] * 3)
            for name in "abc":
                post(server, client, [{"id": 1, "name": name}])
            server.land(2)
            assert [change.record["name"] for change in server.applied] == ["a", "b"]
            assert len(server.late) == 1

    def test_what_may_not_come_in_is_not_applied_late(self, client: httpx.Client) -> None:
        with FaultServer(Rules(token="t")) as server:
            server.script("late_unavailable", "late_unavailable")
            post(server, client)
            post(server, client, headers={"Authorization": "Bearer t"})
            assert len(server.late) == 1
            server.land()
            assert set(server.applications().values()) == {1}

    def test_a_drip_is_whole_in_the_end(self, client: httpx.Client) -> None:
        with FaultServer() as server:
            server.script("drip")
            with client.stream("POST", f"{server.url}/v1/things", json=ROWS[:1]) as answer:
                pieces = list(answer.iter_raw())
            assert b"".join(pieces) == post(server, client, ROWS[:1]).content
            assert len(pieces) > 1

    def test_it_closes_while_clients_hang(self) -> None:
        server = FaultServer().start()
        server.script("hang")
        with ThreadPoolExecutor(1) as pool, httpx.Client(verify=False, trust_env=False, timeout=20) as client:
            hanging = pool.submit(post, server, client)
            while not server.requests:
                time.sleep(0.01)
            server.close()
            assert isinstance(hanging.exception(), httpx.RemoteProtocolError)

    def test_what_happens_around_an_application(self, client: httpx.Client) -> None:
        with FaultServer() as server:
            seen: list[int] = []
            look = lambda: seen.append(len(server.applied))  # noqa: E731
            server.script(Trouble(before=look, after=look))
            post(server, client)
            assert seen == [0, 3]


class TestAnswers:
    def rules(self, **rules: Any) -> Rules:
        return Rules(refuse=lambda record: "no" if record["name"] == "bad" else None, **rules)

    @pytest.mark.parametrize("status", [200, 207])
    def test_errors_by_index_and_key(self, client: httpx.Client, status: int) -> None:
        with FaultServer(self.rules(partial_status=status)) as server:
            answer = post(server, client)
            assert answer.status_code == status
            assert answer.json() == {
                "records": [{"index": 0, "record_id": "rec_1"}, {"index": 2, "record_id": "rec_3"}],
                "errors": [{"index": 1, "id": 2, "code": "INVALID", "message": "no"}],
            }

    @pytest.mark.parametrize(
        ("form", "names"),
        [
            ("index", [{"index": 0}, {"index": 1}, {"index": 2}]),
            ("key", [{"id": 1}, {"id": 2}, {"id": 3}]),
            ("position", [{}] * 3),
        ],
    )
    def test_an_entry_for_each_row(
        self, client: httpx.Client, form: Literal["index", "key", "position"], names: list[dict[str, int]]
    ) -> None:
        ends: list[dict[str, str]] = [
            {"status": "ok", "record_id": "rec_1"},
            {"status": "error", "code": "INVALID", "message": "no"},
            {"status": "ok", "record_id": "rec_3"},
        ]
        wanted = [{**name, **end} for name, end in zip(names, ends, strict=True)]
        with FaultServer(self.rules(answers=form)) as server:
            server.script("ok", "reordered", "missing_answers")
            assert post(server, client).json() == {"results": wanted}
            assert post(server, client).json() == {"results": wanted[::-1]}
            assert post(server, client).json() == {"results": wanted[::2]}

    def test_faults_about_rows_are_of_one_request(self, client: httpx.Client) -> None:
        bad = lambda record: record["id"] == 3  # noqa: E731
        with FaultServer(Rules(answers="index")) as server:
            server.script(
                faults.row_errors(bad, code="LOCKED", message="wait", status=207),
                faults.batch_refused(bad),
                "too_many_rows",
                faults.too_large(50),
            )
            first, *others = [post(server, client) for _ in range(5)]
            assert first.status_code == 207
            assert first.json()["results"][2] == {"index": 2, "status": "error", "code": "LOCKED", "message": "wait"}
            assert [other.status_code for other in others] == [400, 413, 413, 200]
            assert server.applications() == {("things", "1"): 2, ("things", "2"): 2, ("things", "3"): 1}

    def test_rows_that_are_refused_by_chance_are_the_same_ones(self) -> None:
        refused = [faults.half({"id": number}) for number in range(200)]
        assert 60 < sum(refused) < 140
        assert refused == [faults.half({"id": number}) for number in range(200)]


class TestAccess:
    def test_a_token_is_good_for_so_many_requests(self, client: httpx.Client) -> None:
        with FaultServer(Rules(client=("me", "secret"), token_requests=2)) as server:
            for _ in range(2):
                given = client.post(
                    f"{server.url}/oauth/token", auth=("me", "secret"), data={"grant_type": "client_credentials"}
                )
                headers = {"Authorization": f"Bearer {given.json()['access_token']}"}
                assert [post(server, client, headers=headers).status_code for _ in range(3)] == [200, 200, 401]

    def test_a_rate_limit_is_a_bucket_that_says_what_is_left(self, client: httpx.Client) -> None:
        with FaultServer(Rules(rate=0.01, burst=3, rate_headers="x", retry_after="seconds")) as server:
            answers = [post(server, client) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
            assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
            assert 200 < int(answers[3].headers["X-RateLimit-Reset"]) - time.time() <= 301
            assert 90 <= int(answers[3].headers["Retry-After"]) <= 100
            assert server.refused_by_rate == 1
            assert len(server.applied) == 9

    def test_the_headers_of_the_drafts(self, client: httpx.Client) -> None:
        """https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/, versions 06 and 10."""
        with FaultServer(Rules(rate=0.01, burst=2, rate_headers="ietf-6", retry_after=None)) as server:
            first, _, refused = [post(server, client).headers for _ in range(3)]
            assert [first[f"RateLimit-{name}"] for name in ("Limit", "Remaining")] == ["2", "1"]
            assert 90 <= int(first["RateLimit-Reset"]) <= 100
            assert "Retry-After" not in refused
        with FaultServer(Rules(rate=0.01, burst=2, rate_headers="ietf-10")) as server:
            answer = post(server, client).headers
            assert answer["RateLimit-Policy"] == '"requests";q=2;w=200'
            assert answer["RateLimit"] in ('"requests";r=1;t=100', '"requests";r=1;t=99')

    def test_the_bucket_fills(self, client: httpx.Client) -> None:
        with FaultServer(Rules(rate=1000, burst=1)) as server:
            for _ in range(20):
                while post(server, client).status_code == 429:
                    time.sleep(0.001)
            assert len(server.applied) == 60
