"""What is sent to HubSpot, and what its answers are taken for: conversations played by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from random import Random
from typing import Any

import httpx
import orjson
import pytest
from hubspot_things import batch, connector
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.hubspot_errors import VENDOR_CODES
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import KeyForm, Operation, RowResult
from dagster_retl.testing import converse, make_row

UNIQUE, PLAIN = (httpx.Response(200, json={"name": "x", "hasUniqueValue": unique}) for unique in (True, False))


def _body(request: Request) -> Any:
    return orjson.loads(request.content or b"null")


def _done(*results: Mapping[str, Any], errors: Sequence[Mapping[str, Any]] = ()) -> httpx.Response:
    extra = {"errors": list(errors), "numErrors": len(errors)} if errors else {}
    return httpx.Response(207 if errors else 200, json={"status": "COMPLETE", "results": list(results), **extra})


def _write(rows: Sequence[Any], *answers: httpx.Response, settings: Mapping[str, Any] | None = None, **how: Any) -> Any:
    made = connector(**(settings or {}))
    return converse(made.write(batch(rows, **how)), *answers)


def _ids(results: Sequence[RowResult]) -> dict[str, str | None]:
    assert not [result for result in results if result.fault]
    return {result.key: result.record_id for result in results}


# --- requests


def test_an_upsert_goes_by_the_key() -> None:
    (request,), _ = _write(
        [{"customer_id": "c1", "firstname": "Ann"}, {"customer_id": "c2", "firstname": None}],
        _done({"id": "1", "properties": {"customer_id": "c1"}}, {"id": "2", "properties": {"customer_id": "c2"}}),
    )
    assert (request.method, request.url, request.idempotent) == ("POST", "crm/v3/objects/contacts/batch/upsert", True)
    assert _body(request)["inputs"] == [
        {
            "id": "c1",
            "idProperty": "customer_id",
            "objectWriteTraceId": "0",
            "properties": {"customer_id": "c1", "firstname": "Ann"},
        },
        {
            "id": "c2",
            "idProperty": "customer_id",
            "objectWriteTraceId": "1",
            "properties": {"customer_id": "c2", "firstname": ""},
        },
    ]


def test_an_insert_is_not_repeated_and_has_no_address() -> None:
    (request,), results = _write(
        [{"customer_id": "c1"}], _done({"id": "9", "properties": {"customer_id": "c1"}}), operation="insert"
    )
    assert (request.url, request.idempotent) == ("crm/v3/objects/contacts/batch/create", False)
    assert _body(request)["inputs"] == [{"objectWriteTraceId": "0", "properties": {"customer_id": "c1"}}]
    assert _ids(results) == {"c1": "9"}


def test_an_update_goes_by_a_unique_key() -> None:
    (asked, request), _ = _write(
        [{"deal_number": 7, "amount": 5}],
        UNIQUE,
        _done({"id": "1", "properties": {"deal_number": "7"}}),
        operation="update",
        object_name="deals",
        key="deal_number",
    )
    assert (asked.method, asked.url) == ("GET", "crm/v3/properties/deals/deal_number")
    assert _body(request)["inputs"][0] | {"properties": {}} == {
        "id": "7",
        "idProperty": "deal_number",
        "objectWriteTraceId": "0",
        "properties": {},
    }


def test_an_update_by_email_goes_by_record_id_kept_or_looked_up() -> None:
    known = make_row({"email": "Ann@x.org", "score": 1}, key="email", record_id="11")
    requests, results = _write(
        [known, {"email": "bob@x.org", "score": 2}],
        _done({"id": "12", "properties": {"email": "old@x.org", "hs_additional_emails": "z@x.org;bob@x.org"}}),
        _done({"id": "12", "properties": {}}, {"id": "11", "properties": {}}),
        operation="update",
        key="email",
    )
    read, update = map(_body, requests)
    assert (read["idProperty"], read["inputs"]) == ("email", [{"id": "bob@x.org"}])
    assert [(each["id"], "idProperty" in each) for each in update["inputs"]] == [("11", False), ("12", False)]
    assert _ids(results) == {"Ann@x.org": "11", "bob@x.org": "12"}


def test_an_update_by_a_property_that_is_not_unique_is_searched_for() -> None:
    page = {"results": [{"id": "5", "properties": {"domain": "Acme.com"}}], "paging": {"next": {"after": "1"}}}
    rest = {"results": [{"id": "6", "properties": {"domain": "b.com"}}, {"id": "7", "properties": {"domain": "b.com"}}]}
    requests, results = _write(
        [{"domain": each, "name": "x"} for each in ("acme.com", "b.com", "c.com")],
        PLAIN,
        httpx.Response(200, json=page),
        httpx.Response(200, json=rest),
        _done({"id": "5", "properties": {}}),
        operation="update",
        object_name="companies",
        key="domain",
    )
    searches = [_body(request) for request in requests if request.url.endswith("search")]
    assert searches[0]["filterGroups"][0]["filters"][0]["values"] == ["acme.com", "b.com", "c.com"]
    assert [each.get("after") for each in searches] == [None, "1"]
    faults = {result.key: result.fault for result in results}
    assert faults["acme.com"] is None
    assert (faults["b.com"].code, faults["b.com"].message) == (
        ErrorCode.CONFLICT,
        "2 companies have domain 'b.com': which one is meant?",
    )
    assert faults["c.com"].code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_the_record_id_itself_may_be_the_key(operation: str) -> None:
    answer = httpx.Response(204) if operation == "delete" else _done({"id": "42", "properties": {"score": "1"}})
    (request,), results = _write([{"hs_object_id": 42, "score": 1}], answer, operation=operation, key="hs_object_id")
    (each,) = _body(request)["inputs"]
    assert each["id"] == "42"
    assert "idProperty" not in each
    assert each.get("properties", {"score": "1"}) == {"score": "1"}
    assert _ids(results) == {"42": "42"}


def test_archiving_takes_ids_kept_from_the_write_and_looks_up_the_others() -> None:
    kept = make_row({"customer_id": "c1"}, key="customer_id", record_id="1")
    requests, results = _write(
        [kept, {"customer_id": "c2"}, {"customer_id": "c3"}],
        UNIQUE,
        _done({"id": "2", "properties": {"customer_id": "c2"}}),
        httpx.Response(204),
        operation="delete",
    )
    assert _body(requests[1])["inputs"] == [{"id": "c2"}, {"id": "c3"}]
    assert (requests[2].url, _body(requests[2])) == (
        "crm/v3/objects/contacts/batch/archive",
        {"inputs": [{"id": "1"}, {"id": "2"}]},
    )
    assert _ids(results) == {"c1": "1", "c2": "2", "c3": None}
    assert {result.key for result in results if result.unconfirmed} == {"c1", "c2"}


def test_a_lookup_that_failed_is_not_taken_for_a_record_that_is_gone() -> None:
    """Or a removal would count as done."""
    rows = [{"customer_id": "c1"}, {"customer_id": "c2"}]
    error = {"category": "VALIDATION_ERROR", "message": "the id is malformed", "context": {"ids": ["c2"]}}
    with pytest.raises(DestinationError, match="the id is malformed") as caught:
        _write(rows, UNIQUE, _done(errors=[error]), operation="delete")
    assert caught.value.code is ErrorCode.BATCH_REJECTED
    _, (result,) = _write(rows[1:], UNIQUE, _done(errors=[error]), operation="delete")
    assert result.fault is not None
    assert result.fault.code is ErrorCode.DESTINATION_VALIDATION


def test_a_record_that_two_rows_reach_is_archived_once() -> None:
    """HubSpot refuses a request that names an id twice."""
    rows = [make_row({"customer_id": each}, key="customer_id", record_id="1") for each in ("c1", "c2")]
    (request,), results = _write(rows, httpx.Response(204), operation="delete")
    assert _body(request) == {"inputs": [{"id": "1"}]}
    assert _ids(results) == {"c1": "1", "c2": "1"}


@pytest.mark.parametrize(
    ("version", "path", "schemas", "labels"),
    [
        ("v3", "crm/v3/objects/0-1/batch/upsert", "crm/v3/schemas", "crm/v4/associations/0-1/companies/labels"),
        (
            "2026-03",
            "crm/objects/2026-03/0-1/batch/upsert",
            "crm-object-schemas/2026-03/schemas",
            "crm/associations/2026-03/0-1/companies/labels",
        ),
    ],
)
def test_paths_have_the_version(version: str, path: str, schemas: str, labels: str) -> None:
    made = connector(api_version=version, associations={"company": {"object": "companies", "by": "hs_object_id"}})
    assert next(made.write(batch([{"customer_id": "1"}], object_name="0-1"))).url == path
    assert next(made.objects()).url == schemas
    row = {"customer_id": "1", "association.company": 7}
    assert next(made.write(batch([row], object_name="0-1"))).url == labels


def test_names_are_quoted_in_paths() -> None:
    assert next(connector().write(batch([{"customer_id": "1"}], object_name="a/b?c"))).url.endswith(
        "a%2Fb%3Fc/batch/upsert"
    )


def test_a_request_that_is_too_large_is_halved() -> None:
    made = connector(batch_bytes=500)
    rows = [{"customer_id": str(number), "notes": "x" * 200} for number in range(3)]
    with pytest.raises(DestinationError) as caught:
        converse(made.write(batch(rows)))
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize(
    ("operation", "key", "words"),
    [
        ("upsert", ("a", "b"), "one property"),
        ("delete", ("a", "b"), "one property"),
        ("upsert", "hs_object_id", "given by HubSpot"),
    ],
)
def test_keys_that_hubspot_cannot_use_end_the_run(operation: str, key: Any, words: str) -> None:
    with pytest.raises(DestinationError, match=words) as caught:
        _write([{"a": 1, "b": 2, "hs_object_id": 3}], operation=operation, key=key)
    assert caught.value.code is ErrorCode.CONFIGURATION


# --- values


def test_values_are_text() -> None:
    row = {
        "customer_id": Decimal("42.0"),
        "score": Decimal("0.10"),
        "big": 2**63 - 1,
        "ratio": 1e21,
        "is_member": False,
        "birthday": date(2025, 3, 27),
        "last_seen": datetime(2025, 3, 27, 17, 0, 0, 123456, tzinfo=UTC),
        "interests": ["art", "travel"],
        "nested": {"a": [1, Decimal("2.50")], "b": None, "c": "x"},
        "gone": None,
    }
    (request,), _ = _write([row], _done({"id": "1", "objectWriteTraceId": "0"}))
    assert _body(request)["inputs"][0]["id"] == "42"
    assert _body(request)["inputs"][0]["properties"] == {
        "customer_id": "42",
        "score": "0.10",
        "big": "9223372036854775807",
        "ratio": "1000000000000000000000",
        "is_member": "false",
        "birthday": "2025-03-27",
        "last_seen": "1743094800123",
        "interests": "art;travel",
        "nested": '{"a":[1,2.50],"b":null,"c":"x"}',
        "gone": "",
    }


# --- answers


def test_answers_are_matched_by_trace_id_before_the_key() -> None:
    _, results = _write(
        [{"email": "a@x.org"}, {"email": "b@x.org"}],
        _done(
            {"id": "2", "objectWriteTraceId": "1", "properties": {"email": "a@x.org"}},
            {"id": "1", "objectWriteTraceId": "0", "properties": {"email": "z@x.org"}},
        ),
        key="email",
    )
    assert _ids(results) == {"a@x.org": "1", "b@x.org": "2"}


def test_answers_are_matched_by_a_key_whose_case_hubspot_changed() -> None:
    _, results = _write(
        [{"email": "Ann@X.org"}, {"email": "b@x.org"}],
        _done({"id": "2", "properties": {"email": "b@x.org"}}, {"id": "1", "properties": {"email": "ann@x.org"}}),
        key="email",
    )
    assert _ids(results) == {"Ann@X.org": "1", "b@x.org": "2"}


def test_a_key_that_looks_like_a_record_id_is_not_taken_for_one() -> None:
    _, results = _write(
        [{"customer_id": "1"}, {"customer_id": "2"}],
        _done({"id": "2", "properties": {"customer_id": "1"}}, {"id": "1", "properties": {"customer_id": "2"}}),
    )
    assert _ids(results) == {"1": "2", "2": "1"}


def test_results_that_name_nothing_are_counted() -> None:
    rows = [{"lastname": name} for name in ("a", "b", "c")]
    _, results = _write(
        rows,
        _done(
            {"id": "7", "properties": {}},
            {"id": "8", "properties": {}},
            errors=[{"category": "VALIDATION_ERROR", "message": "no", "context": {"objectWriteTraceId": ["1"]}}],
        ),
        operation="insert",
        key=(),
    )
    assert [bool(result.fault) for result in results] == [False, True, False]
    assert [result.record_id for result in results] == [None, None, None], "nobody knows which is which"


def test_a_row_that_no_answer_speaks_of_has_none() -> None:
    """As with a record that was merged into another one: HubSpot leaves it out, without an error."""
    _, results = _write(
        [{"customer_id": "1"}, {"customer_id": "2"}, {"customer_id": "3"}],
        _done({"id": "9", "properties": {"customer_id": "2"}}),
    )
    assert _ids(results) == {"2": "9"}
    _, nothing = _write([{"customer_id": "1"}], _done())
    assert nothing == []


def test_a_result_that_names_no_row_is_nobodys_where_there_are_more_rows() -> None:
    _, results = _write([{"customer_id": "1"}, {"customer_id": "2"}], _done({"id": "9", "properties": {}}))
    assert results == []


def test_an_error_without_a_name_is_of_the_rows_that_have_no_result() -> None:
    _, results = _write(
        [{"customer_id": "1"}, {"customer_id": "2"}],
        _done(
            {"id": "9", "properties": {"customer_id": "2"}}, errors=[{"category": "CONFLICT", "message": "it exists"}]
        ),
    )
    assert {result.key: result.fault and result.fault.code for result in results} == {
        "1": ErrorCode.CONFLICT,
        "2": None,
    }


def test_what_cannot_be_told_apart_is_asked_again() -> None:
    with pytest.raises(DestinationError) as caught:
        _write(
            [{"customer_id": "1"}, {"customer_id": "2"}],
            _done({"id": "9", "properties": {}}, errors=[{"category": "CONFLICT", "message": "it exists"}]),
        )
    assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.BATCH_REJECTED, True)


@given(
    st.lists(st.sampled_from(["written", "refused", "silent"]), min_size=1, max_size=30),
    st.integers(),
    st.sampled_from(["trace", "key", "id"]),
)
def test_each_row_has_its_own_answer_in_any_order(fates: list[str], seed: int, named_by: str) -> None:
    rows = [
        make_row({"customer_id": f"k{number}"}, key="customer_id", record_id=str(100 + number))
        for number in range(len(fates))
    ]
    results, errors = [], []
    for number, fate in enumerate(fates):
        names = {
            "trace": {"objectWriteTraceId": str(number), "properties": {}},
            "key": {"properties": {"customer_id": f"k{number}"}},
            "id": {"properties": {}},
        }[named_by]
        if fate == "written":
            results.append({"id": str(100 + number), **names})
        elif fate == "refused":
            context = {"ids": [str(100 + number)]} if named_by == "id" else {"objectWriteTraceId": [str(number)]}
            errors.append({"category": "VALIDATION_ERROR", "message": f"no {number}", "context": context})
    Random(seed).shuffle(results)
    Random(seed + 1).shuffle(errors)
    by_id = named_by == "id"
    answers = [*([PLAIN] if by_id else []), _done(*results, errors=errors)]
    _, answered = _write(rows, *answers, operation=Operation.UPDATE if by_id else Operation.UPSERT)
    told = {result.key: result for result in answered}
    assert len(told) == len(answered)
    for number, fate in enumerate(fates):
        result = told.get(f"k{number}")
        if fate == "silent":
            assert result is None
        elif fate == "written":
            assert (result.fault, result.record_id) == (None, str(100 + number))
        else:
            assert result.fault.message == f"no {number}"


def test_an_archive_that_is_answered_with_a_page_is_not_done() -> None:
    with pytest.raises(DestinationError) as caught:
        _write(
            [make_row({"customer_id": "1"}, key="customer_id", record_id="1")],
            httpx.Response(200, html="<html>sign in</html>"),
            operation="delete",
        )
    assert caught.value.ambiguous


# --- limits


@pytest.mark.parametrize(
    ("body", "wait", "code"),
    [
        ({"message": "You have reached your secondly limit.", "category": "RATE_LIMITS"}, 1, "RATE_LIMIT"),
        ({"message": "x", "errorType": "RATE_LIMIT", "policyName": "SECONDLY"}, 1, "RATE_LIMIT"),
        ({"message": "x", "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}, 10, "RATE_LIMIT"),
        ({"message": "x", "errorType": "RATE_LIMIT", "policyName": "DAILY"}, 86_400, "QUOTA_EXHAUSTED"),
        ({"message": "You have reached your daily limit.", "category": "RATE_LIMITS"}, 86_400, "QUOTA_EXHAUSTED"),
    ],
)
def test_a_429_says_how_long_by_its_policy(body: Mapping[str, str], wait: float, code: str) -> None:
    response = httpx.Response(429, json=body)
    state = connector().limits(response)
    assert state is not None
    assert (state.remaining, state.reset) == (0, wait)
    with pytest.raises(DestinationError) as caught:
        connector().require_success(response)
    assert caught.value.code == code


def test_a_429_with_retry_after_and_other_answers_say_it_in_headers() -> None:
    made = connector()
    state = made.limits(httpx.Response(429, headers={"Retry-After": "7"}, json={}))
    assert state is not None
    assert state.reset == 7
    headers = {
        "X-HubSpot-RateLimit-Max": "190",
        "X-HubSpot-RateLimit-Remaining": "12",
        "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
    }
    state = made.limits(httpx.Response(200, headers=headers))
    assert state is not None
    assert (state.remaining, state.rate) == (12, 19)
    assert made.limits(httpx.Response(200)) is None


# --- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "either `token`"),
        (
            {"token": "t", "oauth": {"client_id": "a", "client_secret": "b", "refresh_token": "c"}},
            "either `token`",
        ),
        ({"token": "t", "api_version": "latest"}, "api_version"),
        ({"token": "t", "batch_rows": 101}, "at most 100"),
        ({"token": "t", "associations": {"my company": {"object": "companies", "by": "domain"}}}, "associations"),
        ({"token": "t", "associations": {"company": {"object": "companies", "by": "Domain"}}}, "by"),
        ({"token": "t", "base_url": "ftp://x"}, "base_url"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Mapping[str, Any], words: str) -> None:
    from dagster_retl.connectors.hubspot_config import HubSpotConfig

    with pytest.raises(ValidationError, match=words):
        HubSpotConfig.model_validate(settings)


def test_contacts_are_one_whatever_the_case_of_their_address() -> None:
    made = connector()
    assert made.key_form("CONTACT") == made.key_form("0-1") == KeyForm(ignore_case=True, trim=True)
    assert made.key_form("deals") == KeyForm(ignore_case=False, trim=True)
    assert connector(ignore_key_case=False).key_form("contacts").ignore_case is False


def test_records_have_a_page_once_the_account_is_known() -> None:
    made = connector()
    assert made.record_url("contacts", "1") is None
    details = {"portalId": 4711, "uiDomain": "app-eu1.hubspot.com"}
    _, account = converse(made.check(), httpx.Response(200, json=details))
    assert (account.id, account.name) == ("4711", "HubSpot account 4711")
    assert made.record_url("contact", "17") == "https://app-eu1.hubspot.com/contacts/4711/record/0-1/17"
    assert made.record_url("2-3604285", "17") == "https://app-eu1.hubspot.com/contacts/4711/record/2-3604285/17"
    assert made.record_url("p4711_cars", "17") is None
    named = connector(portal_id="8")
    assert named.record_url("deals", "1") == "https://app.hubspot.com/contacts/8/record/0-3/1"


def test_codes_of_hubspot_end_runs_or_reject_rows_or_wait() -> None:
    assert {ACTIONS[code] for code in VENDOR_CODES.values()} == {Action.ABORT, Action.REJECT, Action.RETRY}
