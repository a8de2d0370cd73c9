"""Writing a batch: find what has to be known first, send it, read what became of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dagster_retl.connectors.base import Exchange, Request
from dagster_retl.connectors.hubspot_associations import Associations
from dagster_retl.connectors.hubspot_errors import HubSpotError
from dagster_retl.connectors.hubspot_inputs import VERBS, Draft, drafts_of, key_property, key_text
from dagster_retl.connectors.hubspot_lookup import RecordFinder, is_email_of_contact
from dagster_retl.connectors.hubspot_paths import RECORD_ID, Paths
from dagster_retl.connectors.hubspot_results import Clean, Fold, Sent, read_answers
from dagster_retl.connectors.hubspot_wire import Require, post, results_of
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault, Operation, Row, RowResult


@dataclass(frozen=True, slots=True)
class BatchWriter:
    """Writes batches; batch_bytes: the most that a request may hold; fold: of an object's keys."""

    paths: Paths
    require: Require
    clean: Clean
    finder: RecordFinder
    associations: Associations
    batch_bytes: int

    def write(self, batch: Batch, fold: Fold) -> Exchange[Sequence[RowResult]]:
        """One result for each row that HubSpot answers for.

        Raises `DestinationError` for what is about more than one row: `BATCH_REJECTED` where halving tells which.
        """
        try:
            if batch.operation is Operation.DELETE:
                return (yield from self._archive(batch))
            return (yield from self._write(batch, fold))
        except DestinationError as error:
            return [_of_only_row(batch, error)]

    def _write(self, batch: Batch, fold: Fold) -> Exchange[list[RowResult]]:
        key = key_property(batch)
        drafts = drafts_of(batch, key)
        drafts, missing = yield from self._address(batch, key, drafts)
        drafts, orphans = yield from self.associations.find_parents(batch.object_name, drafts)
        results = yield from self._send(batch, key, drafts, fold)
        if batch.operation is not Operation.INSERT:
            results = yield from self.associations.link(batch.object_name, drafts, results)
        return [*results, *missing, *orphans]

    def _send(self, batch: Batch, key: str | None, drafts: Sequence[Draft], fold: Fold) -> Exchange[list[RowResult]]:
        if not drafts:
            return []
        response = yield self._request(batch, drafts)
        results, errors = results_of(self.require(response))
        by = key if batch.operation is Operation.INSERT else drafts[0].by
        ids = [draft.properties.get(by) if by else draft.id for draft in drafts]
        return read_answers(Sent([draft.row for draft in drafts], ids, by, fold), results, errors, self.clean)

    def _request(self, batch: Batch, drafts: Sequence[Draft]) -> Request:
        inputs = [draft.as_input(str(number), batch.operation) for number, draft in enumerate(drafts)]
        url = self.paths.objects(batch.object_name, "batch", VERBS[batch.operation])
        request = post(url, {"inputs": inputs}, idempotent=batch.operation is not Operation.INSERT)
        size = len(request.content or b"")
        if size > self.batch_bytes:
            raise DestinationError(
                f"the request would hold {size} bytes; batch_bytes is {self.batch_bytes}",
                code=ErrorCode.PAYLOAD_TOO_LARGE,
            )
        return request

    def _address(
        self, batch: Batch, key: str | None, drafts: Sequence[Draft]
    ) -> Exchange[tuple[list[Draft], list[RowResult]]]:
        """The drafts with what addresses their records, and the rows that address none.

        An upsert goes by the key, which HubSpot wants to be unique; so does an update, if it is: a contact's
        `email` is good enough for an upsert, but not for an update.
        """
        if key is None or batch.operation is Operation.INSERT:
            return list(drafts), []
        texts = {draft.row.key: key_text(draft.row, key) for draft in drafts}
        if key == RECORD_ID:
            return [replace(draft, id=texts[draft.row.key]) for draft in drafts], []
        if batch.operation is Operation.UPSERT or (yield from self._updates_by(batch.object_name, key)):
            return [replace(draft, id=texts[draft.row.key], by=key) for draft in drafts], []
        ids, missing = yield from self._record_ids(batch, key)
        return [replace(draft, id=ids[draft.row.key]) for draft in drafts if draft.row.key in ids], missing

    def _updates_by(self, object_name: str, key: str) -> Exchange[bool]:
        if is_email_of_contact(object_name, key):
            return False
        return (yield from self.finder.is_unique(object_name, key))

    def _record_ids(self, batch: Batch, key: str) -> Exchange[tuple[Mapping[str, str], list[RowResult]]]:
        """Row key → record id, kept from an earlier write or else looked up; and the rows that have none."""
        known = {row.key: row.record_id for row in batch.rows if row.record_id}
        wanted = {row.key: key_text(row, key) for row in batch.rows if row.key not in known}
        found = yield from self.finder.ids(batch.object_name, key, wanted.values())
        matches = {row_key: found.get(text, ()) for row_key, text in wanted.items()}
        missing = [
            RowResult(row_key, _not_one(batch.object_name, key, wanted[row_key], len(ids)))
            for row_key, ids in matches.items()
            if len(ids) != 1
        ]
        return known | {row_key: ids[0] for row_key, ids in matches.items() if len(ids) == 1}, missing

    def _archive(self, batch: Batch) -> Exchange[list[RowResult]]:
        """HubSpot answers for all records at once, and does not mind those that are gone already."""
        key = key_property(batch)
        ids: Mapping[str, str] = {}
        missing: list[RowResult] = []
        if key == RECORD_ID:
            ids = {row.key: key_text(row, key) for row in batch.rows}
        elif key is not None:
            ids, missing = yield from self._record_ids(batch, key)
        rows = [row for row in batch.rows if row.key in ids]
        results = yield from self._archive_all(batch.object_name, rows, ids)
        return [*results, *map(_gone_is_deleted, missing)]

    def _archive_all(self, object_name: str, rows: Sequence[Row], ids: Mapping[str, str]) -> Exchange[list[RowResult]]:
        if not rows:
            return []
        inputs = [{"id": record_id} for record_id in dict.fromkeys(ids[row.key] for row in rows)]
        response = self.require((yield post(self.paths.objects(object_name, "batch", "archive"), {"inputs": inputs})))
        if response.status_code == 204:
            return [RowResult(row.key, record_id=ids[row.key], unconfirmed=True) for row in rows]
        results, errors = results_of(response)
        sent = Sent(rows, [ids[row.key] for row in rows], None, str)
        return [_gone_is_deleted(each) for each in read_answers(sent, results, errors, self.clean)]


