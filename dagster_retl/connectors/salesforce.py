"""Salesforce: records of any object, by sObject Collections (REST) and Bulk API 2.0.

Limits: 200 rows a request of Collections, 100 MB a job; a daily number of API requests for the whole
org, of which `stop_at_usage` leaves some to others. An upsert goes by an external id; updates and
deletes go by record id, which an earlier write returned, or a query on the key field finds.

How an answer matches rows: Collections answer in the order in which rows were sent. Results of a
job come in any order and repeat what was uploaded: they match by their key columns. Rows that a job
did not get to are sent again.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import httpx

from dagster_retl.connectors.base import ConnectorConfig, ConnectorSpec, Exchange
from dagster_retl.connectors.http_words import Wording
from dagster_retl.connectors.jobs import JobConnector, JobRef, JobStatus
from dagster_retl.connectors.limits import LimitState
from dagster_retl.connectors.salesforce_api import Api
from dagster_retl.connectors.salesforce_auth import SalesforceAuth
from dagster_retl.connectors.salesforce_bulk import BulkJobs, fits_a_job
from dagster_retl.connectors.salesforce_collections import ROW_OVERHEAD, ROWS, Collections, frame_bytes
from dagster_retl.connectors.salesforce_config import LOGIN, SalesforceConfig, secrets_of
from dagster_retl.connectors.salesforce_errors import VENDOR_CODES
from dagster_retl.connectors.salesforce_fields import Catalogue
from dagster_retl.connectors.salesforce_grants import grant_of
from dagster_retl.connectors.salesforce_lookup import Lookup
from dagster_retl.connectors.salesforce_soql import records_of, value_at
from dagster_retl.connectors.salesforce_usage import Usage, usage_of
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Account, Batch, FieldInfo, KeyForm, ObjectInfo, Operation, RowResult


class SalesforceConnector(JobConnector):
    """A Salesforce org."""

    spec: ClassVar[ConnectorSpec] = ConnectorSpec(
        name="salesforce",
        title="Salesforce",
        modes=frozenset({"upsert", "insert", "update", "delete", "mirror"}),
        batch_rows=ROWS,
        batch_bytes=4_000_000,
        concurrency=4,
        atomic_rejection=True,
        discoverable=True,
        key_form=KeyForm(ignore_case=True),
        matching="Collections answer in the order of the rows; results of a Bulk job match by their key columns.",
        vendor_codes=VENDOR_CODES,
        documentation="https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/intro_rest.htm",
    )
    Config: ClassVar[type[ConnectorConfig]] = SalesforceConfig
    config: SalesforceConfig

    def __init__(self, config: SalesforceConfig) -> None:
        super().__init__(config)
        wording = Wording(self._secrets)
        self._auth = SalesforceAuth(config.login_url, grant_of(config), wording)
        self._usage = Usage(config.stop_at_usage)
        self._api = Api(config.api_version, wording, self._usage)
        self._catalogue = Catalogue(self._api)
        self._lookup = Lookup(self._api, self._catalogue)
        self._collections = Collections(self._api, self._lookup)
        self._jobs = BulkJobs(self._api)

    @property
    def frame_bytes(self) -> int:
        return frame_bytes() + self.batch_rows * ROW_OVERHEAD

    def identity(self) -> str:
        return httpx.URL(self.config.login_url).netloc.decode()

    def key_form(self, object_name: str) -> KeyForm:
        """External ids are compared without case, unless they are unique and case-sensitive."""
        return KeyForm(ignore_case=not self.config.case_sensitive_keys)

    def record_url(self, object_name: str, record_id: str) -> str | None:
        session = self._auth.session
        home = str(session.instance).rstrip("/") if session else self.config.login_url
        return None if home in (LOGIN, "https://test.salesforce.com") else f"{home}/{record_id}"

    def auth(self) -> httpx.Auth:
        return self._auth

    def allow(self, url: httpx.URL) -> None:
        if not self._auth.allows(url):
            raise DestinationError(
                f"a request to {url.host or 'no host'} is refused: it is neither where the connector logs in, "
                "nor the org that this led to",
                code=ErrorCode.CONFIGURATION,
            )

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        return self._api.explain(response)

    def limits(self, response: httpx.Response) -> LimitState | None:
        return usage_of(response.headers)

    def require_success(self, response: httpx.Response) -> httpx.Response:
        return self._api.require(response)

    def check(self) -> Exchange[Account]:
        """The org: its id of 18 characters, and its name."""
        records = yield from records_of(self._api, "SELECT Id, Name FROM Organization")
        if not records:
            raise DestinationError("the app's user may not read the org itself", code=ErrorCode.PERMISSION)
        return Account(str(value_at(records[0], "Id")), str(value_at(records[0], "Name")))

    def objects(self) -> Exchange[list[ObjectInfo]]:
        """The objects that can be written to."""
        return (yield from self._catalogue.objects())

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        """The fields of an object, and the parents that it refers to."""
        return (yield from self._catalogue.fields(object_name))

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        if not batch.rows:
            return []
        self._usage.require_room()
        return (yield from self._collections.write(batch))

    def can_read(self, object_name: str) -> bool:
        return True

    def read(self, batch: Batch, fields: Sequence[str]) -> Exchange[Mapping[str, Mapping[str, Any]]]:
        if not batch.rows:
            return {}
        return (yield from self._lookup.read(batch, fields))

    def job_rows(self, object_name: str, operation: Operation, key_fields: Sequence[str], rows: int) -> int | None:
        wanted = self.config.api == "bulk" or (self.config.api == "auto" and rows >= self.config.bulk_rows)
        return self.config.job_rows if wanted and fits_a_job(operation, key_fields) else None

    @property
    def job_bytes(self) -> int:
        return self.config.job_bytes

    def open(self, batch: Batch) -> Exchange[JobRef]:
        self._usage.require_room()
        return (yield from self._jobs.open(batch))

    def start(self, batch: Batch, job: JobRef) -> Exchange[JobRef]:
        return (yield from self._jobs.start(batch, job))

    def poll(self, job: JobRef) -> Exchange[JobStatus]:
        return (yield from self._jobs.poll(job))

    def collect(self, batch: Batch, job: JobRef) -> Exchange[Sequence[RowResult]]:
        return (yield from self._jobs.collect(batch, job))

    def abort(self, job: JobRef) -> Exchange[None]:
        yield from self._jobs.abort(job)

    def _secrets(self) -> Iterator[str]:
        """What no message may show."""
        yield from secrets_of(self.config.auth)
        if self._auth.session:
            yield self._auth.session.token
