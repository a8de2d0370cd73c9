"""What a sync can write to in Iterable: `users`, `events`, `lists/<id>`, `catalogs/<name>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation


class Kind(StrEnum):
    """What rows become."""

    USERS = "users"
    EVENTS = "events"
    LISTS = "lists"
    CATALOGS = "catalogs"


OPERATIONS: Mapping[Kind, frozenset[Operation]] = {
    Kind.USERS: frozenset(Operation),
    Kind.EVENTS: frozenset({Operation.INSERT, Operation.UPSERT}),
    Kind.LISTS: frozenset({Operation.INSERT, Operation.UPSERT, Operation.DELETE}),
    Kind.CATALOGS: frozenset({Operation.INSERT, Operation.UPSERT, Operation.DELETE}),
}
ITEM_ID = re.compile(r"[A-Za-z0-9-]{1,255}")
"""Names of catalogs, and ids of their items: https://api.iterable.com/api/docs#catalogs_bulkUpdateCatalogItems."""


@dataclass(frozen=True, slots=True)
class Target:
    """An object. name: the id of a list or the name of a catalog."""

    kind: Kind
    name: str = ""

    @property
    def holds_users(self) -> bool:
        """Whether its key is a user."""
        return self.kind in (Kind.USERS, Kind.LISTS)


def target_of(object_name: str) -> Target:
    """What an object's name means. Raises `DestinationError` (`SCHEMA_DRIFT`) where it means nothing."""
    kind, slash, name = object_name.partition("/")
    if not slash and kind in (Kind.USERS, Kind.EVENTS):
        return Target(Kind(kind))
    if kind == Kind.LISTS and name.isascii() and name.isdigit():
        return Target(Kind.LISTS, name)
    if kind == Kind.CATALOGS and ITEM_ID.fullmatch(name):
        return Target(Kind.CATALOGS, name)
    raise DestinationError(
        f"Iterable has no object {object_name!r}",
        code=ErrorCode.SCHEMA_DRIFT,
        hint="Objects are `users`, `events`, `lists/<id>` and `catalogs/<name>`.",
    )


def require_possible(batch: Batch, target: Target, identify_by: str) -> None:
    """Raise `DestinationError` (`CONFIGURATION`) for what an object cannot do, or a key that it does not have."""
    if batch.operation not in OPERATIONS[target.kind]:
        can = ", ".join(sorted(operation.value for operation in OPERATIONS[target.kind]))
        raise DestinationError(
            f"object {batch.object_name!r} cannot {batch.operation.value} rows",
            code=ErrorCode.CONFIGURATION,
            hint=f"It can {can}.",
        )
    key = identify_by if target.holds_users else "id" if target.kind is Kind.CATALOGS else None
    if key and batch.key_fields != (key,):
        raise DestinationError(
            f"the key of object {batch.object_name!r} is {key!r}, not {', '.join(batch.key_fields) or 'nothing'}",
            code=ErrorCode.CONFIGURATION,
            hint="Name it as the key of the sync"
            + (", or set `identify_by` of the destination." if target.holds_users else "."),
        )
