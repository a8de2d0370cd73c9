"""A Dagster project as people have it, that gains a Salesforce sync: its folder, its processes, its people.

The upstream assets stand for dbt models: they make views in a DuckDB file and say which.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
from programs import ROOT, eventually

from dagster_retl.orchestration.instance import prepare_home
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.server import LoopbackServer, Reply

MODELS = '''"""What there was before: two models of dbt's, in one warehouse."""

from pathlib import Path

import dagster as dg
import duckdb

WAREHOUSE = Path(__file__).parent / "warehouse.duckdb"


def model(name: str, sql: str, description: str, deps: list[dg.AssetsDefinition]) -> dg.AssetsDefinition:
    @dg.asset(
        key=["marts", name],
        deps=deps,
        group_name="marts",
        kinds={"dbt", "duckdb"},
        description=description,
        metadata={"dagster/table_name": f"warehouse.main.{name}"},
    )
    def build() -> dg.MaterializeResult:
        with duckdb.connect(str(WAREHOUSE)) as connection:
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")
            ((rows,),) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        return dg.MaterializeResult(metadata={"dagster/row_count": rows})

    return build


stg_accounts = model(
    "stg_accounts", "SELECT * FROM raw_accounts WHERE name IS NOT NULL", "Accounts as the product has them.", []
)
dim_account = model(
    "dim_account",
    "SELECT account_id, name, rating, mrr * 12 AS annual_revenue, employees FROM stg_accounts",
    "One row for each account, with its rating.",
    [stg_accounts],
)
'''

DEFINITIONS = """import dagster as dg
from models import dim_account, stg_accounts

from dagster_retl import Project, build_definitions, link_upstreams

defs = link_upstreams(
    dg.Definitions.merge(
        dg.Definitions(assets=[stg_accounts, dim_account]),
        build_definitions(Project.load("retl.yaml")),
    )
)
"""

SYNC = """\
version: 1
warehouses:
  default: {url: "duckdb:///warehouse.duckdb"}
destinations:
  salesforce:
    name: Salesforce
    connector: salesforce
    config:
      login_url: "${SF_LOGIN_URL}"
      auth: {type: client_credentials, client_id: "${SF_CLIENT_ID}", client_secret: "${SF_CLIENT_SECRET}"}
alerts:
  - notify: ["${RETL_ALERT_URL}"]
syncs:
  - name: crm_accounts
    description: Every account with its rating, for the people who sell.
    source_query: SELECT account_id, name, rating, annual_revenue, employees FROM dim_account
    destination_id: salesforce
    object_name: Account
    key: External_Id__c
    field_mappings:
      External_Id__c: account_id
      Name: name
      Rating: rating
      AnnualRevenue: annual_revenue
      NumberOfEmployees: employees
    schedule: "15 */4 * * *"
    owners: ["team:revops"]
    group: crm
"""

ACCOUNTS = """
CREATE TABLE raw_accounts AS SELECT
    format('A-{:04d}', i) AS account_id,
    ['Northwind', 'Contoso', 'Fabrikam', 'Initech', 'Globex', 'Umbrella', 'Hooli', 'Stark'][1 + i % 8] || ' '
        || ['Energy', 'Logistics', 'Foods', 'Robotics', 'Media'][1 + i % 5] || ' ' || i AS name,
    ['Hot', 'Warm', 'Cold'][1 + i % 3] AS rating,
    (200 + 37 * (i % 90))::DECIMAL(12, 2) AS mrr,
    10 + 7 * (i % 40) AS employees
FROM range(240) t(i)
"""


class Shop:
    """The folder of the project, the org that it writes to, and who hears its alerts."""

    def __init__(self, folder: Path, salesforce: FakeSalesforce) -> None:
        self.folder = folder
        self.salesforce = salesforce
        self.hook = LoopbackServer(lambda request: Reply.json({"ok": True}))
        for name, text in (("models.py", MODELS), ("definitions.py", DEFINITIONS), ("retl.yaml", SYNC)):
            (folder / name).write_text(text)
        self.warehouse(ACCOUNTS)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def warehouse(self, sql: str) -> None:
        """Change the warehouse, as those who load it do."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            connection.execute(sql)

    def account(self, account_id: str) -> Mapping[str, object] | None:
        """The account in Salesforce with that external id."""
        accounts = self.salesforce.org.records["Account"].values()
        return next((each for each in accounts if each["External_Id__c"] == account_id), None)

    def rate(self, account_ids: Sequence[str], rating: str) -> None:
        """Somebody rates accounts; the models are views and show it at once."""
        chosen = ", ".join(f"'{account_id}'" for account_id in account_ids)
        self.warehouse(f"UPDATE raw_accounts SET rating = '{rating}' WHERE account_id IN ({chosen})")

    def alerts(self) -> list[dict[str, str]]:
        """What the webhook was told so far."""
        return [json.loads(request.body) for request in self.hook.requests]

    def retl(self, *arguments: str) -> str:
        """What the command line prints; runs go through the Dagster that is running."""
        command = [sys.executable, "-c", "from dagster_retl.cli import main; main()", *arguments]
        settings: dict[str, Any] = {"cwd": self.folder, "env": self._environment(), "timeout": 300}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def running(self) -> Iterator[None]:
        """`dagster dev`: webserver, daemon and code server."""
        prepare_home(self.folder / ".dagster")
        python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded"]
        command = [*python, "-m", "dagster", "dev", "-f", "definitions.py", "-p", str(self.port)]
        settings: dict[str, Any] = {"cwd": self.folder, "env": self._environment(), "start_new_session": True}
        with (
            self.hook,
            (self.folder / "dagster.log").open("w") as log,
            subprocess.Popen(command, stdout=log, stderr=log, **settings) as process,
        ):
            try:
                eventually("the UI", lambda: process.poll() is not None or self._answers(), seconds=300)
                assert process.poll() is None, (self.folder / "dagster.log").read_text()
                yield
            finally:
                _end(process)

    def _environment(self) -> dict[str, str]:
        app = self.salesforce.login.app
        return {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}",
            "DAGSTER_HOME": str(self.folder / ".dagster"),
            "SF_LOGIN_URL": self.salesforce.url,
            "SF_CLIENT_ID": app.client_id,
            "SF_CLIENT_SECRET": app.client_secret,
            "RETL_ALERT_URL": f"{self.hook.url.replace('http://', 'json://')}/on-call",
            "RETL_DAGSTER_URL": self.url,
        }

    def _answers(self) -> bool:
        query = """{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {
            __typename ... on PythonError {message}}}}}}"""
        try:
            answer = httpx.post(f"{self.url}/graphql", json={"query": query}, timeout=30)
        except httpx.TransportError:
            return False
        entries = answer.json()["data"]["workspaceOrError"]["locationEntries"]
        if not entries or not all(entry["locationOrLoadError"] for entry in entries):
            return False
        assert entries == [{"locationOrLoadError": {"__typename": "RepositoryLocation"}}]
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and what follows if that does not help: its processes are a group."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
