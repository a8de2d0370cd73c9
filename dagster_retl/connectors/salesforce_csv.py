"""The files of a Bulk job: rows as CSV, and results that repeat what was uploaded.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from dagster_retl.connectors.http_url import text_of
from dagster_retl.connectors.salesforce_api import unreadable
from dagster_retl.model.rows import Batch, Row

_SPECIAL = re.compile(r'[",\r\n]')
NULL = "#N/A"
"""What clears a field; an empty cell leaves it as it is."""


def write_csv(batch: Batch) -> bytes:
    """The rows of a batch, a column for each field that any of them has; a field that a row omits is an empty cell.

    Key columns hold the text that `keys_of` gives, by which results are matched.
    """
    rows = [dict(_cells(row, document)) for row, document in zip(batch.rows, batch.documents, strict=True)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines).encode()


def _quoted(text: str) -> str:
    """A cell in quotation marks where it needs them; `csv.writer` leaves a bare carriage return without."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _cells(row: Row, document: bytes) -> Iterator[tuple[str, str]]:
    for name, value in row.key_values.items():
        yield name, cell(value)
    # Numbers keep the digits that the document has.
    for name, value in _flat(json.loads(document, parse_float=str, parse_int=str)):
        if name not in row.key_values:
            yield name, cell(value)


def _flat(members: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of parents by their dotted names, as a column's header has them."""
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def cell(value: Any) -> str:
    """A value as a cell. Empty text clears a field elsewhere in Salesforce, and would be ignored here."""
    if value is None or value == "":
        return NULL
    return orjson.dumps(value).decode() if isinstance(value, list) else text_of(value)


def keys_of(row: Row, key_fields: Sequence[str]) -> tuple[str, ...]:
    """A row's key as the cells that it is uploaded with."""
    return tuple(cell(row.key_values[field]) for field in key_fields)


def read_csv(content: bytes) -> list[Mapping[str, str]]:
    """The lines of a result, by the names of their columns in lower case.

    Raises `DestinationError` (ambiguous) for a file that is none.
    """
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.lower() for name in next(lines, [])]
        return [dict(zip(header, line, strict=True)) for line in lines if line]
    except (ValueError, csv.Error) as error:
        raise unreadable("a result that is no CSV") from error
