"""Sending one batch until each of its rows has an answer: halving, trying again, giving up honestly."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dagster_retl.changes.outcomes import Status
from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.answers import NOT_SENT, UNCONFIRMED, WRITTEN, Answer
from dagster_retl.engine.breaker import Breaker
from dagster_retl.engine.transport import PATIENCE, backoff
from dagster_retl.engine.writers import Reply, Writer
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode, RetlError
from dagster_retl.model.rows import AllAccepted, Batch, Fault, Operation, Row, RowResult

ROW_ATTEMPTS = 5
"""How often a row that the destination has locked is sent within one run."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a batch that still want an answer, by position.

    throttles, waited: how often they met a rate limit, and the seconds that this took.
    """

    positions: tuple[int, ...]
    tries: int = 0
    throttles: int = 0
    waited: float = 0.0
    ambiguous: frozenset[int] = frozenset()


class Dispatch:
    """One batch on its way. `abort` is the error that ends the run, if one came up.

    warnings: what the destination said of rows that it accepted, and of how many.
    pause: lets everybody who sends to the account wait for so many seconds.
    """

    def __init__(
        self,
        batch: Batch,
        writer: Writer,
        connector: AnyConnector,
        breaker: Breaker,
        stop: threading.Event,
        *,
        pause: Callable[[float], None] = lambda seconds: None,
        gone_is_failure: bool = False,
    ) -> None:
        self._pause = pause
        self._batch = batch
        self._writer = writer
        self._breaker = breaker
        self._stop = stop
        self._gone_is_failure = gone_is_failure
        self._idempotent = connector.idempotent(batch.operation)
        self._may_split = self._idempotent or connector.atomic_rejection
        self._answers_before = breaker.answers
        self._took = 0.0
        self._answers: list[Answer] = [NOT_SENT] * len(batch.rows)
        self.abort: RetlError | None = None
        self.warnings: Counter[str] = Counter()

    def send(self) -> list[Answer]:
        """Answers in the order of the rows; those that were not sent any more say so."""
        parts = [_Part(tuple(range(len(self._batch.rows))))]
        while parts and self.abort is None and not self._stop.is_set():
            part = parts.pop()
            began = time.monotonic()
            reply = self._writer.write(self._rows_of(part))
            self._took = time.monotonic() - began
            part = replace(part, ambiguous=part.ambiguous | (set(part.positions) if reply.ambiguous else set()))
            parts.extend(reversed(self._settle(part, reply)))
        for part in parts:
            self._answer_unsent(part)
        return self._answers

    def _rows_of(self, part: _Part) -> Batch:
        if len(part.positions) == len(self._batch.rows):
            return self._batch
        rows = [self._batch.rows[position] for position in part.positions]
        key = f"{self._batch.idempotency_key}-{part.positions[0]}-{len(rows)}" if self._batch.idempotency_key else ""
        return replace(self._batch, rows=rows, idempotency_key=key)

    def _settle(self, part: _Part, reply: Reply) -> list[_Part]:
        """Answer what can be answered; return what has to be sent again."""
        error = reply.error
        if error is None:
            self._breaker.answered()
            return self._settle_rows(part, reply.results)
        action = ACTIONS[error.code]
        if action is Action.ABORT or not isinstance(error, DestinationError):
            self.abort = error
            self._answer_unsent(part)
            return []
        if action is Action.SUSPECT or (error.ambiguous and not self._idempotent):
            self._answer_unknown(part, error.message)
            return []
        if action is Action.RETRY:
            return self._settle_outage(part, error)
        self._breaker.answered()
        return self._settle_refusal(part, error)

    def _settle_refusal(self, part: _Part, error: DestinationError) -> list[_Part]:
        fault = Fault(error.code, error.message, error.vendor_code)
        if len(part.positions) == 1:
            self._settle_rows(part, [RowResult(self._row(part.positions[0]).key, _of_row(fault))])
            return []
        if self._may_split:
            return _halves(part)
        self._answer_unknown(part, f"a batch of inserts was refused as a whole: {error.message}")
        return []

    def _settle_outage(self, part: _Part, error: DestinationError) -> list[_Part]:
        if self._stop.is_set():  # it may be over in a moment, but this run does not wait for that any more
            self._answer_unsent(part)
            return []
        if error.code is ErrorCode.RATE_LIMIT and self._patient(part):
            return [self._throttled(part)]
        if error.code is ErrorCode.DESTINATION_LOCKED and part.tries + 1 < ROW_ATTEMPTS:
            return [self._later(part)]
        answered = error.code is ErrorCode.DESTINATION_UNAVAILABLE and error.ambiguous
        silent_since = None if answered else self._answers_before
        if error.code is not ErrorCode.RATE_LIMIT and (down := self._breaker.outage(error, silent_since=silent_since)):
            self.abort = down
            self._answer_unsent(part)
            return []
        if answered and len(part.positions) > 1 and self._idempotent:
            return _halves(part)
        fault = Fault(error.code, error.message, error.vendor_code)
        for position in part.positions:
            self._answer(position, Answer(Status.FAILED, fault, ambiguous=position in part.ambiguous))
        return []

    def _settle_rows(self, part: _Part, results: Sequence[RowResult]) -> list[_Part]:
        if isinstance(results, AllAccepted) and len(results) == len(self._answers) and not part.ambiguous:
            self._answers = [UNCONFIRMED if results.unconfirmed else WRITTEN] * len(results)
            return []
        self.warnings.update(result.warning for result in results if result.warning)
        by_key = {result.key: result for result in results}
        found = {position: by_key.get(self._row(position).key) for position in part.positions}
        timed_out = {position for position, result in found.items() if _code(result) is ErrorCode.TIMEOUT}
        part = replace(part, ambiguous=part.ambiguous | timed_out)
        again: list[int] = []
        throttled: list[int] = []
        for position, result in found.items():
            if result is None or (position in timed_out and not self._idempotent):
                self._answer_unknown(
                    replace(part, positions=(position,)), "the destination did not answer for this row"
                )
            elif _code(result) is ErrorCode.RATE_LIMIT and self._patient(part):
                throttled.append(position)
            elif _does(result, Action.RETRY) and part.tries + 1 < ROW_ATTEMPTS:
                again.append(position)
            elif _does(result, Action.ABORT):
                self._abort_for(replace(part, positions=(position,)), result)
            else:
                self._answer(position, self._answer_of(result, ambiguous=position in part.ambiguous))
        parts = [self._throttled(replace(part, positions=tuple(throttled)))] if throttled else []
        return [*parts, *([self._later(replace(part, positions=tuple(again)))] if again else [])]

    def _abort_for(self, part: _Part, result: RowResult) -> None:
        fault = result.fault
        if fault is not None:
            self.abort = DestinationError(fault.message, code=fault.code, vendor_code=fault.vendor_code)
            self._answer_unsent(part)

    def _answer_of(self, result: RowResult, *, ambiguous: bool) -> Answer:
        fault = result.fault
        operation = self._batch.operation
        if fault is None or (fault.code is ErrorCode.NOT_FOUND and operation is Operation.DELETE):
            status = Status.UNCONFIRMED if result.unconfirmed else Status.WRITTEN
            return Answer(status, record_id=result.record_id, ambiguous=ambiguous)
        if fault.code is ErrorCode.NOT_FOUND and operation is Operation.UPDATE:
            return Answer(Status.GONE if self._gone_is_failure else Status.MISSING, fault, ambiguous=ambiguous)
        if operation is Operation.INSERT and ambiguous and fault.code is ErrorCode.CONFLICT:
            return self._unknown(f"refused as a duplicate after an attempt without answer: {fault.message}")
        if fault.code is ErrorCode.UNKNOWN_OUTCOME:
            return self._unknown(fault.message)
        return Answer(Status.FAILED, _of_row(fault), ambiguous=ambiguous)

    def _later(self, part: _Part) -> _Part:
        self._writer.traffic.retries += 1
        self._stop.wait(backoff(part.tries + 1))
        return replace(part, tries=part.tries + 1)

    def _patient(self, part: _Part) -> bool:
        """Whether rows that met a rate limit go on waiting; what the writer waited counts as well."""
        return part.waited + self._took < PATIENCE and not self._stop.is_set()

    def _throttled(self, part: _Part) -> _Part:
        """No attempt: the destination has not looked at these rows."""
        seconds = max(0.5, backoff(part.throttles + 1))
        self._pause(seconds)
        self._stop.wait(seconds)
        return replace(part, throttles=part.throttles + 1, waited=part.waited + self._took + seconds)

    def _answer_unsent(self, part: _Part) -> None:
        """The run ends here: rows that may have been applied are unknown, the others were not sent."""
        for position in part.positions:
            if position in part.ambiguous:
                unknown = Answer(Status.UNKNOWN, ambiguous=True)
                self._answer(
                    position, unknown if self._idempotent else self._unknown("the run ended without an answer")
                )

    def _answer_unknown(self, part: _Part, message: str) -> None:
        for position in part.positions:
            self._answer(position, self._unknown(message))

    def _unknown(self, message: str) -> Answer:
        fault = Fault(ErrorCode.UNKNOWN_OUTCOME, message)
        return Answer(Status.FAILED, fault, ambiguous=True, held=not self._idempotent)

    def _answer(self, position: int, answer: Answer) -> None:
        self._answers[position] = answer

    def _row(self, position: int) -> Row:
        return self._batch.rows[position]


def _code(result: RowResult | None) -> ErrorCode | None:
    return result.fault.code if result is not None and result.fault is not None else None


def _does(result: RowResult, action: Action) -> bool:
    return result.fault is not None and ACTIONS[result.fault.code] is action


def _of_row(fault: Fault) -> Fault:
    """A refusal of a batch, seen as the refusal of its only row."""
    if fault.code is ErrorCode.BATCH_REJECTED:
        return replace(fault, code=ErrorCode.DESTINATION_VALIDATION)
    return fault


def _halves(part: _Part) -> list[_Part]:
    middle = len(part.positions) // 2
    return [
        replace(part, positions=part.positions[:middle], tries=0),
        replace(part, positions=part.positions[middle:], tries=0),
    ]
