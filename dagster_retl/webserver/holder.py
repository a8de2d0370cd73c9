"""Who holds a sync in Dagster: the code location, repository and job that its asset is in, asked over GraphQL.

Several projects may have an asset `retl/<slug>` in locations of one webserver, and an asset may be in several jobs. The
asset says in its metadata which sync it is of; our jobs are tagged with their project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagster_retl.model.dagster_names import PROJECT_TAG, SYNC_ID, asset_path, job_name, job_of_one
from dagster_retl.model.sync import Sync

Ask = Callable[..., dict[str, Any]]
"""Asks a GraphQL query with variables, and returns its data."""

_ASSET = """query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {... on AssetNode {
    jobNames repository {name location {name}} metadataEntries {label ... on TextMetadataEntry {text}}}}}"""
_REPOSITORIES = """{repositoriesOrError {... on RepositoryConnection {nodes {
    name location {name} jobs {name tags {key value}}}}}}"""
_IN_JOB = """query ($job: PipelineSelector!, $keys: [AssetKeyInput!]) {
    assetNodes(pipeline: $job, assetKeys: $keys) {jobNames}}"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Where an asset is defined, and which job launches it."""

    location: str
    repository: str
    job: str

    @property
    def selector(self) -> dict[str, str]:
        """The repository, as GraphQL selects it."""
        return {"repositoryName": self.repository, "repositoryLocationName": self.location}


def find_holder(ask: Ask, sync: Sync) -> Holder | None:
    """Who holds the asset of a sync now; None: nobody does. Nothing is remembered: locations come, change and go."""
    node = ask(_ASSET, key={"path": asset_path(sync)})["assetNodeOrError"]
    if "repository" not in node:
        return None
    if _sync_of(node) in (sync.id, None):  # None: somebody gave the asset another description
        return _holder(node["repository"], node["jobNames"], sync)
    return next(_among_projects(ask, sync), None)


def _among_projects(ask: Ask, sync: Sync) -> Iterator[Holder]:
    """Holders in the jobs of the sync's project, where an asset of the same key is another project's."""
    for repository in ask(_REPOSITORIES)["repositoriesOrError"].get("nodes", ()):
        selector = _holder(repository, [], sync).selector
        for job in project_jobs(repository, sync.project):
            asked = {"job": selector | {"pipelineName": job}, "keys": [{"path": asset_path(sync)}]}
            for node in ask(_IN_JOB, **asked)["assetNodes"]:
                yield _holder(repository, [job, *node["jobNames"]], sync)


def project_jobs(repository: Mapping[str, Any], project: str) -> list[str]:
    """The jobs of a repository that are tagged as a project's."""
    ours = {"key": PROJECT_TAG, "value": project}
    return [job["name"] for job in repository["jobs"] if ours in job["tags"]]


def best_job(names: Sequence[str], sync: Sync) -> str:
    """Of the jobs that an asset is in: ours, or the one behind Dagster's button, or any."""
    ours = (job_name(sync), job_of_one(sync))

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        return name not in ours, not name.startswith("retl_"), not name.startswith("__"), name

    return min(names, key=rank, default=job_name(sync))


def _holder(repository: Mapping[str, Any], jobs: Sequence[str], sync: Sync) -> Holder:
    return Holder(repository["location"]["name"], repository["name"], best_job(jobs, sync))


def _sync_of(node: Mapping[str, Any]) -> str | None:
    return next((entry["text"] for entry in node["metadataEntries"] if entry["label"] == SYNC_ID), None)
