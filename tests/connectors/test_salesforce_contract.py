"""The contract of connectors, for Salesforce."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from salesforce_orgs import KEY, connector_to, held

from dagster_retl.connectors.salesforce import SalesforceConnector
from dagster_retl.model.rows import WireForm
from dagster_retl.testing.contract import HttpConnectorContract
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_login import FakeApp
from dagster_retl.testing.rows import nested, wire_value

SECRET = "s3cr3t+/%of-the-app"


class TestSalesforce(HttpConnectorContract):
    connector_type = SalesforceConnector
    object_name = "Account"
    key = KEY
    secrets = (SECRET,)

    def destination(self) -> AbstractContextManager[FakeSalesforce]:
        return FakeSalesforce(app=FakeApp(client_secret=SECRET))

    def connector(self, destination: FakeSalesforce) -> SalesforceConnector:
        return connector_to(destination, batch_rows=7)

    def expire(self, destination: FakeSalesforce) -> bool:
        destination.login.expire_tokens()
        return True

    def unauthorised(self, destination: FakeSalesforce) -> SalesforceConnector:
        wrong = {"type": "client_credentials", "client_id": destination.login.app.client_id, "client_secret": "wrong"}
        return connector_to(destination, auth=wrong)

    def stored(self, destination: FakeSalesforce) -> Mapping[str, Mapping[str, Any]]:
        return held(destination)

    def values(self, number: int) -> dict[str, Any]:
        return {KEY: f"k{number}", "Name": f"Name {number}"}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "Rating": "Lukewarm"}

    def sample(self) -> dict[str, Any]:
        return {
            KEY: "sample",
            "Name": "Zoë 🚀 \"quoted\" 'single' back\\slash\nnew line %s {brace}",
            "AnnualRevenue": Decimal("1234567890123456.78"),
            "NumberOfEmployees": 2**59,
            "Site": None,
            "Active__c": True,
            "Founded__c": date(2024, 2, 29),
            "Last_Order_At__c": datetime(2025, 3, 27, 17, 0, tzinfo=UTC),
        }

    def expected(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return nested({name: wire_value(value, WireForm()) for name, value in values.items()})
