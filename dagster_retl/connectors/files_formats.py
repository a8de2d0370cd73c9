"""The content of a file: a batch as CSV, JSON Lines or Parquet, compressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from dagster_retl.connectors.files_config import FileSettings
from dagster_retl.connectors.files_csv import Dialect, parse
from dagster_retl.connectors.files_rows import OPERATION, column_names, require_free
from dagster_retl.model.rows import Batch, Fault


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a batch as a file. content: None where none of them is in it. faults: why rows are not, by key."""

    content: bytes | None
    faults: Mapping[str, Fault] = field(default_factory=dict)


def encode(batch: Batch, settings: FileSettings) -> Part:
    """A batch that has rows. Raises `DestinationError` where a field has the name of the operation's column."""
    return _ENCODERS[settings.format](batch, settings)


def _csv(batch: Batch, settings: FileSettings) -> Part:
    rows = [parse(document) for document in batch.documents]
    names = column_names(batch, rows)
    if settings.operation_column:
        require_free(batch, names)
        names.insert(0, OPERATION)
        rows = [{OPERATION: batch.operation.value, **row} for row in rows]
    dialect = Dialect(settings.delimiter, settings.null_text, escape_formulas=settings.escape_formulas)
    lines = [dialect.line(names, row) for row in rows]
    whole = [line for line in lines if isinstance(line, bytes)]
    faults = {row.key: line for row, line in zip(batch.rows, lines, strict=True) if isinstance(line, Fault)}
    return Part(_compressed(b"".join([dialect.header(names), *whole]), settings) if whole else None, faults)


def _jsonl(batch: Batch, settings: FileSettings) -> Part:
    documents = [_one_line(document) for document in batch.documents]
    if settings.operation_column:
        require_free(batch, parse(documents[0]))
        first = orjson.dumps({OPERATION: batch.operation.value})
        documents = [_joined(first, document) for document in documents]
    return Part(_compressed(b"\n".join([*documents, b""]), settings))


def _one_line(document: bytes) -> bytes:
    """JSON that the source had as JSON may stand on several lines; in a text there is no line end."""
    return document.replace(b"\r", b" ").replace(b"\n", b" ")


def _joined(first: bytes, second: bytes) -> bytes:
    """Two JSON objects as one."""
    return first if second == b"{}" else first[:-1] + b"," + second[1:]


def _parquet(batch: Batch, settings: FileSettings) -> Part:
    from dagster_retl.connectors.files_parquet import parquet  # noqa: PLC0415 - its libraries take long to load

    return Part(parquet(batch, settings.codec, operation_column=settings.operation_column))


_ENCODERS: Mapping[str, Callable[[Batch, FileSettings], Part]] = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}


def _compressed(content: bytes, settings: FileSettings) -> bytes:
    if settings.codec == "none":
        return content
    import pyarrow as pa  # noqa: PLC0415 - as above

    compressed: bytes = pa.compress(content, codec=settings.codec, asbytes=True)
    return compressed
