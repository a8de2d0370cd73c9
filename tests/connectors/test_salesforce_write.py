"""What the Salesforce connector sends by sObject Collections, and what it makes of the answers."""

from __future__ import annotations

import string
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from salesforce_orgs import KEY, accounts, connector_to, held

from dagster_retl.connectors.salesforce import SalesforceConnector
from dagster_retl.connectors.salesforce_config import SalesforceConfig
from dagster_retl.connectors.salesforce_fields import KeyField
from dagster_retl.connectors.salesforce_soql import MOST_ADDRESS, queries
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing import Trouble, converse, drive, make_batch, make_row, write
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_org import FakeOrg
from dagster_retl.testing.fake_salesforce_soql import run_query
from dagster_retl.testing.fake_salesforce_values import RowRefusedError

AUTH = {"type": "client_credentials", "client_id": "a", "client_secret": "b"}
ACCOUNT_ID, OTHER_ID = "001000000000001AAA", "001000000000002AAA"
DESCRIBED = httpx.Response(200, json={"name": "Account", "fields": [{"name": KEY, "type": "string"}]})


def offline(**config: Any) -> SalesforceConnector:
    return SalesforceConnector(SalesforceConfig.model_validate({"auth": AUTH, **config}))


def _entries(*entries: Mapping[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=list(entries))


def _written(record_id: str = ACCOUNT_ID) -> dict[str, Any]:
    return {"id": record_id, "success": True, "errors": []}


def _found(*pairs: tuple[str, Any]) -> httpx.Response:
    records = [{"attributes": {}, "Id": record_id, KEY: key} for record_id, key in pairs]
    return httpx.Response(200, json={"totalSize": len(records), "done": True, "records": records})


def _kept(operation: str, *pairs: tuple[str, str | None]) -> Batch:
    rows = [make_row({KEY: key, "Name": key.upper()}, key=KEY, record_id=record_id) for key, record_id in pairs]
    return make_batch(rows, operation=operation, object_name="Account", key=KEY)


class TestRequests:
    def test_an_upsert(self) -> None:
        batch = accounts({KEY: "a", "Name": "Ada", "AnnualRevenue": Decimal("12.10"), "Site": None})
        (request,), results = converse(offline().write(batch), _entries({**_written(), "created": True}))
        assert (request.method, request.url) == (
            "PATCH",
            f"/services/data/v62.0/composite/sobjects/Account/{KEY}",
        )
        assert request.content == (
            b'{"allOrNone":false,"records":[{"attributes":{"type":"Account"},'
            b'"External_Id__c":"a","Name":"Ada","AnnualRevenue":12.10,"Site":null}]}'
        )
        assert [(result.key, result.record_id, result.fault) for result in results] == [("a", ACCOUNT_ID, None)]

    def test_an_insert_is_not_sent_again(self) -> None:
        batch = accounts({KEY: "a", "Name": "Ada"}, operation="insert")
        (request,), _ = converse(offline().write(batch), _entries(_written()))
        assert (request.method, request.url) == ("POST", "/services/data/v62.0/composite/sobjects")
        assert not request.idempotent

    def test_an_update_names_the_record_and_leaves_out_its_key(self) -> None:
        row = make_row(
            {KEY: "a", "Score__c": Decimal("1.50"), "NumberOfEmployees": 2**63}, key=KEY, record_id=ACCOUNT_ID
        )
        batch = make_batch([row], operation="update", object_name="Account", key=KEY)
        (request,), _ = converse(offline().write(batch), _entries(_written()))
        assert request.method == "PATCH"
        assert request.content == (
            b'{"allOrNone":false,"records":[{"attributes":{"type":"Account"},"Id":"001000000000001AAA",'
            b'"Score__c":1.50,"NumberOfEmployees":9223372036854775808}]}'
        )

    def test_a_key_that_is_the_id_needs_no_query(self) -> None:
        batch = accounts({"Id": ACCOUNT_ID, "Name": "Ada"}, operation="update", key="Id")
        (request,), (result,) = converse(offline().write(batch), _entries(_written()))
        assert orjson.loads(request.content or b"")["records"] == [
            {"attributes": {"type": "Account"}, "Id": ACCOUNT_ID, "Name": "Ada"}
        ]
        assert result.fault is None

    def test_a_delete(self) -> None:
        batch = _kept("delete", ("a", ACCOUNT_ID), ("b", OTHER_ID))
        (request,), _ = converse(offline().write(batch), _entries(_written(), _written(OTHER_ID)))
        assert (request.method, request.content) == ("DELETE", None)
        assert request.params == {"ids": f"{ACCOUNT_ID},{OTHER_ID}", "allOrNone": "false"}

    def test_ids_that_are_not_known_are_looked_up_together(self) -> None:
        batch = _kept("delete", ("a", ACCOUNT_ID), ("b", None), ("c", None))
        answers = [_entries(_written()), DESCRIBED, _found((OTHER_ID, "B")), _entries(_written(OTHER_ID))]
        requests, results = converse(offline().write(batch), *answers)
        assert [request.method for request in requests] == ["DELETE", "GET", "GET", "DELETE"]
        assert requests[2].params["q"] == f"SELECT Id, {KEY} FROM Account WHERE {KEY} IN ('b', 'c')"
        assert requests[3].params["ids"] == OTHER_ID
        assert [result.key for result in results] == ["a", "b", "c"]
        assert [result.fault and result.fault.code for result in results] == [None, None, ErrorCode.NOT_FOUND]

    def test_the_type_of_the_key_is_asked_for_once(self) -> None:
        connector = offline()
        converse(connector.write(_kept("delete", ("a", None))), DESCRIBED, _found())
        requests, _ = converse(connector.write(_kept("delete", ("b", None))), _found())
        assert [request.url.rpartition("/")[2] for request in requests] == ["query"]

    def test_the_version_is_configurable(self) -> None:
        batch = accounts({KEY: "a"})
        (request,), _ = converse(offline(api_version="59.0").write(batch), _entries(_written()))
        assert request.url.startswith("/services/data/v59.0/")

    @pytest.mark.parametrize("operation", ["upsert", "update", "delete"])
    @pytest.mark.parametrize("key", [[KEY, "Name"], ["Account.External_Id__c"]])
    def test_keys_that_cannot_be_are_refused(self, operation: str, key: list[str]) -> None:
        values = dict.fromkeys(key, "x")
        batch = accounts(values, operation=operation, key=key)
        with pytest.raises(DestinationError, match="one key field") as caught:
            converse(offline().write(batch))
        assert caught.value.code is ErrorCode.CONFIGURATION

    def test_an_upsert_by_id_is_refused(self) -> None:
        with pytest.raises(DestinationError, match="`Id`") as caught:
            converse(offline().write(accounts({"Id": ACCOUNT_ID}, key="Id")))
        assert caught.value.code is ErrorCode.CONFIGURATION

    def test_names_are_quoted_in_addresses(self) -> None:
        batch = accounts({KEY: "a"}, object_name="Acc/../ount")
        (request,), _ = converse(offline().write(batch), _entries(_written()))
        assert "/composite/sobjects/Acc%2F..%2Fount/" in request.url

    def test_names_that_are_none_are_in_no_query(self) -> None:
        batch = accounts({KEY: "a"}, operation="delete", object_name="Account WHERE x")
        with pytest.raises(DestinationError, match="no API name") as caught:
            converse(offline().write(batch), DESCRIBED)
        assert caught.value.code is ErrorCode.CONFIGURATION


class TestAnswers:
    @pytest.mark.parametrize("missing_id", [{}, {"id": None}])
    def test_a_refused_row_fails_alone(self, missing_id: Mapping[str, None]) -> None:
        error = {"statusCode": "REQUIRED_FIELD_MISSING", "message": "Required fields are missing: [Name]", "fields": []}
        answer = _entries(_written(), {**missing_id, "success": False, "errors": [error]})
        _, (good, bad) = converse(offline().write(accounts({KEY: "a"}, {KEY: "b"})), answer)
        assert good.fault is None
        assert bad.fault
        assert (bad.key, bad.record_id) == ("b", None)
        assert (bad.fault.code, bad.fault.vendor_code) == (ErrorCode.MISSING_REQUIRED_FIELD, "REQUIRED_FIELD_MISSING")
        assert bad.fault.message == "Required fields are missing: [Name]"

    @pytest.mark.parametrize(
        "body",
        [
            [_written()],
            [_written(), _written(), _written()],
            [_written(), {"id": ACCOUNT_ID}],
            [_written(), {"success": "true"}],
            {"hasErrors": False},
        ],
    )
    def test_an_answer_that_does_not_fit_leaves_all_open(self, body: Any) -> None:
        with pytest.raises(DestinationError) as caught:
            converse(offline().write(accounts({KEY: "a"}, {KEY: "b"})), httpx.Response(200, json=body))
        assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, True)

    @pytest.mark.parametrize(
        ("status", "vendor_code", "message", "code"),
        [
            (401, "INVALID_SESSION_ID", "Session expired or invalid", ErrorCode.AUTH),
            (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", ErrorCode.QUOTA_EXHAUSTED),
            (403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.", ErrorCode.RATE_LIMIT),
            (403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded.", ErrorCode.RATE_LIMIT),
            (403, "API_DISABLED_FOR_ORG", "The REST API is not enabled for this Organization", ErrorCode.PERMISSION),
            (403, "INSUFFICIENT_ACCESS_OR_READONLY", "no access", ErrorCode.PERMISSION),
            (400, "INVALID_FIELD", "No such column 'X' on sobject of type Account", ErrorCode.SCHEMA_DRIFT),
            (404, "NOT_FOUND", "The requested resource does not exist", ErrorCode.SCHEMA_DRIFT),
            (400, "JSON_PARSER_ERROR", "Cannot deserialize instance of double", ErrorCode.BATCH_REJECTED),
            (400, "SOMETHING_NEW", "we say no", ErrorCode.BATCH_REJECTED),
            (410, "UNSUPPORTED_API_VERSION", "retired", ErrorCode.CONFIGURATION),
            (503, "SERVER_UNAVAILABLE", "later", ErrorCode.DESTINATION_UNAVAILABLE),
            (500, "UNKNOWN_EXCEPTION", "An unexpected error occurred", ErrorCode.DESTINATION_UNAVAILABLE),
        ],
    )
    def test_a_refused_request(self, status: int, vendor_code: str, message: str, code: ErrorCode) -> None:
        response = httpx.Response(status, json=[{"errorCode": vendor_code, "message": message}])
        with pytest.raises(DestinationError) as caught:
            converse(offline().write(accounts({KEY: "a"}, {KEY: "b"})), response)
        assert (caught.value.code, caught.value.vendor_code) == (code, vendor_code)
        assert message in caught.value.message
        assert caught.value.ambiguous == (status >= 500)

    @pytest.mark.parametrize(
        ("vendor_code", "message", "code"),
        [
            ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record", ErrorCode.DESTINATION_LOCKED),
            ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: UNABLE_TO_LOCK_ROW", ErrorCode.DESTINATION_LOCKED),
            ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: Too many SOQL queries: 101", ErrorCode.DESTINATION_LOCKED),
            ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: a bug", ErrorCode.DESTINATION_VALIDATION),
            ("PROCESSING_HALTED", "halted", ErrorCode.DESTINATION_UNAVAILABLE),
            ("DUPLICATE_VALUE", "duplicate value found", ErrorCode.CONFLICT),
            ("DUPLICATES_DETECTED", "Use one of these records?", ErrorCode.CONFLICT),
            ("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", ErrorCode.DESTINATION_VALIDATION),
            ("ENTITY_IS_DELETED", "entity is deleted", ErrorCode.DESTINATION_VALIDATION),
            ("INVALID_FIELD", "Foreign key external ID: x not found", ErrorCode.DESTINATION_VALIDATION),
            ("INVALID_FIELD", "No such column 'X' on sobject of type Account", ErrorCode.SCHEMA_DRIFT),
            ("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded", ErrorCode.QUOTA_EXHAUSTED),
            ("SOMETHING_NEW", "we say no", ErrorCode.DESTINATION_VALIDATION),
        ],
    )
    def test_a_refused_row_has_its_code(self, vendor_code: str, message: str, code: ErrorCode) -> None:
        error = {"statusCode": vendor_code, "message": message, "fields": []}
        _, (result,) = converse(offline().write(accounts({KEY: "a"})), _entries({"success": False, "errors": [error]}))
        assert result.fault
        assert (result.fault.code, result.fault.message) == (code, message)

    def test_all_reasons_are_told(self) -> None:
        errors = [{"statusCode": "STRING_TOO_LONG", "message": text, "fields": []} for text in ("one", "two")]
        _, (result,) = converse(offline().write(accounts({KEY: "a"})), _entries({"success": False, "errors": errors}))
        assert result.fault
        assert result.fault.message == "one; two"

    @pytest.mark.parametrize("operation", ["update", "delete"])
    @pytest.mark.parametrize("vendor_code", ["ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY"])
    def test_a_record_that_is_gone_is_not_found(self, operation: str, vendor_code: str) -> None:
        error = {"statusCode": vendor_code, "message": "gone", "fields": []}
        refused = _entries({"success": False, "errors": [error]})
        _, (result,) = converse(offline().write(_kept(operation, ("a", ACCOUNT_ID))), refused, DESCRIBED, _found())
        assert result.fault
        assert result.fault.code is ErrorCode.NOT_FOUND

    def test_a_reference_to_another_record_that_is_gone_is_not_this_one(self) -> None:
        error = {"statusCode": "INVALID_CROSS_REFERENCE_KEY", "message": "gone", "fields": ["AccountId"]}
        refused = _entries({"success": False, "errors": [error]})
        _, (result,) = converse(offline().write(_kept("update", ("a", ACCOUNT_ID))), refused)
        assert result.fault
        assert result.fault.code is ErrorCode.DESTINATION_VALIDATION

    def test_a_record_that_a_query_just_found_is_not_the_one_that_is_missing(self) -> None:
        error = {"statusCode": "INVALID_CROSS_REFERENCE_KEY", "message": "gone", "fields": []}
        refused = _entries({"success": False, "errors": [error]})
        _, (result,) = converse(
            offline().write(_kept("update", ("a", ACCOUNT_ID))), refused, DESCRIBED, _found((ACCOUNT_ID, "a")), refused
        )
        assert result.fault
        assert result.fault.code is ErrorCode.DESTINATION_VALIDATION


class TestRecords:
    """Against an org that keeps records."""

    def test_the_ids_of_written_records_are_kept(self) -> None:
        with FakeSalesforce() as org:
            results = write(connector_to(org), accounts({KEY: "a", "Name": "Ada"}))
            assert [result.record_id for result in results] == list(org.org.records["Account"])

    def test_a_record_that_was_made_again_is_found_by_its_key(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            (first,) = write(connector, accounts({KEY: "a", "Name": "Ada"}))
            org.org.delete(str(first.record_id))
            write(connector, accounts({KEY: "a", "Name": "Ada"}))
            (updated,) = write(connector, _kept("update", ("a", first.record_id)))
            assert updated.fault is None
            assert updated.record_id != first.record_id
            assert held(org)["a"]["Name"] == "A"
            (deleted,) = write(connector, _kept("delete", ("a", first.record_id)))
            assert deleted.fault is None
            assert held(org) == {}

    @pytest.mark.parametrize("operation", ["update", "delete"])
    def test_two_records_for_a_key_are_a_conflict_of_that_row(self, operation: str) -> None:
        with FakeSalesforce() as org:
            for key, name in (("twice", "one"), ("TWICE", "two"), ("once", "three")):
                org.org.insert(org.org.object("Account"), {"Legacy_Id__c": key, "Name": name})
            rows = [{"Legacy_Id__c": "twice", "Name": "new"}, {"Legacy_Id__c": "once", "Name": "new"}]
            batch = accounts(*rows, operation=operation, key="Legacy_Id__c")
            twice, once = write(connector_to(org), batch)
            assert twice.fault
            assert twice.fault.code is ErrorCode.CONFLICT
            assert "2 records of Account" in twice.fault.message
            assert once.fault is None

    @pytest.mark.parametrize(
        ("key", "stored", "sent"),
        [(KEY, "Ab'c\\d", "aB'c\\d"), (KEY, "42", 42), ("Number__c", 42, Decimal("42.0")), ("Number__c", 7, "7")],
    )
    def test_keys_match_as_the_field_compares_them(self, key: str, stored: Any, sent: Any) -> None:
        with FakeSalesforce() as org:
            org.org.insert(org.org.object("Account"), {key: stored, "Name": "old"})
            batch = accounts({key: sent, "Name": "new"}, operation="update", key=key)
            (result,) = write(connector_to(org), batch)
            assert result.fault is None
            assert [record["Name"] for record in org.org.records["Account"].values()] == ["new"]

    def test_case_counts_where_the_field_says_so(self) -> None:
        with FakeSalesforce() as org:
            for code in ("a", "A"):
                org.org.insert(org.org.object("Account"), {"Code__c": code, "Name": code})
            connector = connector_to(org, case_sensitive_keys=True)
            assert not connector.key_form("Account").ignore_case
            rows = [{"Code__c": code, "Name": f"new {code}"} for code in ("A", "a")]
            results = write(connector, accounts(*rows, operation="update", key="Code__c"))
            assert [result.fault for result in results] == [None, None]
            held_now = {record["Code__c"]: record["Name"] for record in org.org.records["Account"].values()}
            assert held_now == {"a": "new a", "A": "new A"}

    def test_a_text_that_is_no_number_is_in_no_record(self) -> None:
        with FakeSalesforce() as org:
            batch = accounts({"Number__c": "abc"}, operation="delete", key="Number__c")
            (result,) = write(connector_to(org), batch)
            assert result.fault
            assert result.fault.code is ErrorCode.NOT_FOUND

    def test_a_malformed_id_fails_alone(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            (made,) = write(connector, accounts({KEY: "a", "Name": "Ada"}))
            batch = accounts({"Id": "nonsense"}, {"Id": made.record_id}, operation="delete", key="Id")
            bad, good = write(connector, batch)
            assert bad.fault
            assert bad.fault.code is ErrorCode.TYPE_COERCION
            assert good.fault is None
            assert held(org) == {}

    def test_parents_by_external_id(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            (parent,) = write(connector, accounts({KEY: "acme", "Name": "Acme"}))
            rows = [
                {KEY: "c1", "LastName": "One", f"Account.{KEY}": "acme"},
                {KEY: "c2", "LastName": "Two", f"Account.{KEY}": "nobody"},
            ]
            good, bad = write(connector, accounts(*rows, object_name="Contact"))
            assert held(org, "Contact") == {"c1": {KEY: "c1", "LastName": "One", "AccountId": parent.record_id}}
            assert good.fault is None
            assert bad.fault
            assert (bad.fault.code, bad.fault.vendor_code) == (ErrorCode.DESTINATION_VALIDATION, "INVALID_FIELD")
            assert "nobody not found" in bad.fault.message

    def test_a_lock_is_tried_again_by_the_row(self) -> None:
        with FakeSalesforce() as org:
            locked = RowRefusedError("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
            org.org.refuse = lambda name, values: locked if values.get(KEY) == "b" else None
            good, bad = write(connector_to(org), accounts({KEY: "a", "Name": "x"}, {KEY: "b", "Name": "x"}))
            assert good.fault is None
            assert bad.fault
            assert bad.fault.code is ErrorCode.DESTINATION_LOCKED

    def test_all_rows_are_found_in_queries_that_fit_and_in_pages(self) -> None:
        keys = [f"{'ключ ' * 10}{number:04}" for number in range(200)]
        with FakeSalesforce(page_rows=7) as org:
            for key in keys:
                org.org.insert(org.org.object("Account"), {KEY: key, "Name": "x"})
            batch = accounts(*({KEY: key} for key in keys), operation="delete")
            results = write(connector_to(org), batch)
            assert [result.key for result in results] == keys
            assert not any(result.fault for result in results)
            assert held(org) == {}
            sizes = [len(request.query) for request in org.requests if request.path.endswith("/query")]
            assert len(sizes) > 5
            assert max(sizes) <= MOST_ADDRESS + 10

    def test_read_tells_what_is_there(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            (parent,) = write(connector, accounts({KEY: "acme", "Name": "Acme"}))
            write(
                connector,
                accounts({KEY: "c1", "LastName": "One", "AccountId": parent.record_id}, object_name="Contact"),
            )
            fields = ["lastname", "FirstName", f"Account.{KEY}"]
            batch = accounts({KEY: "c1"}, {KEY: "c2"}, object_name="Contact")
            assert drive(connector, connector.read(batch, fields)) == {
                "c1": {"lastname": "One", "FirstName": None, f"Account.{KEY}": "acme"}
            }
            by_id = accounts({"Id": str(parent.record_id)[:15]}, {"Id": "nonsense"}, key="Id")
            assert drive(connector, connector.read(by_id, ["Name"])) == {str(parent.record_id)[:15]: {"Name": "Acme"}}
            assert drive(connector, connector.read(accounts(), ["Name"])) == {}

    def test_where_people_see_a_record(self) -> None:
        connector = offline()
        assert connector.record_url("Account", ACCOUNT_ID) is None, "login.salesforce.com is no org"
        own = offline(login_url="https://acme.my.salesforce.com")
        assert own.record_url("Account", ACCOUNT_ID) == f"https://acme.my.salesforce.com/{ACCOUNT_ID}"
        with FakeSalesforce(instance_host="localhost") as org:
            connector = connector_to(org)
            drive(connector, connector.check())
            assert connector.record_url("Account", ACCOUNT_ID) == f"{org.instance_url}/{ACCOUNT_ID}"


class TestUsage:
    def test_what_an_answer_says_of_the_allocation(self) -> None:
        headers = {"Sforce-Limit-Info": "api-usage=4143/15000; per-app-api-usage=17/250(appName=sample)"}
        state = offline().limits(httpx.Response(200, headers=headers))
        assert state
        assert (state.remaining, state.limit, state.reset) == (10_857, 15_000, None)
        assert offline().limits(httpx.Response(200)) is None

    def test_a_run_stops_before_the_allocation_is_used_up(self) -> None:
        with FakeSalesforce(daily=100) as org:
            connector = connector_to(org, stop_at_usage=0.5)
            org.used = 48
            for key in ("a", "b"):
                write(connector, accounts({KEY: key, "Name": "x"}))
            with pytest.raises(DestinationError, match="50 of its 100") as caught:
                write(connector, accounts({KEY: "c", "Name": "x"}))
            assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.QUOTA_EXHAUSTED, False)
            assert set(held(org)) == {"a", "b"}
            org.used = 10  # hours later; a run begins with a look at the account
            drive(connector, connector.check())
            write(connector, accounts({KEY: "c", "Name": "x"}))
            assert set(held(org)) == {"a", "b", "c"}

    def test_an_allocation_that_is_used_up_ends_the_run(self) -> None:
        with FakeSalesforce(daily=1) as org:
            connector = connector_to(org, stop_at_usage=1.0)
            org.used = 1
            with pytest.raises(DestinationError, match="TotalRequests") as caught:
                write(connector, accounts({KEY: "a", "Name": "x"}))
            assert caught.value.code is ErrorCode.QUOTA_EXHAUSTED

    def test_too_many_at_once_is_waited_for(self) -> None:
        body = orjson.dumps([{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit exceeded."}])
        with FakeSalesforce() as org:
            connector = connector_to(org)
            org.disturb(Trouble(status=403, body=body), where=lambda request: "composite" in request.path)
            with pytest.raises(DestinationError) as caught:
                write(connector, accounts({KEY: "a", "Name": "x"}))
            assert caught.value.code is ErrorCode.RATE_LIMIT
            write(connector, accounts({KEY: "a", "Name": "x"}))


class TestSoql:
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
    def test_any_text_is_found_again(self, texts: list[str]) -> None:
        org = FakeOrg()
        kind = org.object("Account")
        for text in dict.fromkeys(texts):
            org.insert(kind, {"Code__c": text[:80], "Name": "x"}) if not org.find(kind, _code(org), text[:80]) else None
        field = KeyField("Code__c", case_sensitive=True)
        wanted = list(dict.fromkeys(text[:80] for text in texts))
        found = [
            record["Code__c"]
            for soql in queries("Account", ["Code__c"], "Code__c", [field.literal(text) for text in wanted])
            for record in run_query(org, soql)
        ]
        assert sorted(found) == sorted(wanted)

    @given(st.lists(st.text(string.printable, min_size=1, max_size=255), min_size=1, max_size=60))
    def test_queries_fit_and_hold_every_literal_once(self, texts: list[str]) -> None:
        literals = [KeyField("F").literal(text) for text in texts]
        made = list(queries("Account", ["Id"], "F", literals))
        inside = [soql[len("SELECT Id FROM Account WHERE F IN (") : -1] for soql in made]
        assert ", ".join(inside) == ", ".join(literals)
        assert all(len(str(httpx.QueryParams({"q": soql}))) <= MOST_ADDRESS + 10 for soql in made)

    def test_operations_that_may_be_repeated(self) -> None:
        connector = offline()
        assert [connector.idempotent(operation) for operation in Operation] == [True, False, True, True]
        assert connector.atomic_rejection


def _code(org: FakeOrg) -> Any:
    return org.object("Account").field("Code__c")
