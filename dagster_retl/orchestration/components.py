"""Components: syncs as YAML in a Dagster project.

    type: dagster_retl.ReverseEtlSyncComponent        type: dagster_retl.ReverseEtlComponent
    attributes:                                       attributes:
      project_file: ../../retl.yaml                     project_file: ../../retl.yaml
      name: crm_accounts
      …

https://docs.dagster.io/guides/build/components. What only a build needs is imported in it: Dagster
imports this module to list components, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from pydantic import BaseModel

from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.component_attributes import ProjectAttributes, SyncAttributes
from dagster_retl.orchestration.scaffolding import ProjectScaffolder, SyncScaffolder

if TYPE_CHECKING:
    from dagster_retl.orchestration.step import SyncStep


@dg.scaffold_with(ProjectScaffolder)
class ReverseEtlComponent(dg.Component):
    """A whole retl.yaml: its syncs as assets with checks and schedules, the job `retl_syncs`, alerts and reaper.

    The attributes are those of a retl.yaml, or `project_file` names one. Override `get_asset_spec` to
    change what the assets look like, and `execute` to do something before or after a run.
    """

    __module__ = "dagster_retl"  # the name that people write in a defs.yaml

    def __init__(self, project: Project) -> None:
        self.project = project

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return ProjectAttributes

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        produces = ["asset", "asset_check", "schedule", "sensor", "job", "resource"]
        return dg.ComponentTypeSpec(tags=["reverse-etl"], produces=produces)

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        chosen = attributes if isinstance(attributes, ProjectAttributes) else cls.get_model_cls().model_validate({})
        assert isinstance(chosen, ProjectAttributes)  # noqa: S101 - for the type checker
        return cls(chosen.load(context))

    def get_asset_spec(self, sync: Sync) -> dg.AssetSpec:
        """The spec of a sync's asset; its key has to stay."""
        from dagster_retl.orchestration.assets import asset_spec  # noqa: PLC0415 - see above

        return asset_spec(self.project, sync)

    def execute(self, context: dg.AssetExecutionContext, step: SyncStep) -> Iterator[Any]:
        """What the op of a sync does: `step.run()` runs `step.sync` and yields its results."""
        yield from step.run()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from dagster_retl.orchestration.build import build_definitions  # noqa: PLC0415 - see above

        return build_definitions(self.project, get_asset_spec=self.get_asset_spec, execute=self.execute)


@dg.scaffold_with(SyncScaffolder)
class ReverseEtlSyncComponent(ReverseEtlComponent):
    """One sync: an asset with checks, its schedule, and the job `retl_<slug>`.

    The attributes are those of a sync in a retl.yaml, and `project_file`, which names the file with
    warehouses and destinations; or these stand here as well.
    """

    __module__ = "dagster_retl"

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return SyncAttributes

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from dagster_retl.orchestration.build import build_sync_definitions  # noqa: PLC0415 - see above

        return build_sync_definitions(self.project, get_asset_spec=self.get_asset_spec, execute=self.execute)
