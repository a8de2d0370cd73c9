"""Bulk API 2.0: rows uploaded as one file, and results fetched when the job has ended.

Results come in no order: they are matched with rows by the key columns, which they repeat.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/bulk_api_2_0.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.jobs import JobRef, JobState, JobStatus
from dagster_retl.connectors.salesforce_api import Api, dumps, json_of, segment, unreadable
from dagster_retl.connectors.salesforce_collections import upsert_key
from dagster_retl.connectors.salesforce_config import MOST_JOB_BYTES
from dagster_retl.connectors.salesforce_csv import keys_of, read_csv, write_csv
from dagster_retl.connectors.salesforce_errors import RowError, code_of_row
from dagster_retl.connectors.salesforce_lookup import is_id
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault, Operation, Row, RowResult

JOBS = "jobs/ingest"

_STATES: Mapping[str, JobState] = {
    "Open": JobState.OPEN,
    "UploadComplete": JobState.RUNNING,
    "InProgress": JobState.RUNNING,
    "JobComplete": JobState.DONE,
    "Failed": JobState.FAILED,
    "Aborted": JobState.FAILED,
}
_ENDED = (JobState.DONE, JobState.FAILED)


def fits_a_job(operation: Operation, key_fields: Sequence[str]) -> bool:
    """Whether rows can be sent as a job: their results have to name them, and records be found by what they hold."""
    match operation:
        case Operation.UPSERT:
            return len(key_fields) == 1 and not is_id(key_fields[0])
        case Operation.INSERT:
            return bool(key_fields)
        case Operation.UPDATE:
            return len(key_fields) == 1 and is_id(key_fields[0])
        case Operation.DELETE:
            return False


class BulkJobs:
    """The life of a job; see `connectors.jobs.JobConnector`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def open(self, batch: Batch) -> Exchange[JobRef]:
        wanted = {
            "object": batch.object_name,
            "operation": batch.operation.value,
            "contentType": "CSV",
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
        }
        if batch.operation is Operation.UPSERT:
            wanted["externalIdFieldName"] = upsert_key(batch.key_fields)
        # A job that is made twice because the first answer got lost holds nothing, and nobody starts it.
        response = yield from self._api.ask(self._api.request("POST", JOBS, body=dumps(wanted)))
        job_id = _mapping(json_of(self._api.require(response))).get("id")
        if not isinstance(job_id, str) or not job_id:
            raise unreadable("a job without an id")
        return JobRef(job_id)

    def start(self, batch: Batch, job: JobRef) -> Exchange[JobRef]:
        if (yield from self.poll(job)).state is not JobState.OPEN:
            return job
        content = write_csv(batch)
        if len(content) > MOST_JOB_BYTES:
            raise DestinationError(
                f"a job of {len(content):,} bytes is more than Salesforce takes", code=ErrorCode.PAYLOAD_TOO_LARGE
            )
        for request in (
            self._api.request("PUT", f"{_path(job)}/batches", body=content, content_type="text/csv; charset=UTF-8"),
            self._api.request("PATCH", _path(job), body=dumps({"state": "UploadComplete"})),
        ):
            response = yield from self._api.ask(request)
            if response.status_code == 400 and (yield from self._is_settled(job, response)):
                return job
            self._api.require(response)
        return job

    def _is_settled(self, job: JobRef, refusal: httpx.Response) -> Exchange[bool]:
        """Whether a refusal only says that an earlier try, of which nobody knew how far it came, came this far.

        A job takes one upload. Of one that has had its own, nobody knows whether it arrived whole: the job is
        ended without having begun, and its rows are sent again.
        """
        if (yield from self.poll(job)).state is not JobState.OPEN:
            return True
        if "multiple contents" not in self._api.explain(refusal)[1]:
            return False
        yield from self.abort(job)
        return True

    def poll(self, job: JobRef) -> Exchange[JobStatus]:
        return _status(self._api, (yield from self._info(job)))

    def _info(self, job: JobRef) -> Exchange[Mapping[str, Any]]:
        response = yield from self._api.ask(self._api.request("GET", _path(job)))
        if response.status_code == 404:
            vendor_code, message = self._api.explain(response)
            raise DestinationError(message, code=ErrorCode.NOT_FOUND, vendor_code=vendor_code)
        return _mapping(json_of(self._api.require(response)))

    def collect(self, batch: Batch, job: JobRef) -> Exchange[Sequence[RowResult]]:
        info = yield from self._info(job)
        status = _status(self._api, info)
        if status.state is JobState.FAILED and info.get("numberRecordsProcessed", 0) == 0:
            return _nothing_processed(batch, status)
        rows = {keys_of(row, batch.key_fields): row for row in batch.rows}
        results: list[RowResult] = []
        for name in ("successfulResults", "failedResults", "unprocessedrecords"):
            response = yield from self._api.ask(self._api.request("GET", f"{_path(job)}/{name}"))
            lines = read_csv(self._api.require(response).content)
            results += self._results(batch, rows, lines, status)
        return results

    def _results(
        self,
        batch: Batch,
        rows: Mapping[tuple[str, ...], Row],
        lines: Sequence[Mapping[str, str]],
        status: JobStatus,
    ) -> Iterator[RowResult]:
        """Results of the rows that lines are about."""
        columns = [field.lower() for field in batch.key_fields]
        for line in lines:
            row = rows.get(tuple(line.get(column, "") for column in columns))
            if row is not None:
                yield self._result(batch, row, line, status)

    def _result(self, batch: Batch, row: Row, line: Mapping[str, str], status: JobStatus) -> RowResult:
        if "sf__error" in line:
            error = RowError.of_job(line["sf__error"])
            code = code_of_row(error, by_id=batch.operation is Operation.UPDATE)
            return RowResult(row.key, Fault(code, self._api.clean(error.message), error.code))
        if "sf__created" in line:
            return RowResult(row.key, record_id=line.get("sf__id") or None)
        return _unprocessed(row, status)

    def abort(self, job: JobRef) -> Exchange[None]:
        """End a job. One that has ended, or that nobody knows any more, needs no end."""
        request = self._api.request("PATCH", _path(job), body=dumps({"state": "Aborted"}))
        response = yield from self._api.ask(request)
        if response.status_code == 404:
            return
        if response.status_code == 400 and (yield from self.poll(job)).state in _ENDED:
            return
        self._api.require(response)


def _path(job: JobRef) -> str:
    return f"{JOBS}/{segment(job.id)}"


def _status(api: Api, info: Mapping[str, Any]) -> JobStatus:
    state = _STATES.get(str(info.get("state")))
    if state is None:
        raise unreadable("a job without a state")
    message = info.get("errorMessage") or ("the job was aborted" if info["state"] == "Aborted" else "")
    return JobStatus(state, api.clean(str(message)))


def _nothing_processed(batch: Batch, status: JobStatus) -> list[RowResult]:
    """The results of a job that ended before its first row. Raises `DestinationError` where no job could do better."""
    if "Field name not found" in status.message:
        raise DestinationError(
            f"Salesforce refused the job: {status.message}",
            code=ErrorCode.SCHEMA_DRIFT,
            hint="Check the API names of the mapped fields, and what the app's user may see of them.",
        )
    return [_unprocessed(row, status) for row in batch.rows]


def _unprocessed(row: Row, status: JobStatus) -> RowResult:
    message = f"the job ended before this row: {status.message or 'it says no reason'}"
    return RowResult(row.key, Fault(ErrorCode.DESTINATION_UNAVAILABLE, message))


def _mapping(answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping):
        raise unreadable("JSON that is no job")
    return answer
