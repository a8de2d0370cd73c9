"""What a sync reads, as Dagster's assets: by key alone while definitions are built, by table once they are merged.

A dependency never brings an asset along: a second definition of a key would fail the load.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.dagster_names import KEY_PREFIX
from dagster_retl.model.order import predecessors
from dagster_retl.model.partitions import Partitions
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync, reads_asset
from dagster_retl.sources.dbt_manifest import dbt_model
from dagster_retl.sources.open import dialect_of
from dagster_retl.sources.query import ResolvedQuery, asset_of, dbt_model_of, relations_of, resolve_query

UPSTREAMS = "retl/upstreams"
"""Metadata of a sync's asset: each table that it reads → the key of the asset that stands for it."""

TABLE_NAME = "dagster/table_name"
"""Metadata by which assets say which table they are.

https://docs.dagster.io/guides/build/assets/metadata-and-tags#standard-metadata-types
"""

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
"""Dagster names an op's inputs after the keys, and takes no other characters."""

Tables = Mapping[str, list[tuple[tuple[str, ...], dg.AssetKey]]]
"""The assets that are tables, by the last part of the table's name: all its parts, and the key."""

Links = Mapping[str, tuple[dg.AssetKey, dg.AssetKey]]
"""Tables that a sync reads: the key that it went by, and that of the asset that the table is."""


def upstream_keys(project: Project, sync: Sync) -> dict[str, dg.AssetKey]:
    """The keys of what a sync reads, by table; `asset:` has one that is no table.

    Empty for a query that cannot be understood: `retl check` and runs say why.
    """
    try:
        if reads_asset(sync.source_query):
            return {sync.source_query.strip(): dg.AssetKey(list(asset_of(sync.source_query) or ()))}
        relations = _relations(project, sync)
        model = dbt_model_of(sync.source_query)
        if model is not None:
            return {".".join(relations[0]): dg.AssetKey(list(dbt_model(model, project.base).asset_key))}
    except ConfigurationError:
        return {}
    return {".".join(parts): dg.AssetKey([_NO_NAME.sub("_", part) for part in parts]) for parts in relations}


def predecessor_deps(project: Project, sync: Sync) -> list[dg.AssetDep]:
    """The syncs that it runs after. Where both are in one run, Dagster runs them in this order.

    None where writes are off: a plan materializes nothing, and Dagster would skip all plans that come after one.
    """
    if not (project.writes and sync.after):
        return []
    parted = {each.slug: each.partitions for each in project.syncs}
    return [_after(sync, slug, parted.get(slug)) for slug in predecessors(sync, project.syncs)]


def _after(sync: Sync, slug: str, partitions: Partitions | None) -> dg.AssetDep:
    """Of syncs that are parted in different ways, any part comes after all parts: Dagster knows no other rule."""
    differ = partitions is not None and sync.partitions is not None and partitions != sync.partitions
    return dg.AssetDep(dg.AssetKey([KEY_PREFIX, slug]), partition_mapping=dg.AllPartitionMapping() if differ else None)


def resolved(project: Project, sync: Sync) -> ResolvedQuery:
    """The query of a sync that reads a warehouse. Raises `ConfigurationError`."""
    dialect = dialect_of(project.warehouses[sync.warehouse].url)
    return resolve_query(sync.source_query, dialect=dialect, base=project.base)


def _relations(project: Project, sync: Sync) -> tuple[tuple[str, ...], ...]:
    dialect = dialect_of(project.warehouses[sync.warehouse].url)
    return relations_of(sync.source_query, dialect=dialect, base=project.base)


def upstreams_metadata(keys: Mapping[str, dg.AssetKey]) -> dict[str, dg.MetadataValue[Any]]:
    """The metadata that says which asset stands for which table."""
    if not keys:
        return {}
    return {UPSTREAMS: dg.MetadataValue.json({table: key.to_user_string() for table, key in keys.items()})}


def upstreams_of(spec: dg.AssetSpec) -> dict[str, dg.AssetKey]:
    """What `upstreams_metadata` said about a sync's asset, links included."""
    found = spec.metadata.get(UPSTREAMS)
    value = found.value if isinstance(found, dg.JsonMetadataValue) else {}
    return {table: dg.AssetKey.from_user_string(key) for table, key in value.items()} if isinstance(value, dict) else {}


