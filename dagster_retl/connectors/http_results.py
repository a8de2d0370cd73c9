"""What an answer of 2xx says about each row of a request to a custom destination."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import orjson

from dagster_retl.connectors.http_config import Results
from dagster_retl.connectors.http_url import text_of
from dagster_retl.connectors.http_words import Wording, dig, find_words
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import AllAccepted, Batch, Fault, Operation, RowResult

_BOM = b"\xef\xbb\xbf"


def read_results(
    batch: Batch, response: httpx.Response, results: Results | None, wording: Wording
) -> Sequence[RowResult]:
    """One result for each row that an answer of 2xx speaks of, in the batch's order.

    Without `results` a single row is confirmed by the status; many rows, and statuses that stand
    for a later or a mixed outcome (202, 207), are accepted unconfirmed. Where `results` say that
    each row has an entry, one that has none is left out.

    Raises `DestinationError`: ambiguous `DESTINATION_UNAVAILABLE` for an answer that cannot be
    read (a page of HTML always), ambiguous `BATCH_REJECTED` for an error that names no row of this batch.
    """
    if response.content.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise _unreadable(response.status_code, "a page of HTML")  # a login page, or a gateway's
    if results is None:
        confirmed = len(batch.rows) == 1 and response.status_code not in (202, 207)
        return AllAccepted(batch.rows, unconfirmed=not confirmed)
    if response.status_code == 204:
        return AllAccepted(batch.rows)
    return _AnswerReader(batch, results, wording).read(_json_of(response), response.status_code)


def _unreadable(status: int, what: str) -> DestinationError:
    return DestinationError(
        f"the destination answered {status} with {what}: nobody can tell what became of the rows",
        code=ErrorCode.DESTINATION_UNAVAILABLE,
        ambiguous=True,
        hint="If this is how the service answers, adapt or remove `results`; otherwise check `url`.",
    )


def _json_of(response: httpx.Response) -> Any:
    content = response.content.removeprefix(_BOM)
    if not content:
        raise _unreadable(response.status_code, "an empty body")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        kind = response.headers.get("Content-Type", "no content type").partition(";")[0][:60]
        raise _unreadable(response.status_code, f"something that is not JSON ({kind})") from error


@dataclass(frozen=True)
class _AnswerReader:
    batch: Batch
    results: Results
    wording: Wording

    def read(self, body: Any, status: int) -> Sequence[RowResult]:
        if self.results.errors_path and self.results.rows_path is None and not isinstance(body, Mapping):
            raise _unreadable(status, f"JSON that cannot hold {self.results.errors_path!r}")
        faults: dict[int, Fault] = {}
        for error in _items(dig(body, self.results.errors_path)):
            faults.setdefault(self._require_row(error), self._fault(error))
        answered = self._read_entries(body, status, faults)
        ids = dict(self._record_ids(body))
        if not faults and not ids and len(answered) == len(self.batch.rows):
            return AllAccepted(self.batch.rows)
        return [
            self._result(row.key, faults.get(number), ids.get(number))
            for number, row in enumerate(self.batch.rows)
            if number in answered or number in faults
        ]

    def _read_entries(self, body: Any, status: int, faults: dict[int, Fault]) -> Collection[int]:
        """The rows that have an entry; `faults` gets those that were not written. All, where rows have none."""
        if self.results.rows_path is None:
            return range(len(self.batch.rows))
        entries = _items(dig(body, self.results.rows_path))
        by_position = not any(map(self._names_a_row, entries))
        if by_position and len(entries) != len(self.batch.rows) and (entries or not faults):
            raise _unreadable(status, f"{len(entries)} entries for {len(self.batch.rows)} rows, of which none is named")
        answered = set()
        for position, entry in enumerate(entries):
            row = self._answered_row(entry, position if by_position else None)
            if row is not None:
                answered.add(row)
                if not self._written(entry):
                    faults.setdefault(row, self._fault(entry))
        return answered

    def _answered_row(self, entry: Any, position: int | None) -> int | None:
        """The row of an entry; a failure must have one, a success without one says nothing."""
        if entry is None:
            return None
        if position is not None:
            return position
        return self._row_of(entry) if self._written(entry) else self._require_row(entry)

    def _written(self, entry: Any) -> bool:
        if self.results.success_field is None:
            return True
        value = dig(entry, self.results.success_field)
        return value is not None and text_of(value).lower() in self.results.success_values

    def _names_a_row(self, entry: Any) -> bool:
        names = (self.results.index_field, self.results.key_field)
        return any(dig(entry, name) is not None for name in names if name)

    def _result(self, key: str, fault: Fault | None, record_id: str | None) -> RowResult:
        if fault and fault.code is ErrorCode.NOT_FOUND and self.batch.operation is Operation.DELETE:
            fault = None  # it is gone, which is what was asked for
        return RowResult(key, fault, None if fault else record_id)

    def _require_row(self, error: Any) -> int:
        row = self._row_of(error)
        if row is not None:
            return row
        if len(self.batch.rows) == 1:
            return 0
        fault = self._fault(error)
        raise DestinationError(
            f"an error in the answer names no row that was sent: {fault.message}",
            code=ErrorCode.BATCH_REJECTED,
            vendor_code=fault.vendor_code,
            ambiguous=True,
        )

    def _row_of(self, item: Any) -> int | None:
        index = _index(dig(item, self.results.index_field)) if self.results.index_field else None
        if index is not None:
            return index if index < len(self.batch.rows) else None
        key = dig(item, self.results.key_field) if self.results.key_field else None
        if key is None or isinstance(key, Mapping | list):
            return None
        return self._rows_by_key.get(text_of(key))

    @cached_property
    def _rows_by_key(self) -> dict[str, int | None]:
        """Row numbers by the text of the key field; None for a value that several rows share."""
        rows: dict[str, int | None] = {}
        name = self._key_name()
        for number, row in enumerate(self.batch.rows):
            if name in row.key_values:
                text = text_of(row.key_values[name])
                rows[text] = None if text in rows else number
        return rows

    def _key_name(self) -> str:
        """The key field whose values errors repeat: the one called like `key_field`, else the only one there is."""
        names = self.batch.key_fields
        return names[0] if len(names) == 1 else self.results.key_field or ""

    def _fault(self, error: Any) -> Fault:
        code, message = find_words(error)
        if self.results.code_field and isinstance(own := dig(error, self.results.code_field), str | int):
            code = str(own)
        if isinstance(own := dig(error, self.results.message_field), str):
            message = own
        kind = self.results.codes.get(code or "", ErrorCode.DESTINATION_VALIDATION)
        words = self.wording.clean(message or code or "refused without a reason")
        return Fault(kind, words, self.wording.clean(code, 80) if code else None)

    def _record_ids(self, body: Any) -> Iterator[tuple[int, str]]:
        if self.results.id_field is None:
            return
        path = self.results.rows_path if self.results.id_path is None else self.results.id_path
        items = _items(dig(body, path or ""))
        by_position = len(items) == len(self.batch.rows)
        for position, item in enumerate(items):
            record_id = dig(item, self.results.id_field)
            row = self._row_of(item)
            row = position if row is None and by_position else row
            if row is not None and isinstance(record_id, str | int):
                yield row, str(record_id)


def _items(value: Any) -> list[Any]:
    """A list as it is, one thing as a list of it, nothing (also `false`, `{}`, `""`) as an empty list."""
    if isinstance(value, list):
        return value
    return [value] if value else []


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and value >= 0 else None
