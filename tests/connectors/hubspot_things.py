"""A fake HubSpot account and connectors to it, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster_retl.connectors.hubspot import HubSpotConnector
from dagster_retl.connectors.hubspot_config import HubSpotConfig
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing import make_batch
from dagster_retl.testing.fake_hubspot import FakeHubSpot

TOKEN = "pat-eu1-1f7c"
COMPANY = {"company": {"object": "companies", "by": "domain"}}


def connector(url: str = "https://api.hubapi.com", **settings: Any) -> HubSpotConnector:
    """A connector to an account, with the token that the fake accepts unless another way in is given."""
    way_in = {} if "oauth" in settings else {"token": TOKEN}
    return HubSpotConnector(HubSpotConfig.model_validate({"base_url": url, **way_in, **settings}))


def batch(
    rows: Sequence[Any],
    operation: Operation | str = Operation.UPSERT,
    *,
    object_name: str = "contacts",
    key: str | Sequence[str] = "customer_id",
) -> Batch:
    return make_batch(rows, operation=operation, object_name=object_name, key=key, wire=HubSpotConnector.spec.wire_form)


def by(fake: FakeHubSpot, object_name: str, name: str) -> Mapping[str, Mapping[str, str]]:
    """What an account holds of an object, by the value of a property."""
    return {record[name]: record for record in fake.stored(object_name).values() if name in record}
