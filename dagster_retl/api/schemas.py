"""The shapes of the answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from dagster_retl.api.attributes import (
    DeletedAttributes,
    DeletedMeta,
    DestinationAttributes,
    DiscoveryMeta,
    FieldAttributes,
    LetterAttributes,
    ObjectAttributes,
    PageMeta,
    PlanAttributes,
    ResolvedAttributes,
    RetiredAttributes,
    RunAttributes,
    SavedMeta,
    Shape,
    StatsAttributes,
    SyncAttributes,
    SyncSummary,
    ToggledAttributes,
    VersionAttributes,
)

A = TypeVar("A", bound=BaseModel)
K = TypeVar("K")


class Resource(Shape, Generic[K, A]):
    """Something with an id."""

    id: str
    type: K
    attributes: A


class Value(Shape, Generic[K, A]):
    """Something without an id."""

    type: K
    attributes: A


_SyncType = Literal["reverse_etl_sync"]
_RunType = Literal["reverse_etl_run"]
_LetterType = Literal["reverse_etl_dlq_entry"]


class SyncList(Shape):
    """A page of syncs."""

    data: list[Resource[_SyncType, SyncSummary]]
    meta: PageMeta


class SyncOne(Shape):
    """A sync."""

    data: Resource[_SyncType, SyncAttributes]
    meta: SavedMeta | None = Field(None)


class DeletedSync(Shape):
    """A sync that was deleted."""

    data: Resource[_SyncType, DeletedAttributes]
    meta: DeletedMeta


class ToggledSync(Shape):
    """A sync that was switched on or off."""

    data: Resource[_SyncType, ToggledAttributes]


class VersionList(Shape):
    """All versions of a sync, newest first."""

    data: list[Resource[Literal["reverse_etl_sync_version"], VersionAttributes]]


class RetiredList(Shape):
    """All syncs that are gone, of which something is kept."""

    data: list[Resource[Literal["reverse_etl_retired_sync"], RetiredAttributes]]


class PlanOne(Shape):
    """A plan."""

    data: Value[Literal["reverse_etl_plan"], PlanAttributes]


class RunOne(Shape):
    """A run."""

    data: Resource[_RunType, RunAttributes]


class RunStarted(Shape):
    """The runs that were started."""

    data: Resource[_RunType, RunAttributes] | list[Resource[_RunType, RunAttributes]]
    """One for `sync_id`, a list for `sync_ids`."""


class RunList(Shape):
    """A page of runs."""

    data: list[Resource[_RunType, RunAttributes]]
    meta: PageMeta


class LetterOne(Shape):
    """A dead letter."""

    data: Resource[_LetterType, LetterAttributes]


class LetterList(Shape):
    """A page of dead letters."""

    data: list[Resource[_LetterType, LetterAttributes]]
    meta: PageMeta


class StatsOne(Shape):
    """Counts of dead letters."""

    data: Value[Literal["reverse_etl_dlq_stats"], StatsAttributes]


class ResolvedOne(Shape):
    """The end of dead letters."""

    data: Value[Literal["reverse_etl_dlq_resolve"], ResolvedAttributes]


class DestinationList(Shape):
    """All destinations."""

    data: list[Resource[Literal["reverse_etl_destination"], DestinationAttributes]]


class ObjectList(Shape):
    """The objects of a destination."""

    data: list[Resource[Literal["destination_object"], ObjectAttributes]]
    meta: DiscoveryMeta


class FieldList(Shape):
    """The fields of an object."""

    data: list[Resource[Literal["destination_field"], FieldAttributes]]
    meta: DiscoveryMeta
