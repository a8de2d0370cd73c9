"""A process that runs the sync `things` of a folder; tests kill or pause it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from worlds import project_of

from dagster_retl.service import Service


def main() -> None:
    folder, url, settings = sys.argv[1:]
    given = json.loads(settings)
    project = project_of(Path(folder), url, config=given.get("config"), **given.get("sync", {}))
    places = {name: given[name] for name in ("store", "state") if given.get(name)}
    project = project.model_copy(update=places)
    with Service(project) as service:
        service.run("things")


if __name__ == "__main__":
    main()
