"""A sync to Salesforce by Bulk jobs, which a process of its own may run: `python accounts.py FOLDER URL MODE`."""

from __future__ import annotations

import sys
from pathlib import Path

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service
from dagster_retl.testing.fake_salesforce_login import FakeApp

KEY = "External_Id__c"


def project_of(folder: Path, url: str, mode: str) -> Project:
    """Rows of the warehouse table `t(id, name)` as accounts, in jobs of five rows."""
    app = FakeApp()
    auth = {"type": "client_credentials", "client_id": app.client_id, "client_secret": app.client_secret}
    config = {"login_url": url, "auth": auth, "api": "bulk", "job_rows": 5, "concurrency": 1}
    sync = {
        "name": "accounts",
        "source_query": "SELECT * FROM t",
        "destination_id": "sf",
        "object_name": "Account",
        "sync_mode": mode,
        "key": KEY,
        "field_mappings": {KEY: "id", "Name": "name"},
    }
    return Project(
        store=f"sqlite:///{folder / 'retl.db'}",
        state=str(folder / "state"),
        base=folder,
        warehouses={"default": {"url": f"duckdb:///{folder / 'warehouse.duckdb'}"}},
        destinations={"sf": {"connector": "salesforce", "config": config}},
        syncs=[Sync.model_validate(sync)],
    )


def main() -> None:
    folder, url, mode = sys.argv[1:]
    with Service(project_of(Path(folder), url, mode)) as service:
        service.run("accounts")


if __name__ == "__main__":
    main()
