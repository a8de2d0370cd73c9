"""The code location of this repository: the syncs of its retl.yaml. See workspace.yaml."""

from dagster_retl.definitions import defs

__all__ = ["defs"]
