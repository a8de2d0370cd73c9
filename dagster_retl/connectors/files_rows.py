"""The columns of a batch's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch

OPERATION = "_operation"
"""The column that says what is done with a row, where it is asked for; the first one."""


def column_names(batch: Batch, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The fields of a batch in mapping order: the sender's columns, else those that any of the rows has."""
    if batch.columns is not None:
        return list(batch.columns.column_names)
    return _merged(dict.fromkeys(tuple(row) for row in rows))


def _merged(sequences: Iterable[Sequence[str]]) -> list[str]:
    """All names, each behind the one that it follows in its sequence."""
    names: list[str] = []
    for sequence in sequences:
        place = 0
        for name in sequence:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names


def require_free(batch: Batch, names: Iterable[str]) -> None:
    """Raises `DestinationError` where a field has the name of the operation's column."""
    if OPERATION in names:
        raise DestinationError(
            f"a field of {batch.object_name!r} is called {OPERATION!r}, as is the column that `operation_column` adds",
            code=ErrorCode.CONFIGURATION,
            hint="Map it to another name, or leave `operation_column` out.",
        )
