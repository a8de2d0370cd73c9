"""What can go wrong, and what the program does about it.

A row's failure is a value (`Fault`, in `model.rows`); a run's failure is an exception of this tree:

    RetlError                  every error of this package: code, message, hint
    ├── ConfigurationError     retl.yaml, a mapping, a mode, a setting
    ├── SourceError            the warehouse: unreachable, a bad query, a missing column
    ├── DestinationError       the destination refused, or could not answer, a request
    ├── GuardTrippedError      a guard stopped the run
    ├── StoreError             the store is older or newer than the code, or cannot be read
    ├── StateMissingError      a snapshot generation that the store names cannot be read
    ├── LeaseHeldError         another run of this sync is alive
    ├── LeaseLostError         this run no longer owns its sync
    ├── CancelledError         somebody stopped the run
    ├── ConflictError          a name that is taken, a sync that a file owns, a run that is under way
    └── NotFoundError          no sync, run, destination or dead letter of that name
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType


class ErrorCode(StrEnum):
    """The reason for a failure, as people see it in dead letters, runs and the API."""

    RATE_LIMIT = "RATE_LIMIT"
    DESTINATION_UNAVAILABLE = "DESTINATION_UNAVAILABLE"
    DESTINATION_LOCKED = "DESTINATION_LOCKED"
    TIMEOUT = "TIMEOUT"

    DESTINATION_VALIDATION = "DESTINATION_VALIDATION"
    MISSING_REQUIRED_FIELD = "MISSING_REQUIRED_FIELD"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    MAPPING_ERROR = "MAPPING_ERROR"
    TYPE_COERCION = "TYPE_COERCION"
    MISSING_KEY = "MISSING_KEY"
    DUPLICATE_SOURCE_KEY = "DUPLICATE_SOURCE_KEY"
    UNKNOWN = "UNKNOWN"

    BATCH_REJECTED = "BATCH_REJECTED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"

    AUTH = "AUTH"
    PERMISSION = "PERMISSION"
    QUOTA_EXHAUSTED = "QUOTA_EXHAUSTED"
    SCHEMA_DRIFT = "SCHEMA_DRIFT"
    DESTINATION_DOWN = "DESTINATION_DOWN"
    SOURCE_UNAVAILABLE = "SOURCE_UNAVAILABLE"
    SOURCE_QUERY = "SOURCE_QUERY"
    SOURCE_COLUMN_MISSING = "SOURCE_COLUMN_MISSING"
    GUARD_TRIPPED = "GUARD_TRIPPED"
    CONFIGURATION = "CONFIGURATION"
    STORE_VERSION = "STORE_VERSION"
    STATE_MISSING = "STATE_MISSING"
    STATE_UNAVAILABLE = "STATE_UNAVAILABLE"
    LEASE_HELD = "LEASE_HELD"
    LEASE_LOST = "LEASE_LOST"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"

    UNKNOWN_OUTCOME = "UNKNOWN_OUTCOME"


class Action(StrEnum):
    """What the engine does about a code."""

    RETRY = "retry"
    """Send these rows again, with backoff."""
    REJECT = "reject"
    """Open a dead letter for the row; the others go on."""
    SPLIT = "split"
    """Halve the batch and send the halves; a single row is rejected."""
    ABORT = "abort"
    """End the run; hold snapshot and watermark; no dead letters for the rest."""
    SUSPECT = "suspect"
    """The destination may or may not hold this row: remember that."""


_CODES_BY_ACTION: Mapping[Action, tuple[ErrorCode, ...]] = {
    Action.RETRY: (
        ErrorCode.RATE_LIMIT,
        ErrorCode.DESTINATION_UNAVAILABLE,
        ErrorCode.DESTINATION_LOCKED,
        ErrorCode.TIMEOUT,
    ),
    Action.REJECT: (
        ErrorCode.DESTINATION_VALIDATION,
        ErrorCode.MISSING_REQUIRED_FIELD,
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
        ErrorCode.MAPPING_ERROR,
        ErrorCode.TYPE_COERCION,
        ErrorCode.MISSING_KEY,
        ErrorCode.DUPLICATE_SOURCE_KEY,
        ErrorCode.UNKNOWN,
    ),
    Action.SPLIT: (ErrorCode.BATCH_REJECTED, ErrorCode.PAYLOAD_TOO_LARGE),
    Action.SUSPECT: (ErrorCode.UNKNOWN_OUTCOME,),
}

ACTIONS: Mapping[ErrorCode, Action] = MappingProxyType(
    dict.fromkeys(ErrorCode, Action.ABORT)
    | {code: action for action, codes in _CODES_BY_ACTION.items() for code in codes}
)
"""Every code has exactly one action; codes that are not about rows abort the run."""


class RetlError(Exception):
    """An error that names what is wrong, where, and (`hint`) what to do about it."""

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, *, hint: str | None = None, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ConfigurationError(RetlError):
    """Something that a person wrote is wrong: retl.yaml, a mapping, a mode, a setting."""

    code = ErrorCode.CONFIGURATION


class SourceError(RetlError):
    """The warehouse cannot be reached, or refuses the query."""

    code = ErrorCode.SOURCE_QUERY


class DestinationError(RetlError):
    """The destination refused a whole request, or could not answer it.

    `code` decides what happens next (`ACTIONS`). `vendor_code` and `message` are the
    vendor's own; `ambiguous` says that the request may have been applied all the same.
    """

    code = ErrorCode.DESTINATION_UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode,
        vendor_code: str | None = None,
        ambiguous: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.vendor_code = vendor_code
        self.ambiguous = ambiguous


class GuardTrippedError(RetlError):
    """A guard stopped the run before (or, for `failures`, during) delivery."""

    code = ErrorCode.GUARD_TRIPPED

    def __init__(self, message: str, *, guard: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.guard = guard


class StoreError(RetlError):
    """The store cannot be used by this version of the code."""

    code = ErrorCode.STORE_VERSION


class StateMissingError(RetlError):
    """The store names a snapshot generation that is missing or differs from what was written."""

    code = ErrorCode.STATE_MISSING


class LeaseHeldError(RetlError):
    """Another run of the same sync is alive; `run_id` is that run, `since` when it started."""

    code = ErrorCode.LEASE_HELD

    def __init__(self, message: str, *, run_id: str, since: datetime, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id
        self.since = since


class LeaseLostError(RetlError):
    """This run's lease expired and another process took it: it must not write any more."""

    code = ErrorCode.LEASE_LOST


class CancelledError(RetlError):
    """The run was asked to stop and did so at a batch boundary."""

    code = ErrorCode.CANCELLED


class ConflictError(RetlError):
    """What is asked does not go with how things stand; `subject`: the id of what is in the way."""

    code = ErrorCode.CONFLICT

    def __init__(self, message: str, *, subject: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.subject = subject


class VersionMismatchError(ConflictError):
    """The sync was changed since the version that this is a change of."""


class NotFoundError(RetlError):
    """There is no sync, run, destination, warehouse or dead letter with this name or id."""

    code = ErrorCode.NOT_FOUND
