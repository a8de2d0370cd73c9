"""CSV as RFC 4180 has it (https://www.rfc-editor.org/rfc/rfc4180), of rows that are JSON already.

Text is quoted where it has to be, and where it is the text of a null: so nulls and empty text are told apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from dagster_retl.errors import ErrorCode
from dagster_retl.model.rows import Fault

_FORMULA = re.compile(r"[=+\-@\t\r]")
"""How text begins that spreadsheets run: https://owasp.org/www-community/attacks/CSV_Injection."""

_NUL = Fault(
    ErrorCode.DESTINATION_VALIDATION, "a text holds the character NUL, at which readers of CSV refuse a whole file"
)
_BLANK = Fault(
    ErrorCode.DESTINATION_VALIDATION,
    "a row whose only column is null is an empty line of CSV, which readers skip; set `null_text` of the destination",
)
_NOT_UNICODE = Fault(ErrorCode.DESTINATION_VALIDATION, "a text holds half of a surrogate pair, which is no character")


class _Digits(str):
    """A number as it stands in JSON, with all its digits."""

    __slots__ = ()


_DECODER = json.JSONDecoder(parse_int=_Digits, parse_float=_Digits)


def parse(document: bytes) -> Mapping[str, Any]:
    """The fields of a row's JSON, for `text_of`; numbers keep the digits that they are written with."""
    fields: dict[str, Any] = _DECODER.decode(document.decode())
    return fields


def text_of(value: Any) -> str:
    """A field that is not null as text: text as it is, anything else as JSON.

    Raises `ValueError` for text inside of lists and structs that is no Unicode.
    """
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=_number, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()


def _number(digits: _Digits) -> orjson.Fragment:
    return orjson.Fragment(str(digits))


class Dialect:
    """How lines are written. escape_formulas: see `FileSettings`."""

    def __init__(self, delimiter: str, null_text: str, *, escape_formulas: bool) -> None:
        self._delimiter = delimiter
        self._null_text = null_text
        self._escape_formulas = escape_formulas
        self._quotable = re.compile(rf'[{re.escape(delimiter)}"\r\n]|^\s|\s$|^$|^{re.escape(null_text)}$')

    def header(self, names: Sequence[str]) -> bytes:
        """The first line."""
        return self._joined(self._quoted(name) for name in names)

    def line(self, names: Sequence[str], fields: Mapping[str, Any]) -> bytes | Fault:
        """The line of a row; a column that the row lacks is null. Why the row has none, where CSV cannot hold it."""
        try:
            line = self._joined(self._cell(fields.get(name)) for name in names)
        except (UnicodeEncodeError, TypeError):  # orjson's error is a `TypeError`
            return _NOT_UNICODE
        if line == b"\r\n":
            return _BLANK
        return _NUL if b"\0" in line else line

    def _joined(self, cells: Iterable[str]) -> bytes:
        return (self._delimiter.join(cells) + "\r\n").encode()

    def _cell(self, value: Any) -> str:
        if value is None:
            return self._null_text
        text = text_of(value)
        formula = self._escape_formulas and type(value) is str and _FORMULA.match(text)
        return self._quoted(f"'{text}" if formula else text)

    def _quoted(self, text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if self._quotable.search(text) else text