def _gone_is_deleted(result: RowResult) -> RowResult:
    gone = result.fault is not None and result.fault.code is ErrorCode.NOT_FOUND
    return RowResult(result.key) if gone else result


def _not_one(object_name: str, key: str, value: str, found: int) -> Fault:
    if found:
        message = f"{found} {object_name} have {key} {value!r}: which one is meant?"
        return Fault(ErrorCode.CONFLICT, message)
    return Fault(ErrorCode.NOT_FOUND, f"there are no {object_name} with {key} {value!r}")


def _of_only_row(batch: Batch, error: DestinationError) -> RowResult:
    """A refusal as the answer for a batch of one row; raised where it is about more than a row."""
    if ACTIONS[error.code] not in (Action.REJECT, Action.SPLIT):
        raise error
    if len(batch.rows) > 1:
        large = error.code is ErrorCode.PAYLOAD_TOO_LARGE
        raise DestinationError(
            error.message,
            code=error.code if large else ErrorCode.BATCH_REJECTED,
            vendor_code=error.vendor_code,
            ambiguous=error.ambiguous,
        ) from error
    (row,) = batch.rows
    result = RowResult(row.key, Fault(_code_of_row(error), error.message, error.vendor_code))
    return _gone_is_deleted(result) if batch.operation is Operation.DELETE else result


def _code_of_row(error: DestinationError) -> ErrorCode:
    code = error.of_row if isinstance(error, HubSpotError) else error.code
    return ErrorCode.DESTINATION_VALIDATION if code is ErrorCode.BATCH_REJECTED else code
