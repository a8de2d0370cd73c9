"""What goes wrong at a HubSpot account: the vendor's own words, the right code, the right action."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hubspot_things import COMPANY, batch, by, connector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_retl.connectors.base import Request
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Fault, Operation
from dagster_retl.testing import deliver, drive, make_row
from dagster_retl.testing.fake_hubspot import FakeHubSpot
from dagster_retl.testing.fake_hubspot_rules import HubSpotRules

GOOD = {"customer_id": "good", "firstname": "Ann"}


@pytest.fixture(params=["whole", "row"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeHubSpot]:
    """An account that refuses bad values with the whole request, and one that does it row by row."""
    with FakeHubSpot(HubSpotRules(refusals=request.param, seed=2)) as server:
        yield server


def faults(fake: FakeHubSpot, rows: Sequence[Any], *args: Any, settings: Any = None, **how: Any) -> dict[str, Fault]:
    """The faults of rows that were delivered; each row was answered once."""
    results = deliver(connector(fake.url, **(settings or {})), batch(rows, *args, **how))
    assert len({result.key for result in results}) == len(results) == len(rows)
    return {result.key: result.fault for result in results if result.fault}


@pytest.mark.parametrize(
    ("values", "code", "vendor_code", "words"),
    [
        ({"email": "no address"}, "DESTINATION_VALIDATION", "INVALID_EMAIL", "Email address no address is invalid"),
        ({"interests": "golf"}, "DESTINATION_VALIDATION", "INVALID_OPTION", "golf was not one of the allowed options"),
        ({"notes": "x" * 65_537}, "DESTINATION_VALIDATION", "VALUE_TOO_LONG", "longer than 65536"),
        ({"score": "many"}, "TYPE_COERCION", "INVALID_NUMBER", "many was not a valid number"),
        ({"birthday": "1743094800123"}, "TYPE_COERCION", "INVALID_DATE", "not midnight"),
        ({"last_seen": "yesterday"}, "TYPE_COERCION", "INVALID_LONG", "yesterday was not a valid long"),
        ({"email": "taken@x.org"}, "CONFLICT", "CONFLICT", "already exists. Existing ID: "),
    ],
)
@pytest.mark.parametrize("operation", ["upsert", "insert"])
def test_a_bad_value_fails_its_row_alone(
    fake: FakeHubSpot, operation: str, values: Mapping[str, Any], code: str, vendor_code: str, words: str
) -> None:
    fake.add("contacts", email="taken@x.org")
    found = faults(fake, [GOOD, {"customer_id": "bad", **values}, {"customer_id": "other"}], operation)
    assert list(found) == ["bad"]
    assert (found["bad"].code, found["bad"].vendor_code) == (code, vendor_code)
    assert words in found["bad"].message
    assert by(fake, "contacts", "customer_id").keys() == {"good", "other"}


def test_a_required_property_that_is_missing_fails_its_row_alone(fake: FakeHubSpot) -> None:
    rows = [{"vin": "v1", "model": "M"}, {"vin": "v2"}, {"vin": "v3", "model": "N"}]
    found = faults(fake, rows, object_name="p4711_cars", key="vin")
    assert list(found) == ["v2"]
    assert found["v2"].code is ErrorCode.MISSING_REQUIRED_FIELD
    assert found["v2"].message == "Error creating P4711_CAR. Some required properties were not set: model"
    assert by(fake, "p4711_cars", "vin").keys() == {"v1", "v3"}


def test_a_record_that_was_deleted_meanwhile_is_not_found_by_an_update(fake: FakeHubSpot) -> None:
    there = fake.add("contacts", customer_id="there")
    gone = make_row({"customer_id": "gone", "firstname": "x"}, key="customer_id", record_id="999")
    found = faults(fake, [gone, {"customer_id": "there", "firstname": "y"}], "update")
    assert {key: fault.code for key, fault in found.items()} == {"gone": ErrorCode.NOT_FOUND}
    assert found["gone"].vendor_code == "OBJECT_NOT_FOUND"
    assert "may be deleted or not exist" in found["gone"].message
    assert fake.stored("contacts")[there]["firstname"] == "y"


def test_a_record_that_is_gone_by_its_id_is_not_found_either(fake: FakeHubSpot) -> None:
    there = fake.add("contacts", customer_id="there")
    rows = [{"hs_object_id": there, "score": 1}, {"hs_object_id": "999", "score": 2}]
    found = faults(fake, rows, "update", key="hs_object_id")
    assert {key: fault.code for key, fault in found.items()} == {"999": ErrorCode.NOT_FOUND}


@pytest.mark.parametrize("key", ["customer_id", "email", "hs_object_id"])
def test_archiving_what_is_gone_is_done(fake: FakeHubSpot, key: str) -> None:
    there = fake.add("contacts", customer_id="there", email="there@x.org")
    value = {"customer_id": "there", "email": "THERE@x.org", "hs_object_id": there}[key]
    other = {"customer_id": "gone", "email": "gone@x.org", "hs_object_id": "999"}[key]
    assert faults(fake, [{key: value}, {key: other}], "delete", key=key) == {}
    assert fake.stored("contacts") == {}


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_a_key_that_matches_two_records_fails_its_row_alone(fake: FakeHubSpot, operation: str) -> None:
    for domain in ("one.com", "two.com", "Two.com"):
        fake.add("companies", domain=domain)
    rows = [{"domain": "one.com", "city": "Rome"}, {"domain": "two.COM", "city": "Oslo"}]
    found = faults(fake, rows, operation, object_name="companies", key="domain")
    assert {key: (fault.code, fault.message) for key, fault in found.items()} == {
        "two.COM": (ErrorCode.CONFLICT, "2 companies have domain 'two.COM': which one is meant?")
    }
    assert len(fake.stored("companies")) == (3 if operation == "update" else 2)


@pytest.mark.parametrize("operation", ["upsert", "insert", "update"])
@pytest.mark.parametrize(
    ("name", "vendor_code", "words"),
    [
        ("emial", "PROPERTY_DOESNT_EXIST", 'Property "emial" does not exist'),
        ("hubspotscore", "READ_ONLY_VALUE", "read only"),
    ],
)
def test_a_field_that_cannot_be_written_ends_the_run(
    fake: FakeHubSpot, operation: str, name: str, vendor_code: str, words: str
) -> None:
    fake.add("contacts", customer_id="c1")
    error = _refused(fake, [{"customer_id": "c1", name: "x"}, {"customer_id": "c2", name: "y"}], operation)
    assert (error.code, error.vendor_code) == (ErrorCode.SCHEMA_DRIFT, vendor_code)
    assert words in error.message
    assert error.hint == "Correct `field_mappings`, or create the property in HubSpot."


def _refused(fake: FakeHubSpot, rows: Sequence[Any], *args: Any, settings: Any = None, **how: Any) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        deliver(connector(fake.url, **(settings or {})), batch(rows, *args, **how))
    return caught.value


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ({"object_name": "butterflies"}, "CONFIGURATION", "Unable to infer object type from: butterflies"),
        ({"object_name": "companies", "key": "domain"}, "CONFIGURATION", "non-unique 0-2 property domain"),
        ({"object_name": "deals", "key": "nonsense", "operation": "update"}, "SCHEMA_DRIFT", "no property 'nonsense'"),
        ({"settings": {"token": "pat-na1-wrong"}}, "AUTH", "Authentication credentials not found"),
        ({"settings": {"api_version": "v9"}}, "CONFIGURATION", "resource not found"),
    ],
)
def test_settings_that_do_not_fit_the_account_end_the_run(
    fake: FakeHubSpot, how: dict[str, Any], code: str, words: str
) -> None:
    error = _refused(fake, [{how.get("key", "customer_id"): "1"}], **how)
    assert error.code == code
    assert words in error.message
    assert error.hint


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_a_wrong_path_is_never_taken_for_a_record_that_is_gone(fake: FakeHubSpot, operation: str) -> None:
    row = make_row({"hs_object_id": "1"}, key="hs_object_id")
    assert _refused(fake, [row], operation, key="hs_object_id", settings={"api_version": "v9"}).code == "CONFIGURATION"


def test_a_scope_that_is_missing_is_named() -> None:
    with FakeHubSpot(HubSpotRules(without_scopes=frozenset({"contacts"}))) as fake:
        error = _refused(fake, [GOOD])
    assert (error.code, error.vendor_code) == (ErrorCode.PERMISSION, "MISSING_SCOPES")
    assert error.message == "One or more of the following scopes are required: crm.objects.contacts.write"


def test_a_public_app_whose_tokens_expire_gets_new_ones() -> None:
    app = {"client_id": "a", "client_secret": "secret-1", "refresh_token": "refresh-1"}
    with FakeHubSpot(HubSpotRules(token=None, app=("a", "secret-1", "refresh-1"), token_requests=2)) as fake:
        made = connector(fake.url, oauth=app)
        rows = [{"customer_id": str(number), "firstname": "x"} for number in range(450)]
        assert all(result.fault is None for result in deliver(made, batch(rows)))
        assert sum(request.path == "/oauth/v1/token" for request in fake.requests) == 3
        fake.access.revoke_tokens()
        assert drive(made, made.check()).id == "4711"


@pytest.mark.parametrize("part", ["client_id", "client_secret", "refresh_token"])
def test_a_public_app_that_is_not_known_ends_the_run(part: str) -> None:
    app = {"client_id": "a-known-client", "client_secret": "secret-1", "refresh_token": "refresh-1"}
    with FakeHubSpot(HubSpotRules(token=None, app=tuple(app.values()))) as fake:
        made = connector(fake.url, oauth={**app, part: "another-one"})
        with pytest.raises(DestinationError) as caught:
            drive(made, made.check())
    assert caught.value.code is ErrorCode.AUTH
    assert caught.value.message == "HubSpot gives no access token: missing or invalid refresh token"
    assert "secret-1" not in str(caught.value)


def test_a_duplicate_key_in_a_request_is_mended_by_halving(fake: FakeHubSpot) -> None:
    """Two rows that reach one record, by two of its addresses: HubSpot wants each id once."""
    fake.add("contacts", email="ann@x.org", hs_additional_emails="ann@y.org")
    assert faults(fake, [{"email": f"ann@{host}.org", "score": 1} for host in "xy"], "update", key="email") == {}


# --- any mixture

_POISONS: Mapping[str, tuple[Callable[[int], Mapping[str, Any]], set[ErrorCode]]] = {
    "good": (lambda number: {"firstname": f"n{number}", "email": f"u{number}@x.org"}, set()),
    "email": (lambda number: {"email": f"nobody {number}"}, {ErrorCode.DESTINATION_VALIDATION}),
    "number": (lambda number: {"score": f"many {number}"}, {ErrorCode.TYPE_COERCION}),
    "option": (lambda number: {"interests": f"golf {number}"}, {ErrorCode.DESTINATION_VALIDATION}),
    "taken": (lambda number: {"email": "taken@x.org"}, {ErrorCode.CONFLICT}),
    "orphan": (lambda number: {"association.company": "nobody.com"}, {ErrorCode.DESTINATION_VALIDATION}),
    "child": (lambda number: {"association.company": "acme.com", "firstname": "x"}, set()),
}


@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.sampled_from(sorted(_POISONS)), min_size=1, max_size=14),
    refusals=st.sampled_from(["whole", "row"]),
    names_results=st.booleans(),
    seed=st.integers(0, 1000),
    operation=st.sampled_from([Operation.UPSERT, Operation.INSERT, Operation.UPDATE]),
)
def test_whatever_is_poisoned_the_others_arrive_and_each_row_is_answered_once(
    kinds: list[str], refusals: Any, names_results: bool, seed: int, operation: Operation
) -> None:
    rules = HubSpotRules(refusals=refusals, names_results=names_results, seed=seed)
    with FakeHubSpot(rules) as fake:
        fake.add("contacts", email="taken@x.org")
        company = fake.add("companies", domain="acme.com")
        if operation is Operation.UPDATE:
            for number in range(len(kinds)):
                fake.add("contacts", customer_id=f"k{number}")
        rows = [{"customer_id": f"k{number}", **_POISONS[kind][0](number)} for number, kind in enumerate(kinds)]
        sent: list[Request] = []
        made = connector(fake.url, associations=COMPANY)
        results = deliver(made, batch(rows, operation), sent=sent.append)
        assert sorted(result.key for result in results) == sorted(row["customer_id"] for row in rows)
        expected = {f"k{number}": _POISONS[kind][1] for number, kind in enumerate(kinds)}
        told = {result.key: {result.fault.code} if result.fault else set() for result in results}
        assert told == expected
        held = by(fake, "contacts", "customer_id")
        ids = {record["customer_id"]: id_ for id_, record in fake.stored("contacts").items() if "customer_id" in record}
        for result, row in ((result, rows[int(result.key[1:])]) for result in results if not result.fault):
            assert (
                held[result.key].items()
                >= {name: text for name, text in row.items() if not name.startswith("association")}.items()
            )
            assert result.record_id in (ids[result.key], None)
        linked = {link[1] for link in fake.links.all if link[3] == company}
        assert linked == {ids[f"k{number}"] for number, kind in enumerate(kinds) if kind == "child"}
