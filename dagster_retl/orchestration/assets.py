"""A sync as a Dagster asset: what it looks like, and the op behind it.

Dagster reads the annotations of ops: in this file they are not strings.
"""

from collections.abc import Callable

import dagster as dg

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.checks import check_specs
from dagster_retl.orchestration.config import SyncRunConfig
from dagster_retl.orchestration.metadata import definition_metadata, description
from dagster_retl.orchestration.names import asset_key
from dagster_retl.orchestration.step import Results, StepSettings, SyncStep

Execute = Callable[[dg.AssetExecutionContext, SyncStep], Results]
"""What a sync's op does with its step: `run_step`, or something around it."""

_CONFIG_SCHEMA = SyncRunConfig.to_fields_dict()
"""Made once: reading it off an annotation of each op would take half the time of loading many syncs."""


def asset_spec(project: Project, sync: Sync) -> dg.AssetSpec:
    """The asset of a sync, without what makes it run."""
    return dg.AssetSpec(
        asset_key(sync),
        description=description(project, sync),
        group_name=sync.group,
        owners=list(sync.owners),
        tags=dict(sync.tags),
        kinds={project.destinations[sync.destination_id].connector, _warehouse_kind(project, sync)},
        metadata=definition_metadata(sync),
    )


def run_step(context: dg.AssetExecutionContext, step: SyncStep) -> Results:
    """Run the sync, and report on it."""
    yield from step.run()


def sync_asset(
    sync: Sync, spec: dg.AssetSpec, settings: StepSettings, execute: Execute = run_step
) -> dg.AssetsDefinition:
    """The asset that runs a sync.

    Raises `ConfigurationError` for a name, owner or tag that Dagster refuses, and for a spec with another key.
    """
    if spec.key != asset_key(sync):
        raise ConfigurationError(
            f"the asset of sync {sync.name!r} has the key {asset_key(sync).to_user_string()}, not "
            f"{spec.key.to_user_string()}: runs from elsewhere find it by that",
            hint="Change its slug.",
        )

    def op(context: dg.AssetExecutionContext) -> Results:
        with settings.open_service() as service:
            yield from execute(context, SyncStep(context, sync, settings, service))

    try:
        return dg.multi_asset(
            name=sync.slug,
            specs=[spec.replace_attributes(skippable=True)],  # a dry run materializes nothing
            check_specs=check_specs(sync),
            config_schema=_CONFIG_SCHEMA,
            can_subset=True,
        )(op)
    except (dg.DagsterInvalidDefinitionError, dg.DagsterInvariantViolationError) as error:
        raise refused(sync, error) from None


def refused(sync: Sync, error: dg.DagsterError) -> ConfigurationError:
    """The error for a sync that Dagster does not take."""
    return ConfigurationError(
        f"sync {sync.name!r} cannot be a Dagster asset: {error}", hint="Change its slug, group, owners or tags."
    )


def _warehouse_kind(project: Project, sync: Sync) -> str:
    scheme = project.warehouses[sync.warehouse].url.partition(":")[0].partition("+")[0]
    return "postgres" if scheme == "postgresql" else scheme
