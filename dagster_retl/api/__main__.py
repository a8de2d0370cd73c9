"""`python -m dagster_retl.api`: the API as a process beside Dagster's, as `retl up` starts it."""

from __future__ import annotations

import argparse

from dagster_retl.api.serve import serve
from dagster_retl.model.project import Project


def main() -> None:
    """Serve the project that `RETL_PROJECT` names."""
    parser = argparse.ArgumentParser(prog="python -m dagster_retl.api")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3030)
    parser.add_argument("--rate-limit", type=float, default=None)
    chosen = parser.parse_args()
    options = {} if chosen.rate_limit is None else {"rate_limit": chosen.rate_limit}
    serve(Project.load(), host=chosen.host, port=chosen.port, **options)


if __name__ == "__main__":
    main()
