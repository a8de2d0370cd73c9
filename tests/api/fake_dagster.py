"""Dagster's GraphQL as far as the API uses it: runs that are launched wait until somebody ends them."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

from dagster_retl.testing import LoopbackServer
from dagster_retl.testing.server import Received, Reply

_WHERE = {"name": "__repository__", "location": {"name": "here"}}


class FakeDagster(LoopbackServer):
    """`launched` is Dagster run → retl run; `states` Dagster run → status; `tags` those of each launch."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.tags: list[dict[str, str]] = []
        self._changing = threading.Lock()

    def handle(self, request: Received) -> Reply:
        asked = json.loads(request.body)
        with self._changing:
            return Reply.json({"data": self._answer(asked["query"], asked["variables"])})

    def _answer(self, query: str, variables: dict[str, Any]) -> Any:
        """The first that fits: `runOrError` and others stand in several queries."""
        if "launchRun" in query:
            run = {"runId": self._launch(variables["params"])}
            return {"launchRun": {"__typename": "LaunchRunSuccess", "run": run}}
        if "runOrError" in query:
            return {"runOrError": {"__typename": "Run", "status": self.states.get(variables["id"])}}
        if "terminateRun" in query:
            self.states[variables["id"]] = "CANCELED"
            return {"terminateRun": {"__typename": "TerminateRunSuccess"}}
        return self._about_definitions(query)

    def _about_definitions(self, query: str) -> Any:
        if "reloadRepositoryLocation" in query:
            loaded = {"__typename": "RepositoryLocation"}
            return {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry", "locationOrLoadError": loaded}}
        if "repositoriesOrError" in query:
            jobs = [{"name": "retl_syncs", "tags": [{"key": "retl/project", "value": "default"}]}]
            node = {"location": {"name": "here"}, "jobs": jobs}
            return {"repositoriesOrError": {"nodes": [node]}, "workspaceOrError": {"locationEntries": []}}
        if "scheduleOrError" in query:
            return {"scheduleOrError": {"scheduleState": {"status": "RUNNING"}}}
        return {"assetNodeOrError": {"repository": _WHERE, "jobNames": ["retl_syncs"], "metadataEntries": []}}

    def _launch(self, params: dict[str, Any]) -> str:
        [op] = params["runConfigData"]["ops"].values()
        self.tags.append({tag["key"]: tag["value"] for tag in params["executionMetadata"]["tags"]})
        dagster_run_id = str(uuid.uuid4())
        self.launched[dagster_run_id] = op["config"]["run_id"]
        self.states[dagster_run_id] = "QUEUED"
        return dagster_run_id
