"""Column lineage of a sync: which columns of which assets each destination field is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync, reads_asset
from dagster_retl.orchestration.upstream import resolved
from dagster_retl.sources.column_lineage import TableColumn, columns_of_expression, origins_of_columns
from dagster_retl.sources.open import dialect_of


def column_lineage(project: Project, sync: Sync, keys: Mapping[str, dg.AssetKey]) -> dg.TableColumnLineage | None:
    """Destination field → columns of upstream assets; None where nothing can be told.

    keys: the asset of each table that the sync reads.
    """
    reads = {mapping.destination: columns_of_expression(mapping.source or "") for mapping in sync.field_mappings}
    columns = list(dict.fromkeys(name for names in reads.values() for name in names if name))
    origins = _origins(project, sync, columns)
    by_table = {table.casefold(): key for table, key in keys.items()}
    deps = {field: list(_deps(names, origins, by_table)) for field, names in reads.items()}
    found = {field: each for field, each in deps.items() if each}
    return dg.TableColumnLineage(deps_by_column=found) if found else None


def _origins(project: Project, sync: Sync, columns: list[str]) -> Mapping[str, tuple[TableColumn, ...]]:
    if reads_asset(sync.source_query):
        return {name: (TableColumn((sync.source_query.strip(),), name),) for name in columns}
    try:
        query = resolved(project, sync)
    except ConfigurationError:
        return {}
    return origins_of_columns(query.sql, query.relations, columns, dialect_of(project.warehouses[sync.warehouse].url))


def _deps(
    names: tuple[str, ...], origins: Mapping[str, tuple[TableColumn, ...]], keys: Mapping[str, dg.AssetKey]
) -> Iterator[dg.TableColumnDep]:
    found = {origin: None for name in names for origin in origins.get(name, ())}
    for origin in found:
        key = keys.get(".".join(origin.relation).casefold())
        if key is not None:
            yield dg.TableColumnDep(key, origin.column)
