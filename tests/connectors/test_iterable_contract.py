"""The contract of connectors, for each kind of object that `iterable` writes to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dagster_retl.connectors.iterable import IterableConnector
from dagster_retl.connectors.iterable_config import IterableConfig
from dagster_retl.connectors.iterable_objects import OPERATIONS, Kind
from dagster_retl.model.rows import Operation
from dagster_retl.testing.contract import HttpConnectorContract
from dagster_retl.testing.fake_iterable import FakeIterable, IterableRules
from dagster_retl.testing.fake_iterable_catalogs import Catalog
from dagster_retl.testing.fake_iterable_lists import List

KEY = "9f1c2d7ab04e4c21a7c4f2be1d6a5e33"
LIST = 1068682


class _OfTheFake(HttpConnectorContract):
    connector_type = IterableConnector
    secrets = (KEY,)
    rules: ClassVar[Mapping[str, Any]] = {}
    config: ClassVar[Mapping[str, Any]] = {}

    def destination(self) -> AbstractContextManager[FakeIterable]:
        fake = FakeIterable(IterableRules({KEY: "server"}, **{"accepts_new_fields": True, **self.rules}))
        fake.users.fields.types["score"] = "long"
        fake.lists.all[LIST] = List("Buyers")
        fake.catalogs.all["shops"] = Catalog()
        return fake

    def connector(self, destination: FakeIterable) -> IterableConnector:
        return self._with_key(destination, KEY)

    def unauthorised(self, destination: FakeIterable) -> IterableConnector:
        return self._with_key(destination, "of-somebody-else")

    def _with_key(self, destination: FakeIterable, key: str) -> IterableConnector:
        settings = {"base_url": destination.url, "api_key": key, "create_new_fields": True, **self.config}
        return IterableConnector(IterableConfig.model_validate(settings))

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "score": "many"}


class _Users(_OfTheFake):
    object_name = "users"
    key = "email"

    def values(self, number: int) -> dict[str, Any]:
        return {"email": f"k{number}@example.com", "name": f"Name {number}"}

    def sample(self) -> dict[str, Any]:
        return {**super().sample(), "email": "sample@example.com"}

    def stored(self, destination: FakeIterable) -> Mapping[str, Mapping[str, Any]]:
        return {str(user.email): {"email": user.email, **user.data} for user in destination.users.all}


class TestUsers(_Users):
    config: ClassVar[Mapping[str, Any]] = {"batch_rows": 5}


class TestUsersRefusedWhole(_Users):
    """A value of another type than its field has refuses the whole request."""

    rules: ClassVar[Mapping[str, Any]] = {"mismatches": "request"}
    examples = 10


class TestUsersThatNobodyNames(_Users):
    """Failures are counted, and no user is named."""

    rules: ClassVar[Mapping[str, Any]] = {"vague": True}
    examples = 10


class TestUsersOneByOne(_Users):
    config: ClassVar[Mapping[str, Any]] = {"one_by_one": True, "batch_rows": 4}
    examples = 10


class TestUsersById(_Users):
    key = "userId"
    rules: ClassVar[Mapping[str, Any]] = {"identity": "userId"}
    config: ClassVar[Mapping[str, Any]] = {"identify_by": "userId", "batch_rows": 7}
    examples = 10

    def values(self, number: int) -> dict[str, Any]:
        return {"userId": f"K{number}", "name": f"Name {number}"}

    def sample(self) -> dict[str, Any]:
        sample = super().sample()
        del sample["email"]
        return {**sample, "userId": "Sample"}

    def stored(self, destination: FakeIterable) -> Mapping[str, Mapping[str, Any]]:
        return {str(user.user_id): {"userId": user.user_id, **user.data} for user in destination.users.all}


class TestMembersOfAList(_Users):
    object_name = f"lists/{LIST}"
    operations = OPERATIONS[Kind.LISTS]
    examples = 10

    def stored(self, destination: FakeIterable) -> Mapping[str, Mapping[str, Any]]:
        members = destination.lists.members(LIST)
        assert members == destination.users.all, "nobody is written who does not become a member"
        return super().stored(destination)


class TestEvents(_OfTheFake):
    object_name = "events"
    key = "id"
    operation = Operation.INSERT
    operations = OPERATIONS[Kind.EVENTS]
    examples = 15

    def values(self, number: int) -> dict[str, Any]:
        """Two events of each user, whose address is written in two ways."""
        address = f"K{number // 2}@example.com" if number % 2 else f"k{number // 2}@example.com"
        return {"id": f"e{number}", "email": address, "eventName": "Bought", "name": f"Name {number}", "score": 3}

    def sample(self) -> dict[str, Any]:
        return {**super().sample(), "email": "sample@example.com", "eventName": "Sampled", "createdAt": 1_743_094_800}

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "email": f"{values['id']}.example.com"}

    def stored(self, destination: FakeIterable) -> Mapping[str, Mapping[str, Any]]:
        own = ("id", "email", "eventName", "createdAt")
        return {
            name: {**event["dataFields"], **{field: event[field] for field in own if field in event}}
            for name, event in destination.events.all.items()
        }


class TestItemsOfACatalog(_OfTheFake):
    object_name = "catalogs/shops"
    operations = OPERATIONS[Kind.CATALOGS]
    config: ClassVar[Mapping[str, Any]] = {"batch_rows": 6}
    examples = 15

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "opening": {"mon.tue": "9-17"}}

    def stored(self, destination: FakeIterable) -> Mapping[str, Mapping[str, Any]]:
        return {name: {"id": name, **item} for name, item in destination.catalogs.all["shops"].items.items()}
