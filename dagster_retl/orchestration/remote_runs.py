"""Runs that start on other machines need a store and a state that these machines reach, too.

Dagster's instance is not opened for that, which would connect to its database in every process that loads
definitions: its dagster.yaml says which run launcher it has
(https://docs.dagster.io/deployment/oss/dagster-yaml#run-launcher).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.orchestration.instance import DAGSTER_HOME

REMOTE_PACKAGES = frozenset(
    {
        "dagster_aws",
        "dagster_azure",
        "dagster_celery",
        "dagster_celery_docker",
        "dagster_celery_k8s",
        "dagster_contrib_gcp",
        "dagster_docker",
        "dagster_gcp",
        "dagster_k8s",
        "dagster_ray",
    }
)
"""Packages whose run launchers start pods, tasks, containers or workers; of others nobody here knows."""


def refuse_local_places(project: Project, environ: Mapping[str, str] | None = None) -> None:
    """Raise `ConfigurationError` for a store or state on this machine's disk where runs start on others."""
    launcher = remote_launcher(os.environ if environ is None else environ)
    local = [
        *([f"the store {project.display_store_url} is a file"] if project.store_url.startswith("sqlite") else []),
        *([f"the state {project.state_url} is a folder"] if "://" not in project.state_url else []),
    ]
    if launcher is not None and local:
        raise ConfigurationError(
            f"runs are started elsewhere by {launcher}, but {' and '.join(local)} on this machine",
            hint="Set `store` (RETL_STORE) to postgresql://… and `state` (RETL_STATE) to s3://…, gs://… or abfs://…: "
            "every process has to reach the same ones.",
        )


def remote_launcher(environ: Mapping[str, str]) -> str | None:
    """The run launcher of the instance (`module.Class`), if it is known to start runs on other machines."""
    home = environ.get(DAGSTER_HOME)
    settings = Path(home).expanduser() / "dagster.yaml" if home else None
    if settings is None or not settings.is_file():
        return None
    launcher = dg.config_from_files([str(settings)]).get("run_launcher")
    module = launcher.get("module") if isinstance(launcher, Mapping) else None
    if not isinstance(launcher, Mapping) or not isinstance(module, str):
        return None
    return f"{module}.{launcher.get('class')}" if module.partition(".")[0] in REMOTE_PACKAGES else None
