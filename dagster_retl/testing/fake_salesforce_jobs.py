"""Bulk API 2.0 ingest of a fake Salesforce org: jobs whose state advances whenever somebody asks for it."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster_retl.testing.fake_salesforce_org import FakeOrg, long_id
from dagster_retl.testing.fake_salesforce_schema import FakeObject
from dagster_retl.testing.fake_salesforce_values import MisfitError, RequestRefusedError, RowRefusedError
from dagster_retl.testing.messages import Received, Reply

_DELIMITERS = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
_OPERATIONS = ("insert", "update", "upsert", "delete")
_ENDED = ("JobComplete", "Failed", "Aborted")
_RESULTS = {
    "successfulresults": ("sf__Id", "sf__Created"),
    "failedresults": ("sf__Id", "sf__Error"),
    "unprocessedrecords": (),
}
_TIMES = ("retries", "totalProcessingTime", "apiActiveProcessingTime", "apexProcessingTime")

Line = dict[str, str]


@dataclass(slots=True)
class FakeJob:
    """A job. results: what became of its rows; each line begins with the columns that Salesforce adds."""

    id: str
    wanted: Mapping[str, Any]
    state: str = "Open"
    content: bytes = b""
    uploads: int = 0
    polls: int = 0
    columns: list[str] = field(default_factory=list)
    results: dict[str, list[Line]] = field(default_factory=lambda: {name: [] for name in _RESULTS})
    error: str | None = None


class FakeJobs:
    """The jobs of an org, and how they fare.

    polls: how often a started job is asked for before it has ended. stop_after: the next job to be processed
    fails after so many rows. most_bytes: of an upload.
    """

    def __init__(self, org: FakeOrg, *, polls: int = 2) -> None:
        self._org = org
        self._numbers = itertools.count(1)
        self.jobs: dict[str, FakeJob] = {}
        self.polls = polls
        self.stop_after: int | None = None
        self.most_bytes = 100_000_000

    def answer(self, request: Received, version: str, path: Sequence[str]) -> Reply:
        """The answer to a request; `path` is what follows `jobs/ingest`. Raises `RequestRefusedError`."""
        if request.method == "POST" and not path:
            return self._create(request.json(), version)
        job = self.jobs.get(path[0]) if path else None
        if job is None:
            raise RequestRefusedError(404, "NOT_FOUND", "The requested resource does not exist")
        match request.method, [part.lower() for part in path[1:]]:
            case "PUT", ["batches"]:
                return self._upload(job, request)
            case "PATCH", []:
                return self._change(job, request.json().get("state"), version)
            case "GET", []:
                self._advance(job)
                return Reply.json(self._info(job, version))
            case "GET", [name] if name in _RESULTS:
                return self._result(job, name)
            case "DELETE", [] if job.state in _ENDED:
                del self.jobs[job.id]
                return Reply(204)
        raise _wrong_state(job)

    def _create(self, wanted: Mapping[str, Any], version: str) -> Reply:
        kind = self._org.object(str(wanted.get("object")))
        if wanted.get("operation") not in _OPERATIONS or wanted.get("contentType") != "CSV":
            raise RequestRefusedError(400, "INVALIDJOB", "InvalidJob : Unsupported operation or content type")
        if wanted["operation"] == "upsert":
            name = str(wanted.get("externalIdFieldName"))
            key = kind.field(name)
            if key is None or not (key.identifies or key.kind == "id"):
                message = (
                    f"InvalidJob : Field name provided, {name} does not match an External ID, Salesforce Id, "
                    f"or indexed field for {kind.name}"
                )
                raise RequestRefusedError(400, "INVALIDJOB", message)
        job = FakeJob(long_id(f"750{next(self._numbers):012}"), wanted)
        self.jobs[job.id] = job
        return Reply.json(self._info(job, version))

    def _info(self, job: FakeJob, version: str) -> dict[str, Any]:
        info = {"id": job.id, **job.wanted, "state": job.state, "concurrencyMode": "Parallel"}
        info["apiVersion"] = float(version.removeprefix("v"))
        if job.state == "Open":
            info["contentUrl"] = f"services/data/{version}/jobs/ingest/{job.id}/batches"
        if job.polls:
            done = {name: len(lines) for name, lines in job.results.items()}
            failed = done["failedresults"]
            info |= {"jobType": "V2Ingest", **dict.fromkeys(_TIMES, 0)}
            info |= {"numberRecordsProcessed": done["successfulresults"] + failed, "numberRecordsFailed": failed}
        if job.error:
            info["errorMessage"] = job.error
        return info

    def _upload(self, job: FakeJob, request: Received) -> Reply:
        if job.state != "Open":
            raise _wrong_state(job)
        if len(request.body) > self.most_bytes:
            raise RequestRefusedError(400, "INVALIDJOB", "InvalidBatch : the upload is too large")
        if not request.headers.get("content-type", "").startswith("text/csv"):
            raise RequestRefusedError(400, "INVALID_CONTENT_TYPE", "the content of this job is text/csv")
        if job.uploads:
            message = (
                f"Found multiple contents for job: <{job.id}>, please 'Close' / 'Abort' / 'Delete' the current Job "
                "then create a new Job and make sure you only do 'PUT' once on a given Job."
            )
            raise RequestRefusedError(400, "INVALIDJOBSTATE", message)
        job.uploads += 1
        job.content = request.body
        return Reply(201)

    def _change(self, job: FakeJob, state: Any, version: str) -> Reply:
        possible = (state == "UploadComplete" and job.state == "Open") or (
            state == "Aborted" and job.state not in _ENDED
        )
        if not possible:
            raise _wrong_state(job)
        job.state = str(state)
        return Reply.json(self._info(job, version))

    def _advance(self, job: FakeJob) -> None:
        """A job goes on by one step: it waits, it is in progress, it has ended."""
        if job.state == "Open" or job.state in _ENDED:
            return
        job.polls += 1
        if job.polls > self.polls:
            self._process(job)
        elif job.polls > 1:
            job.state = "InProgress"

    def _process(self, job: FakeJob) -> None:
        kind = self._org.object(str(job.wanted["object"]))
        try:
            lines = _read(job)
            _require_columns(kind, job)
        except _InvalidBatchError as error:
            job.state, job.error = "Failed", f"InvalidBatch : {error}"
            return
        stop = len(lines) if self.stop_after is None else self.stop_after
        self.stop_after = None
        for line in lines[:stop]:
            self._write(job, kind, line)
        job.results["unprocessedrecords"] += lines[stop:]
        job.state = "JobComplete" if stop >= len(lines) else "Failed"
        job.error = None if stop >= len(lines) else "TooManyLockFailure : too many lock failures, tried 20 times"

    def _write(self, job: FakeJob, kind: FakeObject, line: Line) -> None:
        try:
            record_id, created = self._apply(job, kind, line)
        except (RowRefusedError, MisfitError) as error:
            refusal = error if isinstance(error, RowRefusedError) else _misfit(error, job)
            job.results["failedresults"].append({"sf__Id": "", "sf__Error": refusal.line(), **line})
        else:
            added = {"sf__Id": record_id, "sf__Created": "true" if created else "false"}
            job.results["successfulresults"].append({**added, **line})

    def _apply(self, job: FakeJob, kind: FakeObject, line: Line) -> tuple[str, bool]:
        row = _row(line)
        match job.wanted["operation"]:
            case "insert":
                return self._org.insert(kind, row), True
            case "upsert":
                key = kind.field(str(job.wanted["externalIdFieldName"]))
                if key is None:
                    raise RowRefusedError("INVALID_FIELD", "the external id is gone")
                return self._org.upsert(kind, key, row)
        record_id = next((str(value) for name, value in row.items() if name.lower() == "id"), "")
        if job.wanted["operation"] == "delete":
            return self._org.delete(record_id), False
        fields = {name: value for name, value in row.items() if name.lower() != "id"}
        return self._org.update(kind, record_id, fields), False

    def _result(self, job: FakeJob, name: str) -> Reply:
        if job.state not in _ENDED:
            raise _wrong_state(job)
        text = io.StringIO(newline="")
        ending = _ENDINGS[job.wanted.get("lineEnding", "LF")]
        writer = csv.writer(text, delimiter=_delimiter(job), lineterminator=ending, quoting=csv.QUOTE_ALL)
        columns = [*_RESULTS[name], *job.columns]
        writer.writerow(columns)
        writer.writerows([line[column] for column in columns] for line in job.results[name])
        return Reply(200, text.getvalue().encode(), {"Content-Type": "text/csv; charset=UTF-8"})


class _InvalidBatchError(Exception):
    """What an upload holds cannot be processed at all."""


def _read(job: FakeJob) -> list[Line]:
    """The lines of an upload, by column; `job.columns` get their names."""
    text = job.content.decode()
    bare = text.replace("\r\n", "")
    if job.wanted.get("lineEnding", "LF") == "LF" and "\r\n" in text and "\n" not in bare:
        raise _InvalidBatchError("LineEnding is invalid on user data. Current LineEnding setting is LF")
    header, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(job))) or [[]]
    job.columns = header
    return [dict(zip(header, row, strict=True)) for row in rows if row]


def _require_columns(kind: FakeObject, job: FakeJob) -> None:
    for column in job.columns:
        relationship, dot, _ = column.rpartition(".")
        known = kind.parent_field(relationship) if dot else kind.field(column)
        if known is None:
            raise _InvalidBatchError(f"Field name not found : {column}")


def _row(line: Line) -> dict[str, Any]:
    """What a line writes: an empty cell says nothing, `#N/A` clears, a dotted column names a parent."""
    row: dict[str, Any] = {}
    for column, cell in line.items():
        if cell == "":
            continue
        value = None if cell == "#N/A" else cell
        relationship, dot, name = column.rpartition(".")
        row[relationship if dot else column] = {name: value} if dot else value
    return row


def _misfit(misfit: MisfitError, job: FakeJob) -> RowRefusedError:
    name = misfit.field.name
    at = [column.lower() for column in job.columns].index(name.lower())
    message = (
        f"Failed to deserialize field at col {at}. Due to, '{misfit.value}' is not a valid value for the type "
        f"xsd:{misfit.field.kind}"
    )
    return RowRefusedError("INVALID_FIELD", message, (name,))


def _delimiter(job: FakeJob) -> str:
    return _DELIMITERS[job.wanted.get("columnDelimiter", "COMMA")]


def _wrong_state(job: FakeJob) -> RequestRefusedError:
    return RequestRefusedError(400, "INVALIDJOBSTATE", f"this cannot be done to a job that is {job.state}")
