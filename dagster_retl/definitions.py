"""The Dagster definitions of a folder with a retl.yaml: `dagster dev -m dagster_retl.definitions`.

`RETL_PROJECT` names another file. Syncs run in the process of their run, which saves seconds each.
"""

import dagster as dg

from dagster_retl.model.project import Project
from dagster_retl.orchestration.build import standalone_definitions

defs = dg.Definitions.merge(standalone_definitions(Project.load()), dg.Definitions(executor=dg.in_process_executor))
