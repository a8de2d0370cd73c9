"""`after`: the syncs that run before a sync, as names and as mistakes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from dagster_retl.model.mistakes import Mistake, did_you_mean
from dagster_retl.model.sync import SLUG, Sync, slugify

Places = Mapping[str, int]
"""Names and slugs of syncs → their place in the project's list."""


def slug_of(sync: Mapping[str, Any]) -> str | None:
    """The slug that a sync (plain data) says, or that its name stands for."""
    slug, name = sync.get("slug"), sync.get("name")
    if isinstance(slug, str) and slug:
        return slug
    return slugify(name) if isinstance(name, str) else None


def predecessors(sync: Sync, syncs: Iterable[Sync]) -> list[str]:
    """The slugs of the syncs that run before it. A name of none of them stands for its slug."""
    known = {sync.name: sync.slug for sync in syncs} | {sync.slug: sync.slug for sync in syncs}
    return list(
        dict.fromkeys(known.get(name) or (name if SLUG.fullmatch(name) else slugify(name)) for name in sync.after)
    )


def order_mistakes(syncs: Iterable[Sync], elsewhere: Collection[str] = ()) -> Iterator[Mistake]:
    """The same as `broken_order`, of syncs; each mistake at the place of its sync among them."""
    plain = [{"name": sync.name, "slug": sync.slug, "after": sync.after} for sync in syncs]
    return broken_order(dict(enumerate(plain)), elsewhere)


def broken_order(syncs: Mapping[int, Mapping[str, Any]], elsewhere: Collection[str] = ()) -> Iterator[Mistake]:
    """Names that no sync has, syncs after themselves, and circles.

    syncs: plain data, by their place in the project's list. elsewhere: names of syncs that are defined elsewhere.
    """
    places = _places(syncs)
    for index, sync in syncs.items():
        for position, name in enumerate(_after(sync)):
            loc = ("syncs", index, "after", position)
            if not isinstance(name, str) or (name in elsewhere and name not in places):
                continue
            if name not in places:
                hint = did_you_mean(name, places) if places else None
                yield Mistake(loc, f"there is no sync {name!r}", hint, "unknown")
            elif places[name] == index:
                yield Mistake(loc, "a sync cannot run after itself", "Leave it out.", "circle")
    yield from _circle(syncs, places)


def _circle(syncs: Mapping[int, Mapping[str, Any]], places: Places) -> Iterator[Mistake]:
    graph = {
        index: {places[name] for name in _after(sync) if isinstance(name, str) and places.get(name, index) != index}
        for index, sync in syncs.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]  # each runs before the next, and the last is the first
        told = " → ".join(str(slug_of(syncs[index])) for index in circle)
        yield Mistake(
            ("syncs", min(circle), "after"),
            f"these syncs would wait for one another: {told}",
            "Take one `after` out.",
            "circle",
        )


def _places(syncs: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    names = {sync["name"]: index for index, sync in syncs.items() if isinstance(sync.get("name"), str)}
    return names | {slug: index for index, sync in syncs.items() if (slug := slug_of(sync))}


def _after(sync: Mapping[str, Any]) -> Iterable[Any]:
    after = sync.get("after")
    return after if isinstance(after, (list, tuple)) else ()
