"""What carries one batch over the wire, once, and says what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dagster_retl.connectors.base import Connector, DirectConnector
from dagster_retl.engine.transport import ATTEMPTS, Traffic, Transport, backoff
from dagster_retl.engine.turns import Turns
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode, RetlError
from dagster_retl.model.rows import Batch, RowResult


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for (a part of) a batch: results, or the fault of the whole.

    An error that is none of the destination's (a lost lease) ends the run. ambiguous: some attempt may
    have been applied, whatever came of the last one.
    """

    results: Sequence[RowResult] = ()
    error: RetlError | None = None
    ambiguous: bool = False


class Writer(Protocol):
    """Sends a batch once, as far as the wire goes, and says what is known of it."""

    traffic: Traffic

    def write(self, batch: Batch) -> Reply: ...
    def close(self) -> None: ...


class HttpWriter:
    """Writes by conversation, over a client of its own."""

    def __init__(self, connector: Connector, transport: Transport) -> None:
        self._connector = connector
        self._transport = transport
        self.traffic = transport.traffic

    def write(self, batch: Batch) -> Reply:
        try:
            results = self._transport.run(self._connector.write(batch))
        except RetlError as error:
            return Reply(error=error, ambiguous=self._transport.ambiguous)
        return Reply(results, ambiguous=self._transport.ambiguous)

    def close(self) -> None:
        self._transport.close()


class DirectWriter:
    """Writes by a blocking call, tried again while nothing can have been applied."""

    def __init__(self, connector: DirectConnector, turns: Turns) -> None:
        self._connector = connector
        self._turns = turns
        self.traffic = Traffic()

    def write(self, batch: Batch) -> Reply:
        ambiguous = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return Reply(self._attempt(batch), ambiguous=ambiguous)
            except DestinationError as error:
                ambiguous = ambiguous or error.ambiguous
                if attempt == ATTEMPTS or not self._may_resend(batch, error) or self._turns.stop.wait(backoff(attempt)):
                    return Reply(error=error, ambiguous=ambiguous)
            except RetlError as error:
                return Reply(error=error, ambiguous=ambiguous)
            self.traffic.retries += 1
        raise AssertionError("the last attempt returns")

    def _attempt(self, batch: Batch) -> Sequence[RowResult]:
        with self._turns.taken() as turn:
            self.traffic.requests += 1
            try:
                results = self._connector.write(batch)
            except DestinationError as error:
                turn.permit.well = False if error.code is ErrorCode.RATE_LIMIT else None
                raise
            turn.permit.well = True
            return results

    def _may_resend(self, batch: Batch, error: DestinationError) -> bool:
        """A rate limit is no attempt: it is waited for by the dispatch."""
        safe = self._connector.idempotent(batch.operation) or not error.ambiguous
        return ACTIONS[error.code] is Action.RETRY and error.code is not ErrorCode.RATE_LIMIT and safe

    def close(self) -> None:
        """The connector is shared; whoever made it closes it."""
