"""What the `iterable` connector finds out: whom a key reaches, what there is, what a record holds; and its limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from iterable_things import KEY, batch, connector, sent
from pydantic import ValidationError

from dagster_retl.connectors.iterable import IterableConnector
from dagster_retl.connectors.iterable_config import HOSTS, IterableConfig
from dagster_retl.connectors.iterable_requests import rate_of
from dagster_retl.connectors.limits import LimitState
from dagster_retl.engine.budget import OwnBudget
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.transport import Transport
from dagster_retl.engine.turns import Turns
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Account, FieldInfo, ObjectInfo
from dagster_retl.testing import Trouble, converse, deliver, drive
from dagster_retl.testing.fake_iterable import FakeIterable, IterableRules
from dagster_retl.testing.fake_iterable_catalogs import Catalog
from dagster_retl.testing.fake_iterable_lists import List

CHANNELS = httpx.Response(200, json={"channels": [{"id": 9, "name": "Push"}, {"id": 3, "name": "News"}]})
UNKNOWN_KEY = httpx.Response(401, json={"msg": "Invalid API key", "code": "BadApiKey"})


@pytest.fixture
def place() -> Iterator[FakeIterable]:
    keys = {KEY: "server", "reads": "read-only", "app": "mobile", "signed": "jwt"}
    with FakeIterable(IterableRules(keys, accepts_new_fields=True)) as fake:  # type: ignore[arg-type]
        fake.lists.all |= {5: List("Buyers"), 6: List("Of a query", "Dynamic")}
        fake.catalogs.all["shops"] = Catalog()
        yield fake


def checked(*answers: httpx.Response, **settings: Any) -> Any:
    return converse(connector(**settings).check(), *answers)


def check_failure(*answers: httpx.Response, **settings: Any) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        checked(*answers, **settings)
    assert KEY not in str(caught.value)
    return caught.value


class TestCheck:
    def test_the_project_is_known_by_its_oldest_channel(self, place: FakeIterable) -> None:
        there = connector(place)
        assert drive(there, there.check()) == Account("41001", "project with channel 'News'")
        assert place.users.all == []

    def test_nobody_is_written(self) -> None:
        requests, account = checked(CHANNELS, httpx.Response(200, json={}))
        assert [(each.method, each.url) for each in requests] == [
            ("GET", "/api/channels"),
            ("POST", "/api/users/bulkUpdate"),
        ]
        assert sent(requests[1]) == {"users": []}
        assert account == Account("3", "project with channel 'News' (US)")

    def test_a_request_without_users_may_be_refused_for_that(self) -> None:
        refused = httpx.Response(400, json={"msg": "users is empty", "code": "BadParams"})
        assert checked(CHANNELS, refused, region="eu")[1].name.endswith("(EU)")

    def test_a_key_of_the_other_data_center(self) -> None:
        for region, other in (("us", "eu"), ("eu", "us")):
            error = check_failure(UNKNOWN_KEY, CHANNELS, region=region)
            assert error.code is ErrorCode.CONFIGURATION
            assert error.hint == f"Set `region: {other}`."

    def test_the_other_data_center_is_asked_with_its_whole_address(self) -> None:
        talk = connector(region="us").check()
        next(talk)
        assert talk.send(UNKNOWN_KEY).url == f"{HOSTS['eu']}/api/channels"
        talk.close()

    def test_a_key_that_nobody_knows(self) -> None:
        error = check_failure(UNKNOWN_KEY, UNKNOWN_KEY)
        assert (error.code, error.vendor_code) == (ErrorCode.AUTH, "BadApiKey")
        assert "does not know the key" in error.message
        assert "server-side key" in (error.hint or "")

    @pytest.mark.parametrize(
        ("key", "code", "words"),
        [
            ("unknown", ErrorCode.AUTH, "one for apps and browsers"),
            ("app", ErrorCode.AUTH, "one for apps and browsers"),
            ("signed", ErrorCode.AUTH, "wants a JWT"),
            ("reads", ErrorCode.PERMISSION, "read-only"),
        ],
    )
    def test_what_is_wrong_with_a_key(self, place: FakeIterable, key: str, code: ErrorCode, words: str) -> None:
        there = connector(place, api_key=key)
        with pytest.raises(DestinationError, match=words) as caught:
            drive(there, there.check())
        assert caught.value.code is code
        assert "server-side key" in (caught.value.hint or "")

    def test_an_outage_stays_an_outage(self) -> None:
        assert check_failure(httpx.Response(503)).code is ErrorCode.DESTINATION_UNAVAILABLE
        assert check_failure(httpx.Response(200, json={"channels": []})).code is ErrorCode.DESTINATION_UNAVAILABLE


class TestObjects:
    def test_what_there_is(self, place: FakeIterable) -> None:
        there = connector(place)
        assert drive(there, there.objects()) == [
            ObjectInfo("users", "Users"),
            ObjectInfo("events", "Custom events"),
            ObjectInfo("lists/5", "List: Buyers"),
            ObjectInfo("lists/6", "List: Of a query", supports_upsert=False, writable=False),
            ObjectInfo("catalogs/shops", "Catalog: shops"),
        ]

    def test_catalogs_on_many_pages(self, place: FakeIterable) -> None:
        place.catalogs.all = {f"c{n:03}": Catalog() for n in range(205)}
        there = connector(place)
        found = [each.api_name for each in drive(there, there.objects()) if each.api_name.startswith("catalogs/")]
        assert found == [f"catalogs/c{n:03}" for n in range(205)]

    def test_fields_of_users_and_of_members(self, place: FakeIterable) -> None:
        place.users.fields.types = {"email": "string", "age": "long", "devices": "object", "devices.token": "string"}
        there = connector(place)
        fields = {each.name: each for each in drive(there, there.fields("users"))}
        assert fields["email"] == FieldInfo("email", "email", "string", required=True, external_id=True)
        assert fields["age"] == FieldInfo("age", "age", "long")
        assert not fields["devices.token"].updateable
        assert "userId" in fields
        assert fields == {each.name: each for each in drive(there, there.fields("lists/5"))}

    def test_fields_of_a_catalog(self, place: FakeIterable) -> None:
        there = connector(place)
        assert drive(there, there.fields("catalogs/shops")) == []
        place.catalogs.all["shops"] = Catalog({"a": {"city": "Ulm"}}, {"opened": "date"})
        assert [(each.name, each.data_type) for each in drive(there, there.fields("catalogs/shops"))] == [
            ("id", "string"),
            ("city", "unknown"),
            ("opened", "date"),
        ]

    def test_events_take_any_field(self, place: FakeIterable) -> None:
        there = connector(place)
        assert drive(there, there.fields("events")) == []


class TestReading:
    def read(self, place: FakeIterable, rows: list[dict[str, Any]], fields: list[str], **how: Any) -> Any:
        settings = how.pop("settings", {})
        there = connector(place, **settings)
        return drive(there, there.read(batch(rows, **how), fields))

    def test_users(self, place: FakeIterable) -> None:
        ada = {"email": "ada@example.com", "userId": "7", "address.city": "Ulm", "age": 36}
        deliver(connector(place, create_new_fields=True), batch([ada]))
        rows = [{"email": "ADA@example.com"}, {"email": "nobody@example.com"}, {"email": "no address"}]
        found = self.read(place, rows, ["email", "userId", "age", "address.city", "plan"])
        assert found == {
            "ADA@example.com": {
                "email": "ada@example.com",
                "userId": "7",
                "age": 36,
                "address.city": "Ulm",
                "plan": None,
            }
        }
        by_id = {"settings": {"identify_by": "userId"}, "key": "userId"}
        assert self.read(place, [{"userId": "7"}], ["age"], **by_id) == {"7": {"age": 36}}

    def test_members_of_a_list(self, place: FakeIterable) -> None:
        rows = [{"email": "ada@example.com", "age": 36}, {"email": "bob@example.com", "age": 41}]
        deliver(connector(place, create_new_fields=True), batch(rows))
        deliver(connector(place), batch(rows[:1], object_name="lists/5"))
        assert self.read(place, rows, ["age"], object_name="lists/5") == {"ada@example.com": {"age": 36}}

    def test_items(self, place: FakeIterable) -> None:
        how = {"object_name": "catalogs/shops", "key": "id"}
        deliver(connector(place), batch([{"id": "a", "city": "Ulm", "lat": Decimal("1.5")}], **how))
        rows = [{"id": "a"}, {"id": "b"}, {"id": "no such/id"}]
        assert self.read(place, rows, ["id", "city", "lat"], **how) == {"a": {"id": "a", "city": "Ulm", "lat": 1.5}}

    def test_events_cannot_be_read(self, place: FakeIterable) -> None:
        with pytest.raises(DestinationError, match="does not tell single events"):
            self.read(place, [{"id": "1"}], ["eventName"], object_name="events", key="id")

    def test_what_is_refused_is_no_missing_record(self, place: FakeIterable) -> None:
        with pytest.raises(DestinationError) as caught:
            self.read(place, [{"email": "a@b.co"}], ["age"], settings={"api_key": "app"})
        assert caught.value.code is ErrorCode.AUTH
        place.disturb(Trouble(status=500))
        with pytest.raises(DestinationError) as caught:
            self.read(place, [{"email": "a@b.co"}], ["age"])
        assert caught.value.code is ErrorCode.DESTINATION_UNAVAILABLE

    def test_there_is_no_page_of_a_record(self) -> None:
        assert connector().record_url("users", "ada@example.com") is None


class TestRates:
    @pytest.mark.parametrize(
        ("method", "path", "rate"),
        [
            ("POST", "/api/users/bulkUpdate", 5),
            ("POST", "/api/users/update", 500),
            ("DELETE", "/api/users/ada%40example.com", 100),
            ("GET", "/api/users/getByEmail", 100),
            ("POST", "/api/events/trackBulk", 10),
            ("POST", "/api/lists/subscribe", 10),
            ("POST", "/api/catalogs/shops/items", 100),
            ("GET", "/api/users/getFields", None),
        ],
    )
    def test_each_endpoint_has_its_rate(self, method: str, path: str, rate: float | None) -> None:
        answer = httpx.Response(200, request=httpx.Request(method, f"https://api.iterable.com{path}"))
        state = connector().limits(answer)
        assert (None if state is None else state.rate) == rate
        assert rate_of(method, path, connector().config.rates) == rate

    def test_rates_can_be_set_and_headers_go_first(self) -> None:
        request = httpx.Request("POST", "https://api.iterable.com/api/users/bulkUpdate")
        there = connector(rates={"users": 0.5})
        assert there.limits(httpx.Response(200, request=request)) == LimitState(limit=30, window=60.0)
        said = httpx.Response(200, request=request, headers={"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "2"})
        assert there.limits(said) == LimitState(1, 2.0)

    def test_the_first_refusal_teaches_the_rate(self, place: FakeIterable) -> None:
        there, budget = connector(place, rates={"users": 18}), OwnBudget()
        turns = Turns(Pacer(there.rate_limit, there.burst, budget), threading.Event(), Gate(1))
        transport = Transport(there, auth=there.auth(), turns=turns)
        transport.run(there.write(batch([{"email": "ada@example.com"}])))
        assert budget.look().rate is None
        place.disturb(Trouble(status=429))
        transport.run(there.write(batch([{"email": "bob@example.com"}])))
        transport.close()
        assert budget.look().rate == 18
        assert len(place.users.all) == 2

    def test_who_comes_too_often_is_refused(self, place: FakeIterable) -> None:
        place.rules = IterableRules(place.rules.keys, rates={"/api/users/bulkUpdate": 0.001})
        there = connector(place)
        drive(there, there.write(batch([{"email": "ada@example.com"}])))
        with pytest.raises(DestinationError) as caught:
            drive(there, there.write(batch([{"email": "bob@example.com"}])))
        assert (caught.value.code, caught.value.vendor_code) == (ErrorCode.RATE_LIMIT, "RateLimitExceeded")
        assert place.refused_by_rate == 1


class TestConfig:
    def test_a_region_has_a_host(self) -> None:
        assert connector().identity() == "api.iterable.com"
        assert connector(region="eu").identity() == "api.eu.iterable.com"
        assert connector(base_url="http://localhost:8080").identity() == "localhost:8080"

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"api_key": ""},
            {"api_key": "two words"},
            {"api_key": "line\nbreak"},
            {"api_key": KEY, "region": "mars"},
            {"api_key": KEY, "base_url": "api.iterable.com"},
            {"api_key": KEY, "identify_by": "phone"},
            {"api_key": KEY, "rates": {"users": 0}},
            {"api_key": KEY, "no_such_setting": 1},
        ],
    )
    def test_mistakes_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as caught:
            IterableConfig.model_validate(settings)
        assert KEY not in str(caught.value)

    def test_the_key_is_shown_nowhere(self) -> None:
        assert KEY not in f"{connector()!r} {connector().config!r} {connector().config}"
        request = httpx.Request("GET", "https://api.iterable.com/api/lists")
        auth = IterableConnector(IterableConfig.model_validate({"api_key": KEY})).auth()
        assert next(auth.sync_auth_flow(request)).headers["Api-Key"] == KEY
