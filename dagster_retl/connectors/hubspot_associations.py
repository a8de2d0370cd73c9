"""Links from written records to their parents.

A mapping gives field `association.<name>` a value; the setting `associations` says which object's record has it, and
in which property. Parents are looked up before anything is written, so that a row whose parent does not exist is not
written at all. New records take their links along; others are linked once their ids are known:
https://developers.hubspot.com/docs/guides/api/crm/associations/associations-v4
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.hubspot_config import ASSOCIATION, Association
from dagster_retl.connectors.hubspot_errors import HubSpotError
from dagster_retl.connectors.hubspot_inputs import Draft, Link
from dagster_retl.connectors.hubspot_lookup import RecordFinder
from dagster_retl.connectors.hubspot_paths import Paths
from dagster_retl.connectors.hubspot_results import Clean, fault_of
from dagster_retl.connectors.hubspot_wire import Require, get, post, results_of
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Fault, RowResult

_Pair = tuple[str, str]
"""The ids of a record and of its parent."""


@dataclass(frozen=True, slots=True)
class Associations:
    """The associations of a destination. types: those that were asked for already; shared by threads."""

    settings: Mapping[str, Association]
    paths: Paths
    finder: RecordFinder
    require: Require
    clean: Clean
    types: dict[tuple[str, str], Mapping[str, Any]]

    def find_parents(self, object_name: str, drafts: Sequence[Draft]) -> Exchange[tuple[list[Draft], list[RowResult]]]:
        """The drafts with their links, and the rows that cannot be linked. Empty values link to nothing."""
        failed: dict[str, RowResult] = {}
        for name in dict.fromkeys(name for draft in drafts for name in draft.parents):
            setting = self._setting(name)
            values = [draft.parents[name] for draft in drafts if draft.parents.get(name)]
            if values:
                spec = yield from self._type(object_name, name, setting)
                ids = yield from self.finder.ids(setting.object, setting.by, values)
                faults = {d.row.key: _no_parent(setting, d.parents[name], ids) for d in drafts if d.parents.get(name)}
                failed |= {key: RowResult(key, fault) for key, fault in faults.items() if fault}
                drafts = [_linked(draft, name, setting, spec, ids) for draft in drafts]
        return [draft for draft in drafts if draft.row.key not in failed], list(failed.values())

    def link(
        self, object_name: str, drafts: Sequence[Draft], results: Sequence[RowResult]
    ) -> Exchange[list[RowResult]]:
        """Link the records that were written; the results, with a fault where that did not succeed.

        An error of a whole request is ambiguous: the records were written before.
        """
        by_key = {result.key: result for result in results}
        try:
            for name in dict.fromkeys(link.association for draft in drafts for link in draft.links):
                faults = yield from self._link_all(object_name, name, drafts, by_key)
                by_key |= {key: RowResult(key, fault) for key, fault in faults.items()}
        except DestinationError as error:
            error.ambiguous = True
            if isinstance(error, HubSpotError):
                error.of_row = _of_link(Fault(error.of_row, error.message)).code
            raise
        return list(by_key.values())

    def _link_all(
        self, object_name: str, name: str, drafts: Sequence[Draft], results: Mapping[str, RowResult]
    ) -> Exchange[Mapping[str, Fault]]:
        links = {draft.row.key: link for draft in drafts for link in draft.links if link.association == name}
        written = [result for result in results.values() if result.key in links and result.fault is None]
        faults = {each.key: _ID_UNKNOWN for each in written if each.record_id is None}
        pairs = {each.key: (each.record_id, links[each.key].to_id) for each in written if each.record_id is not None}
        if pairs:
            spec, to_object = next((link.spec, link.to_object) for link in links.values())
            inputs = [{"from": {"id": one}, "to": {"id": other}, "types": [spec]} for one, other in pairs.values()]
            path = self.paths.associations(object_name, to_object, "batch", "create")
            made, errors = results_of(self.require((yield post(path, {"inputs": inputs}))))
            faults.update(_unlinked(pairs, made, [(each, _of_link(fault_of(each, self.clean))) for each in errors]))
        return faults

    def _setting(self, name: str) -> Association:
        setting = self.settings.get(name)
        if setting is None:
            raise DestinationError(
                f"field {ASSOCIATION + name!r} is mapped, and the destination has no association {name!r}",
                code=ErrorCode.CONFIGURATION,
                hint=f"Add it to `associations` in the destination's config: `{name}: {{object: …, by: …}}`.",
            )
        return setting

    def _type(self, object_name: str, name: str, setting: Association) -> Exchange[Mapping[str, Any]]:
        known = self.types.get((object_name, name))
        if known is None:
            response = yield get(self.paths.associations(object_name, setting.object, "labels"))
            results, _ = results_of(self.require(response))
            known = self.types[object_name, name] = _chosen(object_name, setting, results)
        return known


def _chosen(object_name: str, setting: Association, labels: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The association type that a setting means, as HubSpot writes it."""
    for each in labels:
        if _is_meant(setting.type, each):
            return {"associationCategory": each.get("category"), "associationTypeId": each.get("typeId")}
    known = [f"{each.get('label') or 'without a label'} ({each.get('typeId')})" for each in labels]
    raise DestinationError(
        f"no association type {setting.type or 'without a label'!s} leads from {object_name} to {setting.object}",
        code=ErrorCode.CONFIGURATION,
        hint=f"Set `type` to one of: {', '.join(known) or 'there is none'}.",
    )


