"""What the Salesforce connector tells of an org: objects, fields, and whether a mapping fits them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from salesforce_orgs import KEY, connector_to
from test_salesforce_write import offline

from dagster_retl.engine.guards import contract_guard
from dagster_retl.errors import DestinationError
from dagster_retl.model.rows import FieldInfo, FieldType
from dagster_retl.model.sync import Sync
from dagster_retl.testing import converse, drive
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_schema import (
    FakeField,
    FakeObject,
    default_schema,
    external_id,
    system_fields,
)


def _fields(org: FakeSalesforce, object_name: str = "Account") -> dict[str, FieldInfo]:
    connector = connector_to(org)
    return {info.name: info for info in drive(connector, connector.fields(object_name))}


def test_objects_that_can_be_written_to() -> None:
    with FakeSalesforce() as org:
        connector = connector_to(org)
        objects = {info.api_name: info for info in drive(connector, connector.objects())}
        assert set(objects) == {"Account", "Contact"}, "the org itself cannot be written"
        assert objects["Account"].supports_upsert
        assert objects["Account"].label == "Account"


def test_the_fields_of_an_object() -> None:
    with FakeSalesforce() as org:
        fields = _fields(org)
        assert fields["Name"] == FieldInfo("Name", "Account Name", "string", required=True)
        assert fields[KEY] == FieldInfo(KEY, "External Id", "string", external_id=True)
        assert (fields["Id"].createable, fields["Id"].updateable, fields["Id"].external_id) == (False, False, False)
        assert not fields["Active__c"].required, "a checkbox has a value of its own"
        assert not fields["MasterRecordId"].updateable
        assert fields["Last_Order_At__c"].data_type == "datetime"
        assert [name for name, info in fields.items() if info.required] == ["Name"]


def test_a_parent_stands_beside_the_field_that_refers_to_it() -> None:
    order = FakeObject(
        "Order__c",
        "a00",
        (
            *system_fields(),
            external_id(),
            FakeField("Account__c", "reference", nillable=False, parent="Account", relationship="Account__r"),
        ),
    )
    with FakeSalesforce([*default_schema(), order]) as org:
        fields = _fields(org, "Order__c")
        assert fields["Account__r"].data_type == "parent"
        assert fields["Account__r"].createable
        assert not fields["Account__c"].required, "the parent by external id will do"
        assert _fields(org, "Contact")["Email"].external_id, "an upsert may go by it"


def _guard(org: FakeSalesforce, *names: str, object_name: str = "Contact", mode: str = "upsert") -> str | None:
    mappings = [{"source": "x", "destination": name, "key": number == 0} for number, name in enumerate(names)]
    sync = Sync.model_validate(
        {
            "name": "s",
            "source_query": "SELECT 1 AS x",
            "destination_id": "d",
            "object_name": object_name,
            "sync_mode": mode,
            "field_mappings": mappings,
        }
    )
    fields = [FieldType(name, None) for name in names]
    error = contract_guard(sync, fields, list(_fields(org, object_name).values()))
    return error.message if error else None


@pytest.mark.parametrize(
    ("names", "mode", "words"),
    [
        ((KEY, "LastName", f"Account.{KEY}"), "upsert", None),
        ((KEY, "LastName", "AccountId"), "mirror", None),
        (("Id", "LastName"), "update", None),
        ((KEY, "LastName", "Interest__c"), "upsert", "did you mean 'Interests__c'"),
        ((KEY, "FirstName"), "upsert", "required fields are not mapped: LastName"),
        ((KEY, "LastName", "CreatedDate"), "upsert", "'CreatedDate' cannot be written"),
    ],
)
def test_a_mapping_is_checked_before_a_run_writes(names: tuple[str, ...], mode: str, words: str | None) -> None:
    with FakeSalesforce() as org:
        message = _guard(org, *names, mode=mode)
        assert message is None if words is None else message and words in message


@pytest.mark.parametrize("body", [{}, {"fields": [{"label": "x"}]}, {"fields": "x"}, []])
def test_nonsense_is_no_description(body: Any) -> None:
    with pytest.raises(DestinationError, match="without 'fields'"):
        converse(offline().fields("Account"), httpx.Response(200, json=body))