def link_upstreams(definitions: dg.Definitions) -> dg.Definitions:
    """The definitions, with the syncs among them hanging on the assets whose tables they read.

    A table of a query is the asset whose `dagster/table_name` ends like it, part by part and
    ignoring case, or the other way round: `dim_account` is `analytics.main.dim_account`. Where several
    assets would do it is none of them, and a warning says so. Call it on everything that is merged:

        defs = link_upstreams(dg.Definitions.merge(dbt_defs, build_definitions(project)))
    """
    tables = _tables(definitions)
    links = {spec.key: _links(spec, tables) for spec in _specs(definitions)}
    rewired = _with_assets(definitions, [_rewired(asset, links) for asset in definitions.assets or ()])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Function `Definitions.map_resolved_asset_specs` is currently in preview")
        linked = rewired.map_resolved_asset_specs(func=lambda spec: _linked(spec, links[spec.key]))
    _warn_of_silent_upstreams(linked)
    return linked


def _warn_of_silent_upstreams(definitions: dg.Definitions) -> None:
    """A sync that waits for its upstreams never runs when nobody says that they were materialized."""
    specs = list(_specs(definitions))
    known = {spec.key for spec in specs}
    for spec in specs:
        waits = spec.automation_condition is not None and UPSTREAMS in spec.metadata
        silent = [dep.asset_key.to_user_string() for dep in spec.deps if dep.asset_key not in known]
        if waits and silent:
            warnings.warn(
                f"{spec.key.to_user_string()} runs `on_upstream`, but no asset here is {', '.join(silent)}: it runs "
                "only when somebody reports their materializations",
                stacklevel=3,
            )


def _tables(definitions: dg.Definitions) -> Tables:
    found: dict[str, list[tuple[tuple[str, ...], dg.AssetKey]]] = {}
    for spec in _specs(definitions):
        name = _text(spec.metadata.get(TABLE_NAME))
        if name and UPSTREAMS not in spec.metadata:
            parts = _folded(name.split("."))
            found.setdefault(parts[-1], []).append((parts, spec.key))
    return found


def _specs(definitions: dg.Definitions) -> Iterator[dg.AssetSpec]:
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetSpec):
            yield asset
        elif isinstance(asset, dg.AssetsDefinition):
            yield from asset.specs


def _links(spec: dg.AssetSpec, tables: Tables) -> Links:
    keys = upstreams_of(spec)
    found = {table: match for table in keys if (match := _match(spec, table, tables)) is not None}
    return {table: (keys[table], key) for table, key in found.items()}


def _rewired(asset: Any, links: Mapping[dg.AssetKey, Links]) -> Any:
    """The asset with its op waiting for what it is linked to.

    Dagster's mapping of specs changes what the lineage shows, and forgets that the op has to wait for it.
    """
    if not isinstance(asset, dg.AssetsDefinition):
        return asset
    moved = {old: new for spec in asset.specs for old, new in links[spec.key].values()}
    return asset.with_attributes(asset_key_replacements=moved) if moved else asset


def _with_assets(definitions: dg.Definitions, assets: list[Any]) -> dg.Definitions:
    return dg.Definitions(
        assets=assets,
        schedules=definitions.schedules,
        sensors=definitions.sensors,
        jobs=definitions.jobs,
        resources=definitions.resources,
        executor=definitions.executor,
        loggers=definitions.loggers,
        asset_checks=definitions.asset_checks,
        metadata=definitions.metadata,
        component_tree=definitions.component_tree,
    )


def _linked(spec: dg.AssetSpec, links: Links) -> dg.AssetSpec:
    if not links:
        return spec
    moved = dict(links.values())
    deps = [dg.AssetDep(moved[dep.asset_key]) if dep.asset_key in moved else dep for dep in spec.deps]
    keys = upstreams_of(spec) | {table: key for table, (_, key) in links.items()}
    return spec.replace_attributes(deps=_distinct(deps), metadata={**spec.metadata, **upstreams_metadata(keys)})


def _match(spec: dg.AssetSpec, table: str, tables: Tables) -> dg.AssetKey | None:
    parts = _folded(table.split("."))
    keys = sorted({key for name, key in tables.get(parts[-1], ()) if _same_end(name, parts)})
    if len(keys) > 1:
        names = ", ".join(key.to_user_string() for key in keys)
        warnings.warn(
            f"{spec.key.to_user_string()} reads {table!r}, which could be any of the assets {names}; "
            "write more of the table's name in the query",
            stacklevel=2,
        )
    return keys[0] if len(keys) == 1 else None


def _same_end(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def _distinct(deps: Iterable[dg.AssetDep]) -> list[dg.AssetDep]:
    return list({dep.asset_key: dep for dep in deps}.values())


def _folded(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.strip('"`[]').casefold() for part in parts)


def _text(value: object) -> str | None:
    if isinstance(value, dg.MetadataValue):
        value = value.value
    return value if isinstance(value, str) else None
