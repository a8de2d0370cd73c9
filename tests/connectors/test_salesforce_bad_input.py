"""Bad input, as Salesforce answers it: its own message is kept, with the right code, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from salesforce_orgs import KEY, accounts, connector_to, held

from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault
from dagster_retl.testing import deliver, drive, make_batch, make_row, write
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_schema import FakeField
from dagster_retl.testing.fake_salesforce_values import RowRefusedError

GOOD = {KEY: "good", "Name": "Good"}


def _only_fault(org: FakeSalesforce, batch: Batch) -> Fault:
    """The fault of the one bad row of a batch whose other row is `GOOD`, and is written."""
    results = {result.key: result.fault for result in deliver(connector_to(org), batch)}
    assert results.pop("good") is None
    assert "good" in held(org)
    (fault,) = results.values()
    assert fault
    return fault


@pytest.mark.parametrize(
    ("bad", "code", "vendor_code", "words"),
    [
        ({"Name": None}, ErrorCode.MISSING_REQUIRED_FIELD, "REQUIRED_FIELD_MISSING", "missing: [Name]"),
        (
            {"Rating": "Lukewarm"},
            ErrorCode.DESTINATION_VALIDATION,
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "bad value for restricted picklist field: Lukewarm",
        ),
        ({"Site": "x" * 81}, ErrorCode.DESTINATION_VALIDATION, "STRING_TOO_LONG", "(max length=80)"),
        (
            {"Support_Email__c": "badone"},
            ErrorCode.DESTINATION_VALIDATION,
            "INVALID_EMAIL_ADDRESS",
            "invalid email address: badone",
        ),
        ({"Active__c": None}, ErrorCode.TYPE_COERCION, "INVALID_TYPE_ON_FIELD_IN_RECORD", "not of required type"),
        (
            {"MasterRecordId": "001000000000001AAA"},
            ErrorCode.DESTINATION_VALIDATION,
            "INVALID_FIELD_FOR_INSERT_UPDATE",
            "Unable to create/update fields: MasterRecordId",
        ),
    ],
)
def test_a_value_that_a_row_may_not_have(bad: Mapping[str, Any], code: ErrorCode, vendor_code: str, words: str) -> None:
    with FakeSalesforce() as org:
        fault = _only_fault(org, accounts(GOOD, {KEY: "bad", "Name": "Bad", **bad}))
        assert (fault.code, fault.vendor_code) == (code, vendor_code)
        assert words in fault.message
        assert set(held(org)) == {"good"}


@pytest.mark.parametrize("bad", [{"Score__c": "many"}, {"Founded__c": "2003-04-98"}, {"Description": ["a", "b"]}])
def test_a_value_of_another_type_refuses_the_request_and_is_found_by_halving(bad: Mapping[str, Any]) -> None:
    with FakeSalesforce() as org:
        fault = _only_fault(org, accounts(GOOD, {KEY: "bad", "Name": "Bad", **bad}))
        assert (fault.code, fault.vendor_code) == (ErrorCode.BATCH_REJECTED, "JSON_PARSER_ERROR")
        assert "Cannot deserialize instance of" in fault.message
        assert set(held(org)) == {"good"}


def test_inserts_are_halved_too() -> None:
    """A request that cannot be read has written nothing."""
    with FakeSalesforce() as org:
        rows = [{"Name": "a"}, {"Name": "b", "Score__c": "many"}, {"Name": "c"}]
        deliver(connector_to(org), make_batch(rows, operation="insert", object_name="Account", key="Name"))
        assert sorted(record["Name"] for record in org.org.records["Account"].values()) == ["a", "c"]


def test_an_unknown_field_ends_the_run() -> None:
    with FakeSalesforce() as org:
        (result,) = write(connector_to(org), accounts({**GOOD, "Nmae": "x"}))
        assert result.fault
        assert (result.fault.code, result.fault.vendor_code) == (ErrorCode.SCHEMA_DRIFT, "INVALID_FIELD")
        assert result.fault.message == "No such column 'Nmae' on sobject of type Account"
        assert ACTIONS[result.fault.code] is Action.ABORT
        assert held(org) == {}


@pytest.mark.parametrize("operation", ["upsert", "insert", "update", "delete"])
def test_an_unknown_object_ends_the_run(operation: str) -> None:
    with FakeSalesforce() as org:
        with pytest.raises(DestinationError, match="The requested resource does not exist") as caught:
            write(connector_to(org), accounts(GOOD, operation=operation, object_name="Acount"))
        assert (caught.value.code, caught.value.vendor_code) == (ErrorCode.SCHEMA_DRIFT, "NOT_FOUND")


def test_the_fields_of_an_unknown_object_are_not_there() -> None:
    with FakeSalesforce() as org:
        connector = connector_to(org)
        with pytest.raises(DestinationError) as caught:
            drive(connector, connector.fields("Acount"))
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT


def test_an_upsert_by_a_field_that_is_no_external_id_ends_the_run() -> None:
    with FakeSalesforce() as org:
        with pytest.raises(DestinationError, match="Provided external ID field does not exist") as caught:
            write(connector_to(org), accounts(GOOD, key="Name"))
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT


def test_a_key_field_that_does_not_exist_ends_the_run() -> None:
    with FakeSalesforce() as org:
        with pytest.raises(DestinationError, match="no field 'Gone__c'") as caught:
            write(connector_to(org), accounts({"Gone__c": "a"}, operation="delete", key="Gone__c"))
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT


def test_a_version_that_the_org_does_not_know_ends_the_run() -> None:
    with FakeSalesforce() as org:
        connector = connector_to(org, api_version="99.0")
        with pytest.raises(DestinationError) as caught:
            drive(connector, connector.check())
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT
        assert "`api_version`" in str(caught.value.hint)


def test_a_key_that_matches_two_records() -> None:
    with FakeSalesforce() as org:
        for name in ("one", "two"):
            org.org.insert(org.org.object("Account"), {"Legacy_Id__c": "twice", "Name": name})
        (result,) = write(connector_to(org), accounts({"Legacy_Id__c": "twice", "Name": "x"}, key="Legacy_Id__c"))
        assert result.fault
        assert (result.fault.code, result.fault.vendor_code) == (ErrorCode.CONFLICT, "DUPLICATE_EXTERNAL_ID")
        assert "more than one record found for external id field" in result.fault.message


def test_a_value_that_another_record_has() -> None:
    with FakeSalesforce() as org:
        account = org.org.object("Account")
        org.org.alter(account.with_fields(FakeField("AccountNumber", length=40, unique=True)))
        org.org.insert(org.org.object("Account"), {"AccountNumber": "7", "Name": "first"})
        fault = _only_fault(org, accounts(GOOD, {KEY: "bad", "Name": "Bad", "AccountNumber": "7"}))
        assert (fault.code, fault.vendor_code) == (ErrorCode.CONFLICT, "DUPLICATE_VALUE")
        assert "duplicates value on record with id" in fault.message


def test_keys_that_salesforce_takes_for_one_fail_both() -> None:
    with FakeSalesforce() as org:
        results = write(connector_to(org), accounts(GOOD, {KEY: "a", "Name": "x"}, {KEY: "A", "Name": "y"}))
        codes = {result.key: result.fault and result.fault.code for result in results}
        assert codes == {"good": None, "a": ErrorCode.CONFLICT, "A": ErrorCode.CONFLICT}
        assert connector_to(org).key_form("Account").ignore_case, "so that the engine finds them before"


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_a_record_that_was_deleted_meanwhile(operation: str) -> None:
    with FakeSalesforce() as org:
        connector = connector_to(org)
        (made,) = write(connector, accounts({KEY: "a", "Name": "x"}))
        org.org.delete(str(made.record_id))
        row = make_row({KEY: "a", "Name": "y"}, key=KEY, record_id=made.record_id)
        (result,) = write(connector, make_batch([row], operation=operation, object_name="Account", key=KEY))
        assert result.fault
        assert result.fault.code is ErrorCode.NOT_FOUND
        by_id = accounts({"Id": made.record_id, "Name": "y"}, operation=operation, key="Id")
        (result,) = write(connector, by_id)
        assert result.fault
        assert (result.fault.code, result.fault.vendor_code) == (ErrorCode.NOT_FOUND, "ENTITY_IS_DELETED")
        assert result.fault.message == "entity is deleted"


def test_a_validation_rule_keeps_its_words() -> None:
    rule = RowRefusedError("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Names start with a capital, says Ada", ("Name",))
    with FakeSalesforce() as org:
        org.org.refuse = lambda name, values: rule if str(values.get("Name")).islower() else None
        fault = _only_fault(org, accounts(GOOD, {KEY: "bad", "Name": "bad"}))
        assert (fault.code, fault.vendor_code) == (ErrorCode.DESTINATION_VALIDATION, rule.code)
        assert fault.message == rule.message


def test_text_that_is_empty_clears_a_field_as_null_does() -> None:
    with FakeSalesforce() as org:
        connector = connector_to(org)
        write(connector, accounts({**GOOD, "Site": "x", "AccountNumber": "7"}))
        write(connector, accounts({KEY: "good", "Site": None, "AccountNumber": ""}))
        assert held(org)["good"] == {KEY: "good", "Name": "Good", "Site": None, "AccountNumber": None}


def test_multi_picklists_go_as_they_are() -> None:
    with FakeSalesforce() as org:
        row = {KEY: "c", "LastName": "x", "Interests__c": "Chess;Go"}
        write(connector_to(org), accounts(row, object_name="Contact"))
        assert held(org, "Contact")["c"]["Interests__c"] == "Chess;Go"
