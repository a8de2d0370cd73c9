"""A process that runs the sync `things` of a folder through Dagster; tests kill it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg
from worlds import project_of

from dagster_retl.orchestration.build import build_definitions


def main() -> None:
    folder, url, settings = sys.argv[1:]
    project = project_of(Path(folder), url, config=json.loads(settings), sync_mode="mirror")
    definitions = build_definitions(project)
    with dg.DagsterInstance.get() as instance:
        definitions.get_job_def("retl_syncs").execute_in_process(instance=instance)


if __name__ == "__main__":
    main()
