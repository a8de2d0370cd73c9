"""How a run ends, apart from its rows."""

from __future__ import annotations

from dataclasses import dataclass

from dagster_retl.errors import ErrorCode, RetlError
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.runs import RunStatus


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends, apart from its rows."""

    status: RunStatus
    error_code: str | None = None
    error_message: str | None = None
    guard: str | None = None
    warnings: tuple[str, ...] = ()
    source_rows: int | None = None


INTERRUPTED = Ending(RunStatus.FAILED, ErrorCode.INTERRUPTED, "the process of this run ended before the run did")
"""How a run ends that could not say how it ended."""


def ending_of(error: BaseException, redact: Redactor) -> Ending:
    """How a run ends that this error ended. What is not an `Exception` is an order to stop."""
    if isinstance(error, RetlError):
        status = RunStatus.CANCELLED if error.code is ErrorCode.CANCELLED else RunStatus.FAILED
        guard = getattr(error, "guard", None)
        return Ending(status, error.code, redact(str(error)), guard=str(guard) if guard else None)
    if isinstance(error, Exception):
        return Ending(RunStatus.FAILED, ErrorCode.INTERNAL, redact(f"{type(error).__name__}: {error}"))
    return Ending(RunStatus.CANCELLED, ErrorCode.CANCELLED, "stopped by a signal, or from Dagster")
