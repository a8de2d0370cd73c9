"""A sync as a Dagster asset: what it looks like, and the op behind it.

Dagster reads the annotations of ops: in this file they are not strings.
"""

from collections.abc import Callable

import dagster as dg

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync, reads_asset
from dagster_retl.orchestration.automation import condition
from dagster_retl.orchestration.checks import check_specs
from dagster_retl.orchestration.config import SyncRunConfig
from dagster_retl.orchestration.freshness import freshness_policy
from dagster_retl.orchestration.metadata import definition_metadata, description
from dagster_retl.orchestration.names import asset_key, pool
from dagster_retl.orchestration.partitions import backfill_policy, partitions_def
from dagster_retl.orchestration.step import Results, StepSettings, SyncStep
from dagster_retl.orchestration.upstream import predecessor_deps, upstream_keys, upstreams_metadata
from dagster_retl.sources.query import asset_of

Execute = Callable[[dg.AssetExecutionContext, SyncStep], Results]
"""What a sync's op does with its step: `run_step`, or something around it."""

_CONFIG_SCHEMA = SyncRunConfig.to_fields_dict()
"""Made once: reading it off an annotation of each op would take half the time of loading many syncs."""


def asset_spec(project: Project, sync: Sync) -> dg.AssetSpec:
    """The asset of a sync, without what makes it run."""
    upstreams = upstream_keys(project, sync)
    return dg.AssetSpec(
        asset_key(sync),
        deps=[*dict.fromkeys(upstreams.values()), *predecessor_deps(project, sync)],
        description=description(project, sync),
        group_name=sync.group,
        owners=list(sync.owners),
        tags=dict(sync.tags),
        automation_condition=condition(sync),
        freshness_policy=freshness_policy(project, sync),
        kinds={project.destinations[sync.destination_id].connector, _source_kind(project, sync)},
        metadata=definition_metadata(project, sync) | upstreams_metadata(upstreams),
        skippable=True,
        partitions_def=partitions_def(sync.partitions),
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

    def op(context: dg.AssetExecutionContext, **inputs: object) -> Results:
        with settings.open_service() as service:
            yield from execute(context, SyncStep(context, sync, settings, service, **inputs))

    try:
        return dg.multi_asset(
            name=sync.slug,
            # A dry run materializes nothing.
            specs=[spec if spec.skippable else spec.replace_attributes(skippable=True)],
            ins=_inputs(sync),
            check_specs=check_specs(sync),
            config_schema=_CONFIG_SCHEMA,
            can_subset=True,
            pool=pool(sync),
            backfill_policy=backfill_policy(sync.partitions),
        )(op)
    except (dg.DagsterInvalidDefinitionError, dg.DagsterInvariantViolationError) as error:
        raise refused(sync, error) from None


def _inputs(sync: Sync) -> dict[str, dg.AssetIn]:
    """The DataFrame that Dagster's I/O manager hands to a sync with an `asset:` query."""
    key = asset_of(sync.source_query)
    return {} if key is None else {"frame": dg.AssetIn(dg.AssetKey(list(key)))}


def refused(sync: Sync, error: dg.DagsterError) -> ConfigurationError:
    """The error for a sync that Dagster does not take."""
    return ConfigurationError(
        f"sync {sync.name!r} cannot be a Dagster asset: {error}", hint="Change its slug, group, owners or tags."
    )


def _source_kind(project: Project, sync: Sync) -> str:
    if reads_asset(sync.source_query):
        return "dataframe"
    scheme = project.warehouses[sync.warehouse].url.partition(":")[0].partition("+")[0]
    return "postgres" if scheme == "postgresql" else scheme
