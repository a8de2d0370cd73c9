"""The contract of connectors, for `hubspot` in the ways in which an account may answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, ClassVar

from hubspot_things import TOKEN, connector

from dagster_retl.connectors.hubspot import HubSpotConnector
from dagster_retl.testing.contract import HttpConnectorContract
from dagster_retl.testing.fake_hubspot import FakeHubSpot
from dagster_retl.testing.fake_hubspot_rules import HubSpotRules

APP = ("app-1", "client-secret-9f", "refresh-77aa")


class _OfTheFake(HttpConnectorContract):
    connector_type = HubSpotConnector
    key = "customer_id"
    secrets = (TOKEN,)
    rules: ClassVar[Mapping[str, Any]] = {}
    examples = 12

    def destination(self) -> AbstractContextManager[FakeHubSpot]:
        return FakeHubSpot(HubSpotRules(**{"token": TOKEN, **self.rules}))

    def connector(self, destination: FakeHubSpot) -> HubSpotConnector:
        return connector(destination.url)

    def unauthorised(self, destination: FakeHubSpot) -> HubSpotConnector:
        return connector(destination.url, token="pat-na1-revoked")

    def stored(self, destination: FakeHubSpot) -> Mapping[str, Mapping[str, Any]]:
        return {record[self.key]: record for record in destination.stored(self.object_name).values()}

    def values(self, number: int) -> dict[str, Any]:
        return {self.key: f"k{number}", "firstname": f"Name {number}", "email": f"k{number}@example.com"}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "email": "no address"}

    def sample(self) -> dict[str, Any]:
        return {
            self.key: "sample",
            "firstname": "Zoë 🚀 \"quoted\" 'single' back\\slash\nnew line %s {brace}",
            "score": Decimal("12345678901234567.890"),
            "notes": 2**63 - 1,
            "lastname": None,
            "is_member": True,
        }

    def expected(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """All is text; what was cleared is not there."""
        return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return "true" if value is True else str(value)


class TestRefusedWhole(_OfTheFake):
    pass


class TestRefusedByRow(_OfTheFake):
    rules: ClassVar[Mapping[str, Any]] = {"refusals": "row", "seed": 7}


class TestResultsThatNameTheirInput(_OfTheFake):
    rules: ClassVar[Mapping[str, Any]] = {"refusals": "row", "names_results": True}


class TestPublicApp(_OfTheFake):
    rules: ClassVar[Mapping[str, Any]] = {"token": None, "app": APP, "token_requests": 3}
    secrets = APP[1:]

    def connector(self, destination: FakeHubSpot) -> HubSpotConnector:
        return self._of_app(destination, *APP)

    def unauthorised(self, destination: FakeHubSpot) -> HubSpotConnector:
        return self._of_app(destination, APP[0], APP[1], "revoked")

    def expire(self, destination: FakeHubSpot) -> bool:
        destination.access.revoke_tokens()
        return True

    def _of_app(self, destination: FakeHubSpot, client: str, secret: str, refresh: str) -> HubSpotConnector:
        app = {"client_id": client, "client_secret": secret, "refresh_token": refresh}
        return connector(destination.url, oauth=app)


class TestContactsByEmail(_OfTheFake):
    key = "email"
    rules: ClassVar[Mapping[str, Any]] = {"seed": 3}

    def values(self, number: int) -> dict[str, Any]:
        return {self.key: f"k{number}@example.com", "firstname": f"Name {number}", "score": number}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "score": "many"}

    def sample(self) -> dict[str, Any]:
        return {**super().sample(), self.key: "sample@example.com"} | {"customer_id": "c1"}


class TestCustomObject(_OfTheFake):
    object_name = "p4711_cars"
    key = "vin"

    def values(self, number: int) -> dict[str, Any]:
        return {self.key: f"VIN{number}", "model": f"Model {number}", "seats": number}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "model": None}

    def sample(self) -> dict[str, Any]:
        return {self.key: "VIN", "model": "Zoë", "seats": Decimal("5.0")}
