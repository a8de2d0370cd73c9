"""What the refusal of a request means for the rows that were in it."""

from __future__ import annotations

from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Fault, Operation, RowResult


def result_of_only_row(batch: Batch, error: DestinationError) -> RowResult:
    """A refusal as the answer for a batch of one row; raised where it concerns more than a row."""
    if ACTIONS[error.code] not in (Action.REJECT, Action.SPLIT):
        raise error
    if len(batch.rows) > 1:
        if ACTIONS[error.code] is Action.SPLIT:
            raise error
        raise DestinationError(
            error.message, code=ErrorCode.BATCH_REJECTED, vendor_code=error.vendor_code, ambiguous=error.ambiguous
        ) from error
    (row,) = batch.rows
    if error.code is ErrorCode.NOT_FOUND and batch.operation is Operation.DELETE:
        return RowResult(row.key)
    code = ErrorCode.DESTINATION_VALIDATION if error.code is ErrorCode.BATCH_REJECTED else error.code
    return RowResult(row.key, Fault(code, error.message, error.vendor_code))
