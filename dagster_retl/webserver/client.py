"""A thin client of Dagster's GraphQL API, for whoever talks to Dagster without importing it.

https://docs.dagster.io/api/graphql
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from dagster_retl.errors import RetlError
from dagster_retl.model.dagster_names import JOB_NAME, PARTITION_TAG, asset_path
from dagster_retl.model.sync import Sync
from dagster_retl.webserver.holder import Holder, find_holder, project_jobs

_TIMEOUT = 30.0  # seconds; a code server may have to load first
_GLANCE = 5.0  # seconds; for what somebody waits for and can do without

_LAUNCH = """mutation ($params: ExecutionParams!) {launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess {run {runId}}
    ... on Error {message}
    ... on RunConfigValidationInvalid {errors {message}}}}"""
_STATUS = """query ($id: ID!) {runOrError(runId: $id) {
    __typename ... on Run {status} ... on PythonError {message}}}"""
_TERMINATE = """mutation ($id: String!) {terminateRun(runId: $id) {
    __typename ... on Error {message} ... on TerminateRunFailure {message}}}"""
_LOCATIONS = """{
    repositoriesOrError {... on RepositoryConnection {nodes {location {name} jobs {name tags {key value}}}}}
    workspaceOrError {... on Workspace {locationEntries {name locationOrLoadError {__typename}}}}}"""
_RELOAD = """mutation ($name: String!) {reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on Error {message}
    ... on WorkspaceLocationEntry {locationOrLoadError {__typename ... on PythonError {message}}}}}"""
_SCHEDULE = """query ($selector: ScheduleSelector!) {scheduleOrError(scheduleSelector: $selector) {
    ... on Schedule {scheduleState {status}}}}"""
_START = """mutation ($selector: ScheduleSelector!) {startSchedule(scheduleSelector: $selector) {
    __typename ... on Error {message}}}"""

_ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})


class WebserverError(RetlError):
    """Dagster's webserver cannot be reached, or did not do what it was asked. `refused`: it answered."""

    def __init__(self, message: str, *, hint: str | None = None, refused: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.refused = refused


class Webserver:
    """A running Dagster webserver. token: sent as bearer, for one behind a proxy that asks for it.

    Safe to share between threads. Every method raises `WebserverError`.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def launch(
        self, sync: Sync, run_config: Mapping[str, Any], tags: Mapping[str, str], partition: str | None = None
    ) -> str:
        """Start a run of a sync, or of one of its partitions (by key); the id of the Dagster run."""
        holder = self._holder(sync)
        if holder is None:
            raise WebserverError(
                f"Dagster at {self.url} does not know sync {sync.name!r}",
                hint="Reload its code location, or see there why it does not load.",
            )
        if partition is not None:
            tags = {**tags, PARTITION_TAG: partition}
        params = {
            "selector": {**holder.selector, "jobName": holder.job, "assetSelection": [{"path": asset_path(sync)}]},
            "runConfigData": run_config,
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = self._ask(_LAUNCH, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = [answer.get("message"), *(problem["message"] for problem in answer.get("errors", ()))]
            raise WebserverError(f"Dagster at {self.url} did not launch the run: {'; '.join(filter(None, reasons))}")
        return str(answer["run"]["runId"])

    def status(self, run_id: str) -> str | None:
        """Dagster's status of a run (QUEUED, STARTED, SUCCESS, …); None: there is no such run."""
        answer = self._ask(_STATUS, _GLANCE, id=run_id)["runOrError"]
        if answer["__typename"] == "PythonError":
            raise WebserverError(f"Dagster at {self.url}: {answer['message']}")
        status: str | None = answer.get("status")
        return status

    def ended(self, run_id: str) -> bool:
        """Whether a Dagster run is over."""
        status = self.status(run_id)
        if status is None:
            raise WebserverError(f"Dagster at {self.url}: there is no run {run_id}")
        return is_over(status)

    def terminate(self, run_id: str) -> None:
        """Ask a Dagster run to end."""
        answer = self._ask(_TERMINATE, id=run_id)["terminateRun"]
        if answer["__typename"] != "TerminateRunSuccess":
            raise WebserverError(f"Dagster at {self.url} did not end run {run_id}: {answer.get('message')}")

    def reload(self, project: str) -> None:
        """Have the code locations of a project read their definitions anew; where it is in none, those that failed."""
        names = self._locations(project)
        if not names:
            raise WebserverError(
                f"no code location of Dagster at {self.url} holds project {project!r}",
                hint="Its definitions come from `build_definitions`; see there which locations are loaded.",
            )
        for name in names:
            answer = self._ask(_RELOAD, name=name)["reloadRepositoryLocation"]
            loaded = answer.get("locationOrLoadError") or answer
            if loaded["__typename"] != "RepositoryLocation":
                first = str(loaded.get("message", loaded["__typename"])).strip().partition("\n")[0]
                raise WebserverError(f"the code location {name!r} of Dagster at {self.url} does not load: {first}")

    def schedule_status(self, sync: Sync) -> str | None:
        """RUNNING or STOPPED; None: Dagster knows no schedule of the sync."""
        selector = self._schedule(sync)
        if selector is None:
            return None
        state = self._ask(_SCHEDULE, _GLANCE, selector=selector)["scheduleOrError"].get("scheduleState")
        return None if state is None else str(state["status"])

    def start_schedule(self, sync: Sync) -> None:
        """Start the schedule of a sync, where somebody stopped it. There may be none."""
        selector = self._schedule(sync)
        if selector is None or self.schedule_status(sync) != "STOPPED":
            return
        answer = self._ask(_START, selector=selector)["startSchedule"]
        if answer["__typename"] != "ScheduleStateResult":
            raise WebserverError(
                f"Dagster at {self.url} did not start schedule {sync.slug!r}: {answer.get('message', 'not allowed')}"
            )

    def _holder(self, sync: Sync) -> Holder | None:
        def glance(query: str, **variables: object) -> dict[str, Any]:
            return self._ask(query, _GLANCE, **variables)

        return find_holder(glance, sync)

    def _schedule(self, sync: Sync) -> dict[str, str] | None:
        holder = self._holder(sync)
        return None if holder is None else {**holder.selector, "scheduleName": sync.slug}

    def _locations(self, project: str) -> Sequence[str]:
        answer = self._ask(_LOCATIONS)
        nodes = answer["repositoriesOrError"].get("nodes", ())
        jobs = {node["location"]["name"]: project_jobs(node, project) for node in nodes}
        # Jobs of one sync stand where the list of syncs is not read.
        holding = [name for name, found in jobs.items() if JOB_NAME in found] or [name for name in jobs if jobs[name]]
        entries = answer["workspaceOrError"].get("locationEntries", ())
        failed = [entry["name"] for entry in entries if _is_broken(entry)]
        return holding or failed

    def _ask(self, query: str, timeout: float = _TIMEOUT, /, **variables: object) -> dict[str, Any]:
        asked = {"query": query, "variables": variables}
        try:
            response = self._client.post(f"{self.url}/graphql", json=asked, timeout=timeout)
            response.raise_for_status()
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise WebserverError(
                f"Dagster at {self.url} cannot be reached: {error or type(error).__name__}",
                hint="RETL_DAGSTER_URL names it; `retl run` executes runs in its own process where it is unset.",
                refused=False,
            ) from None
        if "errors" in answer:
            raise WebserverError(f"Dagster at {self.url}: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data


def is_over(status: str) -> bool:
    """Whether a run of this status is."""
    return status in _ENDED


def _is_broken(entry: Mapping[str, Any]) -> bool:
    return (entry["locationOrLoadError"] or {}).get("__typename") == "PythonError"