def _is_meant(wanted: str | int | None, label: Mapping[str, Any]) -> bool:
    if wanted is None:
        return label.get("label") is None
    if isinstance(wanted, int) or wanted.isdigit():
        return str(label.get("typeId")) == str(wanted)
    return str(label.get("label") or "").lower() == wanted.lower()


def _of_link(fault: Fault) -> Fault:
    """A record that is not there to link to is no record that is not there to write to."""
    return replace(fault, code=ErrorCode.DESTINATION_VALIDATION) if fault.code is ErrorCode.NOT_FOUND else fault


_ID_UNKNOWN = Fault(ErrorCode.UNKNOWN, "the record was written, but HubSpot did not say its id, to link it by")


def _no_parent(setting: Association, value: str, ids: Mapping[str, Sequence[str]]) -> Fault | None:
    found, what = len(ids.get(value, ())), f"{setting.object} with {setting.by} {value!r}"
    if found == 1:
        return None
    message = f"there are {found} {what}: which is the parent?" if found else f"there are no {what} to link to"
    return Fault(ErrorCode.DESTINATION_VALIDATION, message)


def _linked(
    draft: Draft, name: str, setting: Association, spec: Mapping[str, Any], ids: Mapping[str, Sequence[str]]
) -> Draft:
    found = ids.get(draft.parents.get(name) or "", ())
    if len(found) != 1:
        return draft
    return replace(draft, links=(*draft.links, Link(name, setting.object, found[0], spec)))


def _unlinked(
    pairs: Mapping[str, _Pair], made: Sequence[Mapping[str, Any]], errors: Sequence[tuple[Mapping[str, Any], Fault]]
) -> Mapping[str, Fault]:
    """The rows that an answer with errors does not say were linked."""
    if not errors:
        return {}
    done = set(map(_pair_of, made))
    return {key: _of_pair(pair, errors) for key, pair in pairs.items() if pair not in done}


def _of_pair(pair: _Pair, errors: Sequence[tuple[Mapping[str, Any], Fault]]) -> Fault:
    """The error that names one of the two records, or else the first one."""
    own = (fault for error, fault in errors if set(pair) & set(_ids_in(error.get("context"))))
    return next(own, errors[0][1])


def _ids_in(context: Any) -> Iterator[str]:
    if isinstance(context, Mapping):
        for values in context.values():
            yield from map(str, values if isinstance(values, list) else [values])


def _pair_of(result: Mapping[str, Any]) -> _Pair:
    """`fromObjectId` and `toObjectId`, or `from` and `to` as references."""
    one = result.get("fromObjectId") or (result.get("from") or {}).get("id")
    other = result.get("toObjectId") or (result.get("to") or {}).get("id")
    return str(one), str(other)
