"""What the warehouse and the destination say about a sync that is to be saved. Nothing is written there.

Who does not answer now keeps nobody from saving: that becomes a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.guards import contract_guard
from dagster_retl.errors import ConfigurationError, DestinationError, ErrorCode, RetlError, SourceError
from dagster_retl.mapping.compile import compile_mapping
from dagster_retl.model.mistakes import Mistake, did_you_mean
from dagster_retl.model.rows import FieldType, ObjectInfo
from dagster_retl.model.sync import FieldMapping, Sync, reads_asset
from dagster_retl.sources.base import Source
from dagster_retl.sources.parameters import bind
from dagster_retl.sources.query import asset_of, resolve_query


@dataclass(frozen=True, slots=True)
class Verdict:
    """`mistakes` keep the sync from being saved, `warnings` do not."""

    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, loc: str, kind: str, error: RetlError) -> None:
        """Add what somebody refused."""
        self.mistakes.append(Mistake((loc,), f"{error.message} {error.hint or ''}".strip(), kind=kind))


def examine(sync: Sync, connector: AnyConnector, open_source: Callable[[], Source], base: Path) -> Verdict:
    """Ask about mode, query, columns, object and fields."""
    verdict = Verdict()
    reason = connector.supports(sync.sync_mode)
    if reason is not None:
        verdict.mistakes.append(Mistake(("sync_mode",), reason, kind="unsupported_mode"))
    _ask_warehouse(sync, open_source, base, verdict)
    _ask_destination(sync, connector, verdict)
    return verdict


def _ask_warehouse(sync: Sync, open_source: Callable[[], Source], base: Path, verdict: Verdict) -> None:
    if reads_asset(sync.source_query):
        _check_asset(sync, verdict)
        return
    try:
        with open_source() as source:
            query = resolve_query(sync.source_query, dialect=source.dialect, base=base)
            example = sync.partitions.example() if sync.partitions else None
            columns = source.columns(bind(query.sql, example, source.dialect))
    except SourceError as error:
        if error.code is ErrorCode.SOURCE_UNAVAILABLE:
            verdict.warnings.append(f"the query was not tried: {error.message}")
        else:
            verdict.note("source_query", "query_refused", error)
    except ConfigurationError as error:
        verdict.note("source_query", "query", error)
    else:
        _check_columns(sync.field_mappings, columns, verdict)


def _check_asset(sync: Sync, verdict: Verdict) -> None:
    try:
        asset_of(sync.source_query)
    except ConfigurationError as error:
        verdict.note("source_query", "query", error)
    else:
        verdict.warnings.append("the columns were not checked: only a run in Dagster is given the asset's DataFrame")


def _check_columns(mappings: Sequence[FieldMapping], columns: pa.Schema, verdict: Verdict) -> None:
    try:
        compile_mapping(mappings, columns).close()
    except RetlError as error:
        verdict.note("field_mappings", error.code.value.lower(), error)


def _ask_destination(sync: Sync, connector: AnyConnector, verdict: Verdict) -> None:
    try:
        with Discovery(connector) as discovery:
            objects = discovery.objects() if connector.spec.discoverable else []
            if objects and (mistake := _unknown_object(sync, objects)) is not None:
                verdict.mistakes.append(mistake)
                return
            contract = contract_guard(sync, _fields(sync), discovery.fields(sync.object_name))
    except DestinationError as error:
        verdict.warnings.append(f"object and fields were not checked: {error.message}")
        return
    if contract is not None:
        verdict.mistakes.append(Mistake(("field_mappings",), contract.message, kind="contract"))


def _unknown_object(sync: Sync, objects: Sequence[ObjectInfo]) -> Mistake | None:
    names = [each.api_name for each in objects]
    if sync.object_name.lower() in {name.lower() for name in names}:
        return None
    hint = did_you_mean(sync.object_name, names)
    message = f"destination {sync.destination_id!r} has no object {sync.object_name!r}"
    return Mistake(("object_name",), f"{message}. {hint}" if hint else message, kind="unknown")


def _fields(sync: Sync) -> list[FieldType]:
    """The mapped fields; of what type they are says the query."""
    return [FieldType(mapping.destination, pa.null(), mapping.key) for mapping in sync.field_mappings]
