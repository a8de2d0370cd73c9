"""Which sync of the store a sync of a file is: that of its slug, of the slug it was renamed from, or one it adopts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dagster_retl.model.ids import sync_id_of
from dagster_retl.model.mistakes import Loc, Mistake
from dagster_retl.model.order import slug_of

_ONE_OF_TWO = "Two syncs cannot go on with the same snapshot."


def broken_renames(syncs: Mapping[int, Mapping[str, Any]], project: str) -> Iterator[Mistake]:
    """Renames that cannot be, and syncs that claim the same id.

    syncs: plain data, by their place in the project's list.
    """
    slugs = {slug: index for index, sync in syncs.items() if (slug := slug_of(sync))}
    first: dict[str, int] = {}
    refused: set[int] = set()
    for index, sync in syncs.items():
        mistake = _bad_rename(index, sync, slugs)
        if mistake is not None:
            refused.add(index)
            yield mistake
    for index, sync in syncs.items():
        claimed = _claimed(sync, project)
        if claimed and index not in refused and first.setdefault(claimed, index) != index:
            yield from _same_id(index, first[claimed], syncs)


def _bad_rename(index: int, sync: Mapping[str, Any], slugs: Mapping[str, int]) -> Mistake | None:
    old, loc = sync.get("renamed_from"), ("syncs", index, "renamed_from")
    if not isinstance(old, str):
        return None
    if sync.get("adopt"):
        return Mistake(loc, "`adopt` says already whose place the sync takes", "Leave `renamed_from` out.", "rename")
    if old == slug_of(sync):
        return Mistake(loc, f"{old!r} is the slug that the sync has now", "Leave `renamed_from` out.", "rename")
    if old in slugs:
        hint = f"Take the old one out. After several renames, write the first slug of all. {_ONE_OF_TWO}"
        return Mistake(loc, f"the sync {old!r} is still there, as syncs[{slugs[old]}]", hint, "rename")
    return None


def _same_id(index: int, first: int, syncs: Mapping[int, Mapping[str, Any]]) -> Iterator[Mistake]:
    """Two of one slug are told elsewhere, by their names."""
    sync, other = syncs[index], syncs[first]
    for name, message in (
        ("renamed_from", f"syncs[{first}] is renamed from the same sync"),
        ("adopt", f"syncs[{first}] adopts the same sync"),
    ):
        if sync.get(name) and sync.get(name) == other.get(name):
            yield Mistake(_at(index, name), message, _ONE_OF_TWO, "duplicate")
            return
    at, owner = (index, first) if sync.get("adopt") else (first, index)
    if syncs[at].get("adopt"):
        yield Mistake(_at(at, "adopt"), f"this is the id of syncs[{owner}]", _ONE_OF_TWO, "duplicate")


def _at(index: int, name: str) -> Loc:
    return ("syncs", index, name)


def _claimed(sync: Mapping[str, Any], project: str) -> str | None:
    adopted, old = sync.get("adopt"), sync.get("renamed_from")
    if isinstance(adopted, str):
        return adopted
    slug = old if isinstance(old, str) else slug_of(sync)
    return sync_id_of(project, slug) if slug else None
