"""The Acme connector keeps the contract, and says what Acme says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import httpx
from acme_connector import AcmeConnector
from acme_connector.connector import AcmeConfig
from acme_connector.fake import FakeAcme

from dagster_retl.model.project import Project
from dagster_retl.model.runs import RunOptions
from dagster_retl.service import Service
from dagster_retl.testing import converse, deliver, faults, make_batch
from dagster_retl.testing.contract import HttpConnectorContract

TOKEN = "tok-4711-acme"


class TestContract(HttpConnectorContract):
    connector_type = AcmeConnector
    object_name = "people"
    secrets = (TOKEN,)

    def destination(self) -> AbstractContextManager[FakeAcme]:
        return FakeAcme(TOKEN)

    def connector(self, destination: FakeAcme) -> AcmeConnector:
        return AcmeConnector(AcmeConfig(base_url=destination.url, token=TOKEN))

    def unauthorised(self, destination: FakeAcme) -> AcmeConnector:
        return AcmeConnector(AcmeConfig(base_url=destination.url, token="expired"))

    def stored(self, destination: FakeAcme) -> Mapping[str, Mapping[str, Any]]:
        return destination.people

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "name": 42}


def test_a_person_without_an_entry_has_no_result() -> None:
    connector = AcmeConnector(AcmeConfig(token=TOKEN))
    batch = make_batch([{"id": "a"}, {"id": "b"}], object_name="people")
    answer = httpx.Response(207, json={"results": [{"index": 1, "id": "p-b"}]})
    _, results = converse(connector.write(batch), answer)
    assert [(result.key, result.record_id) for result in results] == [("b", "p-b")]


def test_somebody_else_has_the_address() -> None:
    rows = [{"id": "a", "email": "x@acme.example"}, {"id": "b", "email": "x@acme.example"}]
    with FakeAcme(TOKEN) as acme:
        connector = AcmeConnector(AcmeConfig(base_url=acme.url, token=TOKEN))
        _, refused = deliver(connector, make_batch(rows, object_name="people"))
        assert refused.fault is not None
        assert (refused.fault.code, refused.fault.vendor_code) == ("CONFLICT", "duplicate_email")


def test_a_whole_sync(tmp_path: Path) -> None:
    """With a warehouse, a store and an outage; the connector is found by its entry point."""
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as warehouse:
        warehouse.execute("CREATE TABLE people AS SELECT 'a' AS id, 'Ada' AS name UNION ALL SELECT 'b', 'Bob'")
    with FakeAcme(TOKEN) as acme, Service(project(tmp_path, acme.url)) as service:
        acme.disturb(faults.error(503, applied=True), where=lambda request: request.method == "POST")
        assert service.run("people", RunOptions()).run.counters.written == 2
        assert acme.people == {"a": {"id": "a", "name": "Ada"}, "b": {"id": "b", "name": "Bob"}}
        with duckdb.connect(str(tmp_path / "shop.duckdb")) as warehouse:
            warehouse.execute("DELETE FROM people WHERE id = 'b'")
        assert service.run("people", RunOptions()).run.counters.deleted == 1
        assert set(acme.people) == {"a"}


def project(folder: Path, url: str) -> Project:
    sync = {
        "name": "people",
        "source_query": "SELECT id, name FROM people",
        "destination_id": "acme",
        "object_name": "people",
        "sync_mode": "mirror",
        "key": "id",
        "field_mappings": {"id": "id", "name": "name"},
    }
    return Project(
        store=f"sqlite:///{folder / 'retl.db'}",
        state=str(folder / "state"),
        warehouses={"default": {"url": f"duckdb:///{folder / 'shop.duckdb'}"}},
        destinations={"acme": {"connector": "acme", "config": {"base_url": url, "token": TOKEN}}},
        syncs=[sync],
        base=folder,
    )
