"""A batch into Iterable: in one bulk request where there is one, else a request for each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import httpx

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.iterable_config import IterableConfig
from dagster_retl.connectors.iterable_entries import (
    Entry,
    event_entry,
    item_entry,
    member_entry,
    user_entry,
    user_name,
)
from dagster_retl.connectors.iterable_objects import Kind, Target, require_possible, target_of
from dagster_retl.connectors.iterable_reading import Check, find_user
from dagster_retl.connectors.iterable_requests import bulk, delete_user, update_user
from dagster_retl.connectors.iterable_results import read_bulk, read_object, unreadable
from dagster_retl.connectors.iterable_words import meaning
from dagster_retl.connectors.refusals import result_of_only_row
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import AllAccepted, Batch, Fault, Operation, Row, RowResult


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes batches that are not empty. check: of an answer's status. most_bytes: of a request's body."""

    config: IterableConfig
    check: Check
    most_bytes: int

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        """One result for each row. Raises `DestinationError` for what concerns more than a row."""
        target = target_of(batch.object_name)
        require_possible(batch, target, self.config.identify_by)
        if batch.operation is Operation.UPDATE:
            return (yield from self._update(batch))
        if target.kind is Kind.USERS and batch.operation is Operation.DELETE:
            return (yield from self._each(batch, self._delete_user))
        if target.kind is Kind.USERS and self.config.one_by_one:
            return (yield from self._each(batch, self._put_user))
        return (yield from self._bulk(batch, target))

    def _update(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        """Only users that exist: an update of others would create them."""
        looked_up = yield from self._each(batch, self._find_user)
        refused = {result.key: result for result in looked_up if result.fault}
        there = [row for row in batch.rows if row.key not in refused]
        if not there:
            return looked_up
        written = yield from self.write(replace(batch, rows=there, operation=Operation.UPSERT))
        return [*refused.values(), *written]

    def _each(self, batch: Batch, ask: Callable[[Row], Exchange[RowResult]]) -> Exchange[list[RowResult]]:
        results = []
        for row in batch.rows:
            try:
                results.append((yield from ask(row)))
            except DestinationError as error:
                results.append(result_of_only_row(replace(batch, rows=[row]), error))
        return results

    def _find_user(self, row: Row) -> Exchange[RowResult]:
        user = yield from find_user(row, self.config, self.check)
        missing = Fault(ErrorCode.NOT_FOUND, f"there is no user with this {self.config.identify_by}")
        return RowResult(row.key, None if user is not None else missing)

    def _put_user(self, row: Row) -> Exchange[RowResult]:
        (document,) = Batch("", Operation.UPSERT, [row]).documents
        self._require_done((yield update_user(user_entry(row, document, self.config), self.config)))
        return RowResult(row.key)

    def _delete_user(self, row: Row) -> Exchange[RowResult]:
        self._require_done((yield delete_user(self.config.identify_by, user_name(row, self.config))))
        return RowResult(row.key)

    def _require_done(self, response: httpx.Response) -> None:
        """An answer of 2xx may carry another code than that of success."""
        body = read_object(self.check(response))
        code = body.get("code")
        if not isinstance(code, str):
            raise unreadable("an object without code")
        if code != "Success":
            message = str(body.get("msg") or code)
            raise DestinationError(message, code=meaning(200, code, ErrorCode.BATCH_REJECTED), vendor_code=code)

    def _bulk(self, batch: Batch, target: Target) -> Exchange[Sequence[RowResult]]:
        documents = batch.documents
        shaped = [self._entry(row, documents[place], batch, target) for place, row in enumerate(batch.rows)]
        entries = [entry for entry in shaped if isinstance(entry, Entry)]
        refused = [
            RowResult(row.key, fault) for row, fault in zip(batch.rows, shaped, strict=True) if isinstance(fault, Fault)
        ]
        if not entries:
            return refused
        sent = (
            batch
            if not refused
            else replace(
                batch, rows=[row for row, entry in zip(batch.rows, shaped, strict=True) if isinstance(entry, Entry)]
            )
        )
        try:
            results = yield from self._send(sent, target, entries)
        except DestinationError as error:
            results = [result_of_only_row(sent, error)]
        return [*refused, *results] if refused else results

    def _entry(self, row: Row, document: bytes, batch: Batch, target: Target) -> Entry | Fault:
        if target.kind is Kind.EVENTS:
            return event_entry(row, document, batch.operation, self.config)
        if target.kind is Kind.CATALOGS:
            return item_entry(row, document)
        if batch.operation is Operation.DELETE:
            return member_entry(row, self.config)
        return user_entry(row, document, self.config)

    def _send(self, batch: Batch, target: Target, entries: Sequence[Entry]) -> Exchange[Sequence[RowResult]]:
        request = bulk(target, batch.operation, entries, self.config)
        size = len(request.content or b"")
        if size > self.most_bytes:
            message = f"the request would hold {size:,} bytes; batch_bytes is {self.most_bytes:,}"
            raise DestinationError(message, code=ErrorCode.PAYLOAD_TOO_LARGE)
        response = self._of_object((yield request), batch.object_name)
        if target.kind is Kind.CATALOGS:
            if response.status_code != 202 or response.content:
                self._require_done(response)
            return AllAccepted(batch.rows, unconfirmed=True)
        results = read_bulk(entries, response)
        if any(result.fault or result.warning for result in results):
            return [_forgiven(result) for result in results] if batch.operation is Operation.DELETE else results
        return AllAccepted(batch.rows)

    def _of_object(self, response: httpx.Response, object_name: str) -> httpx.Response:
        """A bulk request of which Iterable finds nothing is for a list or a catalog that is not there."""
        try:
            return self.check(response)
        except DestinationError as error:
            if error.code is ErrorCode.NOT_FOUND:
                message = f"object {object_name!r}: {error.message}"
                raise DestinationError(message, code=ErrorCode.SCHEMA_DRIFT, vendor_code=error.vendor_code) from error
            raise


def _forgiven(result: RowResult) -> RowResult:
    """Who is not there has left the list."""
    gone = result.fault is not None and result.fault.code is ErrorCode.NOT_FOUND
    return RowResult(result.key) if gone else result
