"""A thin client of Dagster's GraphQL API: launch a run, look at it, end it.

https://docs.dagster.io/api/graphql
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from dagster_retl.errors import RetlError
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.config import SyncRunConfig, run_config
from dagster_retl.orchestration.names import JOB_NAME, asset_key

_TIMEOUT = 30.0  # seconds; a code server may have to load first

_WHERE = """query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {
    ... on AssetNode {repository {name location {name}}}}}"""
_LAUNCH = """mutation ($params: ExecutionParams!) {launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess {run {runId}}
    ... on Error {message}
    ... on RunConfigValidationInvalid {errors {message}}}}"""
_STATUS = "query ($id: ID!) {runOrError(runId: $id) {... on Run {status} ... on Error {message}}}"
_TERMINATE = """mutation ($id: String!) {terminateRun(runId: $id) {
    __typename ... on Error {message} ... on TerminateRunFailure {message}}}"""

_ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})


class Webserver:
    """A running Dagster webserver. token: sent as bearer, for one behind a proxy that asks for it."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(timeout=_TIMEOUT, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def launch(self, sync: Sync, config: SyncRunConfig, tags: Mapping[str, str]) -> str:
        """Start a run of a sync; the id of the Dagster run. Raises `RetlError`."""
        path = list(asset_key(sync).path)
        where = self._ask(_WHERE, key={"path": path})["assetNodeOrError"].get("repository")
        if where is None:
            raise RetlError(
                f"Dagster at {self._url} does not know sync {sync.name!r}",
                hint="Reload its code location, or see there why it does not load.",
            )
        selector = {
            "repositoryName": where["name"],
            "repositoryLocationName": where["location"]["name"],
            "jobName": JOB_NAME,
            "assetSelection": [{"path": path}],
        }
        params = {
            "selector": selector,
            "runConfigData": run_config(sync, config),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = self._ask(_LAUNCH, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = [answer.get("message"), *(problem["message"] for problem in answer.get("errors", ()))]
            raise RetlError(f"Dagster at {self._url} did not launch the run: {'; '.join(filter(None, reasons))}")
        return str(answer["run"]["runId"])

    def ended(self, run_id: str) -> bool:
        """Whether a Dagster run is over. Raises `RetlError` for one that is not there."""
        answer = self._ask(_STATUS, id=run_id)["runOrError"]
        if "status" not in answer:
            raise RetlError(f"Dagster at {self._url}: {answer.get('message', f'there is no run {run_id}')}")
        return answer["status"] in _ENDED

    def terminate(self, run_id: str) -> None:
        """Ask a Dagster run to end. Raises `RetlError`."""
        answer = self._ask(_TERMINATE, id=run_id)["terminateRun"]
        if answer["__typename"] != "TerminateRunSuccess":
            raise RetlError(f"Dagster at {self._url} did not end run {run_id}: {answer.get('message')}")

    def _ask(self, query: str, **variables: object) -> dict[str, Any]:
        try:
            response = self._client.post(f"{self._url}/graphql", json={"query": query, "variables": variables})
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise RetlError(
                f"Dagster at {self._url} cannot be reached: {error}",
                hint="RETL_DAGSTER_URL names it; unset, runs are executed in this process.",
            ) from None
        answer: dict[str, Any] = response.json()
        if "errors" in answer:
            raise RetlError(f"Dagster at {self._url}: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data
