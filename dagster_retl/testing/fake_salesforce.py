"""A stateful Salesforce org for tests: it keeps records, and enforces the vendor's rules.

POST /services/oauth2/token          the three flows of `fake_salesforce_login`
GET /services/data/                  the versions
/services/data/vNN.N/                sObjects, Collections, queries (`fake_salesforce_rest`), limits
/services/data/vNN.N/jobs/ingest     Bulk API 2.0 (`fake_salesforce_jobs`)

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest.htm
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from dagster_retl.testing.fake_salesforce_jobs import FakeJobs
from dagster_retl.testing.fake_salesforce_login import FakeApp, FakeLogin
from dagster_retl.testing.fake_salesforce_org import FakeOrg
from dagster_retl.testing.fake_salesforce_rest import FakeRest
from dagster_retl.testing.fake_salesforce_schema import FakeObject
from dagster_retl.testing.fake_salesforce_values import RequestRefusedError
from dagster_retl.testing.server import LoopbackServer, Received, Reply

VERSIONS = tuple(f"{number}.0" for number in range(46, 68))


class FakeSalesforce(LoopbackServer):
    """See the module. `org`: records and schema; `jobs`: Bulk jobs; `login`: who may come in.

    instance_host: the host by which the org is called, where it differs from that of the login: data is
    then answered there, and tokens only here. used, daily: API requests of 24 hours. page_rows: of queries.
    """

    def __init__(
        self,
        schema: Iterable[FakeObject] | None = None,
        *,
        app: FakeApp | None = None,
        instance_host: str = "127.0.0.1",
        daily: int = 15_000,
        page_rows: int = 2_000,
        **server: Any,
    ) -> None:
        super().__init__(**server)
        self.org = FakeOrg(schema)
        self.jobs = FakeJobs(self.org)
        self.login = FakeLogin(app or FakeApp())
        self.used = 0
        self.daily = daily
        self._host = instance_host
        self._rest = FakeRest(self.org, page_rows=page_rows)
        self._state = threading.RLock()

    @property
    def instance_url(self) -> str:
        """Where data is."""
        return self.url.replace("127.0.0.1", self._host)

    def data_requests(self) -> list[tuple[str, str]]:
        """Method and path (below the version) of all requests for data so far."""
        data = [request for request in self.requests if request.path.startswith("/services/data/v")]
        return [(request.method, request.path.split("/", 4)[4]) for request in data]

    def handle(self, request: Received) -> Reply:
        with self._state:
            if request.path == "/services/oauth2/token" and request.method == "POST":
                return self.login.token(request, self.instance_url, self.org.org_id)
            if request.path.rstrip("/") == "/services/data" and request.method == "GET":
                return Reply.json([_version(number) for number in VERSIONS])
            if request.headers.get("host") != self.instance_url.removeprefix("http://"):
                return Reply(404, b"<html>this org is elsewhere</html>", {"Content-Type": "text/html"})
            reply = self.login.objection(request) or self._counted(request)
            usage = {"Sforce-Limit-Info": f"api-usage={self.used}/{self.daily}"}
            return replace(reply, headers={**reply.headers, **usage})

    def _counted(self, request: Received) -> Reply:
        if self.used >= self.daily:
            return RequestRefusedError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.").reply()
        self.used += 1
        try:
            return self._data(request)
        except RequestRefusedError as refusal:
            return refusal.reply()

    def _data(self, request: Received) -> Reply:
        match request.path.rstrip("/").split("/"):
            case ["", "services", "data", version, *path] if version.removeprefix("v") in VERSIONS:
                return self._versioned(request, version, path)
        raise RequestRefusedError(404, "NOT_FOUND", "The requested resource does not exist")

    def _versioned(self, request: Received, version: str, path: list[str]) -> Reply:
        match path:
            case ["limits"]:
                left = {"Max": self.daily, "Remaining": self.daily - self.used}
                return Reply.json({"DailyApiRequests": left})
            case ["jobs", "ingest", *rest]:
                return self.jobs.answer(request, version, rest)
        return self._rest.answer(request, version, path)


def _version(number: str) -> dict[str, str]:
    return {"label": f"Release {number}", "url": f"/services/data/v{number}", "version": number}
