"""What the parts of a project say about one another: names that must exist, names that may exist once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dagster_retl.model.identity import broken_renames
from dagster_retl.model.mistakes import Loc, Mistake, did_you_mean
from dagster_retl.model.order import broken_order, slug_of
from dagster_retl.model.sync import reads_asset

DEFAULT_WAREHOUSE = "default"

Syncs = Mapping[int, Mapping[str, Any]]
"""Syncs as plain data, by their place in the project's list."""


def broken_references(data: Mapping[str, Any]) -> list[Mistake]:
    """Duplicate syncs, names that do not exist (destinations, warehouses, syncs), orders and renames that cannot be.

    `data` is a project as plain data. What has the wrong shape is passed over: the models say so.
    """
    misnamed = [*_misnamed(data, "warehouses", "name"), *_misnamed(data, "destinations", "id")]
    listed = data.get("syncs")
    if not isinstance(listed, (list, tuple)):
        return misnamed
    syncs = {index: sync for index, sync in enumerate(listed) if isinstance(sync, Mapping)}
    return [
        *misnamed,
        *_duplicates(syncs),
        *_unknown(syncs, "destination", "destination_id", None, data.get("destinations")),
        *_unknown(_of_warehouses(syncs), "warehouse", "warehouse", DEFAULT_WAREHOUSE, data.get("warehouses")),
        *broken_order(syncs, data.get("elsewhere", ())),
        *broken_renames(syncs, str(data.get("project", "default"))),
        *_foreign(syncs, data.get("project", "default")),
    ]


def _name_of(sync: Mapping[str, Any]) -> str | None:
    name = sync.get("name")
    return name if isinstance(name, str) else None


def _duplicates(syncs: Syncs) -> Iterator[Mistake]:
    same_name = dict(_repeated(syncs, _name_of))
    for index, first in same_name.items():
        yield Mistake(("syncs", index, "name"), f"syncs[{first}] has the same name", kind="duplicate")
    for index, first in _repeated(syncs, slug_of):
        if index not in same_name:
            field = "slug" if syncs[index].get("slug") else "name"
            hint = "A slug is the name in lower case, with `_` for other characters; write another `slug`."
            yield Mistake(("syncs", index, field), f"syncs[{first}] has the same slug", hint, "duplicate")


def _repeated(syncs: Syncs, name_of: Callable[[Mapping[str, Any]], str | None]) -> Iterator[tuple[int, int]]:
    first: dict[str, int] = {}
    for index, sync in syncs.items():
        name = name_of(sync)
        if name and first.setdefault(name, index) != index:
            yield index, first[name]


def _unknown(syncs: Syncs, kind: str, field: str, default: str | None, known: object) -> Iterator[Mistake]:
    if not isinstance(known, Mapping):
        return
    for index, sync in syncs.items():
        name = sync.get(field, default)
        if isinstance(name, str) and name not in known:
            yield _unknown_name(("syncs", index, field), kind, name, [str(each) for each in known])


def _of_warehouses(syncs: Syncs) -> Syncs:
    """The syncs that read a warehouse: not those that read the DataFrame of an asset."""
    return {index: sync for index, sync in syncs.items() if not reads_asset(sync.get("source_query"))}


def _unknown_name(loc: Loc, kind: str, name: str, known: Collection[str]) -> Mistake:
    hint = did_you_mean(name, known) if known else f"No {kind} is defined."
    return Mistake(loc, f"there is no {kind} {name!r}", hint, "unknown")


def _foreign(syncs: Syncs, project: object) -> Iterator[Mistake]:
    for index, sync in syncs.items():
        if sync.get("project", project) != project:
            message = f"this sync belongs to project {sync['project']!r}, not to {project!r}"
            yield Mistake(("syncs", index, "project"), message, "Leave `project` out of the sync.", "foreign")


def _misnamed(data: Mapping[str, Any], section: str, field: str) -> Iterator[Mistake]:
    items = data.get(section)
    for key, item in items.items() if isinstance(items, Mapping) else ():
        name = item.get(field, key) if isinstance(item, Mapping) else key
        if name != key:
            message = f"this is {key!r} by its key, but {name!r} by its `{field}`"
            yield Mistake((section, key, field), message, f"Leave `{field}` out.", "misnamed")
