"""Syncs as plain data: what people send, what the store keeps, and the `Sync` between them.

data (as in retl.yaml) ── parse_sync ──▸ Sync ── definition_of ──▸ what the store keeps ── sync_of ──▸ Sync
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dagster_retl.errors import ConfigurationError, StoreError
from dagster_retl.model.mistakes import Mistake
from dagster_retl.model.model_errors import causes, explain, settings_at
from dagster_retl.model.order import order_mistakes, predecessors
from dagster_retl.model.problems import dotted
from dagster_retl.model.project import Project
from dagster_retl.model.references import broken_references
from dagster_retl.model.sync import Sync
from dagster_retl.store.stored_syncs import StoredSync

_BESIDE = {"project", "name", "slug", "adopt", "renamed_from", "enabled"}
"""What the store keeps in columns of its own, or what only a file can say."""

_RESERVED = frozenset(keyword.kwlist) | {
    *("bool", "dict", "float", "int", "str", "type"),
    *("conf", "config", "context", "meta"),
    *("input", "input_arg_dict", "output", "output_arg_dict", "arg_dict"),
}
"""Names that Dagster gives to no op."""

_LONGEST = 200
_OWNER = re.compile(r"team:.+|\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}", re.DOTALL)
_GROUP = re.compile(r"\w+(/\w+)*", re.ASCII)
_TAG_KEY = re.compile(r"([\w.-]{1,63}/)?[\w.-]{1,63}", re.ASCII)
_TAG_VALUE = re.compile(r"[\w.-]{0,63}", re.ASCII)


class InvalidSyncError(ConfigurationError):
    """A sync cannot be like this; `mistakes` are all that is wrong with it, each with its place."""

    def __init__(self, name: object, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        told = "; ".join(f"{dotted(each.loc) or 'sync'}: {each.message}" for each in self.mistakes)
        super().__init__(f"sync {str(name)[:80]!r} cannot be saved: {told}")


def parse_sync(data: Mapping[str, Any], project: Project, *, sync_id: str, others: Sequence[Sync] = ()) -> Sync:
    """A sync of what somebody sent. Raises `InvalidSyncError` with everything that can be seen without asking anybody.

    data: as in retl.yaml, short forms too. sync_id: the id that it has or is to have. others: all other syncs,
    which it may run after; it remembers them by their slugs, since names can change.
    """
    found = [*_file_only(data), *_too_long(data), *_of_file_rules(data, project)]
    try:
        sync = Sync.model_validate({**data, "project": project.project, "adopt": sync_id})
    except ValidationError as error:
        raise InvalidSyncError(data.get("name"), [*_mistakes(error, data), *found]) from None
    found += _unfit_for_dagster(sync)
    found += _of_order(sync, others)
    if found:
        raise InvalidSyncError(sync.name, found)
    return sync.model_copy(update={"after": tuple(predecessors(sync, others))}) if sync.after else sync


def definition_of(sync: Sync) -> dict[str, Any]:
    """What the store keeps of a sync: what was said, as JSON values."""
    return sync.model_dump(mode="json", exclude=_BESIDE, exclude_unset=True)


def sync_of(stored: StoredSync) -> Sync:
    """The sync that the store keeps. Raises `StoreError` when this version does not understand it."""
    own = {"project": stored.project, "name": stored.name, "slug": stored.slug, "adopt": stored.id}
    try:
        return Sync.model_validate({**stored.definition, **own})
    except ValidationError as error:
        raise StoreError(
            f"sync {stored.name!r} ({stored.id}) in the store is not understood by this version: "
            f"{error.errors(include_input=False)[0]['msg']}",
            hint="Upgrade dagster-retl on this machine, or delete the sync through the API.",
        ) from None


def file_data(sync: Sync) -> dict[str, Any]:
    """The sync as retl.yaml would say it, to move it there with all that it knows (`adopt`)."""
    said = sync.model_dump(mode="json", exclude={"project", "renamed_from"}, exclude_unset=True)
    first = {"name": sync.name, "slug": sync.slug, "adopt": sync.id}
    return first | {name: value for name, value in said.items() if name not in first}


def _file_only(data: Mapping[str, Any]) -> Iterator[Mistake]:
    for name in ("adopt", "renamed_from", "project"):
        if name in data:
            yield Mistake((name,), "this can be said in retl.yaml only", kind="extra_forbidden")


def _too_long(data: Mapping[str, Any]) -> Iterator[Mistake]:
    """Names are in indexes, which take no long ones."""
    for name in ("name", "slug"):
        if isinstance(data.get(name), str) and len(data[name]) > _LONGEST:
            yield Mistake((name,), f"at most {_LONGEST} characters", kind="too_long")


def _of_file_rules(data: Mapping[str, Any], project: Project) -> Iterator[Mistake]:
    """The rules that the syncs of a file are held to, for this one beside those of the file."""
    mine = {name: value for name, value in data.items() if name not in ("project", "after")}
    known = {
        "project": project.project,
        "destinations": {name: {} for name in project.destinations},
        "warehouses": {name: {} for name in project.warehouses},
        "syncs": [mine],
    }
    for mistake in broken_references(known):
        if mistake.loc[:1] == ("syncs",):
            yield Mistake(mistake.loc[2:], _sentence(mistake.message, mistake.hint), kind=mistake.kind)


def _of_order(sync: Sync, others: Sequence[Sync]) -> Iterator[Mistake]:
    """What is wrong with its `after`; the others are fine without it."""
    for mistake in order_mistakes([sync, *others]):
        if mistake.loc[1] == 0:
            yield Mistake(mistake.loc[2:], _sentence(mistake.message, mistake.hint), kind=mistake.kind)


def _mistakes(error: ValidationError, data: Mapping[str, Any]) -> Iterator[Mistake]:
    for details in causes(error.errors()):
        loc = details["loc"]
        message, hint = explain(details, _at(data, loc), settings_at(Sync, loc))
        yield Mistake(loc, _sentence(message, hint), kind=details["type"])


def _at(data: Any, loc: Sequence[str | int]) -> Any:
    for part in loc:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _sentence(message: str, hint: str | None) -> str:
    return f"{message}. {hint}" if hint else message


def _unfit_for_dagster(sync: Sync) -> Iterator[Mistake]:
    """What Dagster would refuse when definitions load, where one sync would take all others with it."""
    if sync.slug in _RESERVED or sync.slug.startswith("retl_"):
        yield Mistake(("slug",), f"{sync.slug!r} is a reserved name: write another `slug`", kind="reserved")
    if not _GROUP.fullmatch(sync.group):
        yield Mistake(("group",), "expected letters, digits and underscores", kind="group")
    for index, owner in enumerate(sync.owners):
        if not _OWNER.fullmatch(owner):
            yield Mistake(("owners", index), "expected an e-mail address, or `team:name`", kind="owner")
    for name, value in sync.tags.items():
        if not _TAG_KEY.fullmatch(name) or not _TAG_VALUE.fullmatch(value):
            message = "expected letters, digits, `_`, `-` and `.`, at most 63, and one `/` in the key at most"
            yield Mistake(("tags", name), message, kind="tag")
