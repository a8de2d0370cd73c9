"""Driver: a first sync of accounts to Salesforce, by the same door that the command line and Dagster use.

Settings: folder, warehouse (URL of a DuckDB file with the benchmarks' table), destination (login URL), app (id and
secret), api: `collections` or `bulk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import drive

from dagster_retl import Project
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service

QUERY = "SELECT 'A-' || id AS id, company || ' ' || id AS name, city FROM people"


def project(settings: Mapping[str, Any]) -> Project:
    """One sync `accounts`, by external id."""
    client_id, client_secret = settings["app"]
    auth = {"type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
    config = {"login_url": settings["destination"], "auth": auth, "api": settings["api"]}
    definition = {
        "name": "accounts",
        "source_query": QUERY,
        "destination_id": "org",
        "object_name": "Account",
        "key": "External_Id__c",
        "field_mappings": {"External_Id__c": "id", "Name": "name", "Site": "city"},
    }
    folder = Path(settings["folder"])
    return Project(
        store=f"sqlite:///{folder / 'retl.db'}",
        state=str(folder / "state"),
        warehouses={"default": {"url": settings["warehouse"]}},
        destinations={"org": {"connector": "salesforce", "config": config}},
        syncs=[Sync.model_validate(definition)],
        base=folder,
    )


def prepare(settings: Mapping[str, Any]) -> None:
    """What a process does once: import the connector, create the store."""
    made = project(settings)
    with Service.open(made) as service:
        service.connector(made.destination("org")).close()


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run; what it says it did."""
    with Service(project(settings)) as service:
        counters = service.run("accounts").run.counters
    if not counters.balanced():
        raise RuntimeError(f"the books do not balance: {counters}")
    return {"written": counters.written, "requests": counters.requests}


if __name__ == "__main__":
    drive(run, prepare)
