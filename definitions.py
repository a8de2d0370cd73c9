"""The code location of this repository: the syncs of its retl.yaml, or of the file that RETL_PROJECT names."""

import os
from pathlib import Path

import dagster as dg

from dagster_retl import Project
from dagster_retl.orchestration.build import standalone_definitions

project = Project.load(os.environ.get("RETL_PROJECT") or Path(__file__).with_name("retl.yaml"))

# Syncs run in the process of their run, which saves seconds each.
defs = dg.Definitions.merge(standalone_definitions(project), dg.Definitions(executor=dg.in_process_executor))
