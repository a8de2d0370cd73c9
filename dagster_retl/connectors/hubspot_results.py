"""What the answer to a batch says of each row.

Answers come in another order than rows were sent. An error names its row by `objectWriteTraceId`, or by the id that
its input had; a result by `objectWriteTraceId`, by the value of the key property, or by the id. Results that name
nothing are counted: where there are as many of them as rows that nothing was said of, these rows were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster_retl.connectors.hubspot_errors import complaint_of
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Fault, Row, RowResult

Clean = Callable[[str], str]
"""Makes a vendor's text fit for a message."""
Fold = Callable[[str], str]
"""The form in which two values of a key are one."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Rows as they were sent: the input of row n had the trace id `str(n)` and the id `ids[n]`, if any.

    key: the property that the ids are values of; None where they are record ids.
    """

    rows: Sequence[Row]
    ids: Sequence[str | None]
    key: str | None
    fold: Fold


@dataclass(slots=True)
class Verdicts:
    """What is known of rows, by their number. nameless: errors that name no row; spare: results that name none."""

    faults: dict[int, Fault] = field(default_factory=dict)
    written: dict[int, str | None] = field(default_factory=dict)
    nameless: list[Fault] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)


def read_answers(
    sent: Sent, results: Sequence[Mapping[str, Any]], errors: Sequence[Mapping[str, Any]], clean: Clean
) -> list[RowResult]:
    """One result for each row that the answer speaks of.

    Raises an ambiguous `BATCH_REJECTED` where some rows were written and some not, and nobody can tell which.
    """
    verdicts = Verdicts()
    _read_errors(sent, errors, clean, verdicts)
    _read_results(sent, results, verdicts)
    _settle_rest(sent, verdicts)
    return [
        RowResult(row.key, verdicts.faults.get(number), verdicts.written.get(number))
        for number, row in enumerate(sent.rows)
        if number in verdicts.faults or number in verdicts.written
    ]


def fault_of(error: Mapping[str, Any], clean: Clean) -> Fault:
    """An error of an answer as the fault of a row."""
    complaint = complaint_of(error)
    message = complaint.message or "refused without a reason"
    return Fault(complaint.of_row, clean(message), complaint.vendor_code)


def _read_errors(sent: Sent, errors: Sequence[Mapping[str, Any]], clean: Clean, verdicts: Verdicts) -> None:
    places = _places(sent)
    for error in errors:
        fault = fault_of(error, clean)
        named = [number for number in _rows_of_error(error, sent, places) if number is not None]
        for number in named:
            verdicts.faults.setdefault(number, fault)
        if not named:
            verdicts.nameless.append(fault)


def _places(sent: Sent) -> Mapping[str, int]:
    return {sent.fold(id_): number for number, id_ in enumerate(sent.ids) if id_ is not None}


def _rows_of_error(error: Mapping[str, Any], sent: Sent, places: Mapping[str, int]) -> Iterator[int | None]:
    context = error.get("context")
    context = context if isinstance(context, Mapping) else {}
    traces = context.get("objectWriteTraceId") or ()
    yield from (_row_of_trace(trace, sent) for trace in traces)
    if not traces:
        yield from (places.get(sent.fold(str(id_))) for id_ in context.get("ids") or ())


def _row_of_trace(trace: Any, sent: Sent) -> int | None:
    text = str(trace)
    return int(text) if text.isascii() and text.isdigit() and int(text) < len(sent.rows) else None


def _read_results(sent: Sent, results: Sequence[Mapping[str, Any]], verdicts: Verdicts) -> None:
    places = _places(sent)
    for result in results:
        record_id = str(result.get("id") or "")
        number = _row_of_result(result, record_id, sent, places)
        if number is None or number in verdicts.written:
            verdicts.spare.append(record_id)
        elif number not in verdicts.faults:
            verdicts.written[number] = record_id or None


def _row_of_result(result: Mapping[str, Any], record_id: str, sent: Sent, places: Mapping[str, int]) -> int | None:
    """By trace id, or else by what `ids` are: values of the key, or record ids. One is never taken for the other."""
    if (trace := result.get("objectWriteTraceId")) is not None:
        return _row_of_trace(trace, sent)
    if sent.key is None:
        return places.get(sent.fold(record_id))
    properties = result.get("properties")
    value = properties.get(sent.key) if isinstance(properties, Mapping) else None
    return None if value is None else places.get(sent.fold(str(value)))


def _settle_rest(sent: Sent, verdicts: Verdicts) -> None:
    """Rows that nothing names, from what else is left over."""
    open_rows = [n for n in range(len(sent.rows)) if n not in verdicts.written and n not in verdicts.faults]
    if not open_rows:
        return
    if verdicts.nameless and verdicts.spare:
        fault = verdicts.nameless[0]
        raise DestinationError(
            fault.message, code=ErrorCode.BATCH_REJECTED, vendor_code=fault.vendor_code, ambiguous=True
        )
    if verdicts.nameless:
        verdicts.faults.update(dict.fromkeys(open_rows, verdicts.nameless[0]))
    elif len(verdicts.spare) == len(open_rows):
        ids = verdicts.spare if len(open_rows) == 1 else [""] * len(open_rows)
        verdicts.written.update({number: id_ or None for number, id_ in zip(open_rows, ids, strict=True)})
