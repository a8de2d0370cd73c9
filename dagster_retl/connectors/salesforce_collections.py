"""sObject Collections: up to 200 rows a request, answered one by one, in the order in which they were sent.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_composite_sobjects_collections.htm
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from dagster_retl.connectors.base import Exchange, Request
from dagster_retl.connectors.salesforce_api import Api, json_of, segment, unreadable
from dagster_retl.connectors.salesforce_errors import RowError, code_of_row
from dagster_retl.connectors.salesforce_lookup import ID, Lookup, is_id, only_key
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault, Operation, Row, RowResult

PATH = "composite/sobjects"
ROWS = 200
ROW_OVERHEAD = 200
"""Bytes that a request adds to each row, at most: the type of the record, and its id."""

Results = dict[str, RowResult]


@dataclass(frozen=True, slots=True)
class _Target:
    """A row, its document, and the id of its record. found: a query found it a moment ago."""

    row: Row
    document: bytes
    record_id: str
    found: bool = False


class Collections:
    """Writes batches by sObject Collections."""

    def __init__(self, api: Api, lookup: Lookup) -> None:
        self._api = api
        self._lookup = lookup

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        """One result for each row. Raises `DestinationError` for a fault of the whole batch."""
        if batch.operation in (Operation.UPDATE, Operation.DELETE):
            results = yield from self._write_by_id(batch)
            return [results[row.key] for row in batch.rows]
        response = yield from self._api.ask(self._create(batch))
        entries = entries_of(json_of(self._api.require(response)), len(batch.rows))
        return [self._result(row, entry) for row, entry in zip(batch.rows, entries, strict=True)]

    def _create(self, batch: Batch) -> Request:
        body = _frame([_record(document, batch.object_name) for document in batch.documents])
        if batch.operation is Operation.INSERT:
            return self._api.request("POST", PATH, body=body, idempotent=False)
        key = upsert_key(batch.key_fields)
        return self._api.request("PATCH", f"{PATH}/{segment(batch.object_name)}/{segment(key)}", body=body)

    def _write_by_id(self, batch: Batch) -> Exchange[Results]:
        """Update or delete. Ids that were kept may be those of records that are gone: then keys are looked up again."""
        key = only_key(batch.key_fields, f"mode {batch.operation.value!r}")
        documents = {row.key: document for row, document in zip(batch.rows, batch.documents, strict=True)}
        kept = {} if is_id(key) else {row.key: row.record_id for row in batch.rows if row.record_id}
        targets = [_Target(row, documents[row.key], kept[row.key]) for row in batch.rows if row.key in kept]
        results = yield from self._send(batch, targets)
        open_rows = [row for row in batch.rows if row.key not in results or _is_gone(results[row.key])]
        if open_rows:
            ids, faults = yield from self._lookup.record_ids(batch, open_rows)
            results |= {row: RowResult(row, fault) for row, fault in faults.items()}
            targets = [
                _Target(row, documents[row.key], ids[row.key], found=not is_id(key))
                for row in open_rows
                if row.key in ids
            ]
            results |= yield from self._send(batch, targets)
        return results

    def _send(self, batch: Batch, targets: Sequence[_Target]) -> Exchange[Results]:
        if not targets:
            return {}
        response = yield from self._api.ask(self._change(batch, targets))
        entries = entries_of(json_of(self._api.require(response)), len(targets))
        return {
            target.row.key: self._result(target.row, entry, target)
            for target, entry in zip(targets, entries, strict=True)
        }

    def _change(self, batch: Batch, targets: Sequence[_Target]) -> Request:
        if batch.operation is Operation.DELETE:
            ids = ",".join(target.record_id for target in targets)
            return self._api.request("DELETE", PATH, params={"ids": ids, "allOrNone": "false"})
        (key,) = batch.key_fields
        records = [_update(target, key, batch.object_name) for target in targets]
        return self._api.request("PATCH", PATH, body=_frame(records))

    def _result(self, row: Row, entry: Mapping[str, Any], target: _Target | None = None) -> RowResult:
        if entry["success"]:
            record_id = entry.get("id")
            return RowResult(row.key, record_id=str(record_id) if record_id else None)
        errors = [_error(each) for each in entry.get("errors") or [{}]]
        first = errors[0]
        code = code_of_row(first, by_id=target is not None, found=target is not None and target.found)
        message = "; ".join(error.message for error in errors)
        return RowResult(row.key, Fault(code, self._api.clean(message), first.code))


def upsert_key(key_fields: Sequence[str]) -> str:
    """The external id of an upsert. Raises `DestinationError` (`CONFIGURATION`) for keys that are none."""
    key = only_key(key_fields, "an upsert")
    if is_id(key):
        raise DestinationError(
            "an upsert cannot have `Id` as its key: Salesforce itself gives new records their ids",
            code=ErrorCode.CONFIGURATION,
            hint="Use mode `update`, or an external id as the key.",
        )
    return key


def frame_bytes() -> int:
    """The bytes of a request that are not rows."""
    return len(_frame([]))


def _frame(records: Sequence[bytes]) -> bytes:
    return b'{"allOrNone":false,"records":[' + b",".join(records) + b"]}"


def _record(document: bytes, object_name: str, record_id: str | None = None) -> bytes:
    """A row's document with its type, and the id of its record, in front of its fields."""
    added: dict[str, Any] = {"attributes": {"type": object_name}}
    if record_id is not None:
        added[ID] = record_id
    head = orjson.dumps(added)
    return head if document == b"{}" else head[:-1] + b"," + document[1:]


def _update(target: _Target, key: str, object_name: str) -> bytes:
    """The record to change, without its key: that is what it was found by, and may be read-only."""
    members = json.loads(target.document, parse_float=orjson.Fragment, parse_int=orjson.Fragment)
    members.pop(key, None)
    return _record(orjson.dumps(members), object_name, target.record_id)


def entries_of(body: Any, rows: int) -> list[Mapping[str, Any]]:
    """The entries of an answer, one for each row. Raises `DestinationError` (ambiguous) where they are not."""
    if not isinstance(body, list) or len(body) != rows:
        raise unreadable(f"something else than {rows} entries for as many rows")
    if not all(isinstance(entry, Mapping) and isinstance(entry.get("success"), bool) for entry in body):
        raise unreadable("entries that do not say whether their rows were written")
    return body


def _error(each: Any) -> RowError:
    code, message = each.get("statusCode"), each.get("message")
    return RowError(code, str(message or code or "refused without a reason"), tuple(map(str, each.get("fields") or ())))


def _is_gone(result: RowResult) -> bool:
    return result.fault is not None and result.fault.code is ErrorCode.NOT_FOUND
