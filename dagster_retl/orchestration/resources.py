"""Resources for people's own assets and sensors: the project's service, and its dead letters.

@dg.asset
def report(dead_letters: DeadLetterQueue) -> None:
    for letter in dead_letters.open("crm_accounts"): …
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import dagster as dg
from pydantic import Field, PrivateAttr

from dagster_retl.model.project import Project
from dagster_retl.model.runs import REPLAY, DeadLetter, DeadLetterStats, Run
from dagster_retl.orchestration.config import SyncRunConfig, run_config
from dagster_retl.orchestration.names import TRIGGER_TAG, asset_key, job_name, run_tags
from dagster_retl.service import Service


class _ProjectResource(dg.ConfigurableResource[object]):
    """A resource that works on one project; opens the project's service when first used."""

    project_path: Annotated[
        str | None,
        Field(description="Path of retl.yaml; unset: RETL_PROJECT, then retl.yaml in the current folder."),
    ] = None
    _service: Service | None = PrivateAttr(default=None)

    def load_project(self) -> Project:
        """The project. Raises `ProjectFileError`."""
        return Project.load(self.project_path)

    @property
    def service(self) -> Service:
        """The project's service. Dagster closes it when the step or tick ends; elsewhere, close it yourself."""
        if self._service is None:
            self._service = Service.open(self.load_project())
        return self._service

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._service is not None:
            self._service.close()
            self._service = None


class ReverseEtlResource(_ProjectResource):
    """The syncs, runs and destinations of a project, through its `service`."""


class DeadLetterQueue(_ProjectResource):
    """The rows of a project that could not be written."""

    def open(self, sync: str | None = None, *, limit: int = 200) -> list[DeadLetter]:
        """Open entries, newest first; `sync`: of this sync only (name, slug or id)."""
        return self.service.dead_letters(sync, limit=limit)

    def stats(self, sync: str | None = None) -> DeadLetterStats:
        """Open and resolved entries, and why the open ones failed."""
        return self.service.dead_letter_stats(sync)

    def resolve(self, ids: Sequence[str], resolution: str, *, actor: str = "dagster") -> list[str]:
        """Close entries; the ids of those that were open. `skipped`, `manual_push`, or a word of your own."""
        return self.service.resolve(ids, resolution, actor=actor)

    def replay(self, ids: Sequence[str]) -> list[Run]:
        """Send these entries' rows again, here and now: one run per sync, as the rows are now.

        Raises what ends a run early. In a sensor, yield `replay_requests` instead, or call `queue_replays`.
        """
        replays = self.service.replays(ids)
        return [self.service.run(sync_id, options, trigger=REPLAY).run for sync_id, options in replays]

    def queue_replays(self, ids: Sequence[str], *, actor: str = "dagster") -> list[Run]:
        """Have these entries' rows sent again by the sensor `retl_replays`; the runs that will do it.

        On record when this returns, whatever happens to the caller. Raises as `Service.queue_replays` does.
        """
        return [replay.run for replay in self.service.queue_replays(ids, actor=actor)]

    def replay_requests(self, ids: Sequence[str]) -> list[dg.RunRequest]:
        """Requests for runs of job `retl_syncs` that send these entries' rows again: one per sync.

        Those of syncs with partitions are one for each partition, of the sync's own job: a sensor has to target it.
        """
        requests = []
        for sync_id, options in self.service.replays(ids):
            sync = self.service.find(sync_id)
            config = SyncRunConfig(replay=list(options.replay))
            requests.append(
                dg.RunRequest(
                    run_config=run_config(sync, config),
                    asset_selection=[asset_key(sync)],
                    tags={**run_tags(sync), TRIGGER_TAG: REPLAY},
                    partition_key=options.partition.key if options.partition else None,
                    job_name=None if options.partition is None else job_name(sync),
                )
            )
        return requests


def project_resources(project: Project) -> dict[str, dg.ConfigurableResource[object]]:
    """The resources that `build_definitions` provides: `retl` and `dead_letters`, for this very project.

    Dagster makes a resource anew from its configuration for each execution. A project built in
    Python has no configuration to be made from, so it rides on the class.
    """

    class ProjectReverseEtlResource(ReverseEtlResource):
        def load_project(self) -> Project:
            return project

    class ProjectDeadLetterQueue(DeadLetterQueue):
        def load_project(self) -> Project:
            return project

    return {"retl": ProjectReverseEtlResource(), "dead_letters": ProjectDeadLetterQueue()}
