"""Values that came out of the environment, kept out of messages: they may be secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SHORT = 4


def redact(text: str, values: Mapping[str, str]) -> str:
    """The text with each value replaced by the reference that stands for it (`${NAME}`).

    values: reference → value. Values of fewer than four characters are replaced as whole words only.
    """
    forms = {form: reference for reference, value in values.items() for form in _forms(value)}
    if not forms:
        return text
    longest_first = sorted(forms, key=len, reverse=True)
    pattern = re.compile("|".join(_pattern(form) for form in longest_first))
    return pattern.sub(lambda match: forms[match.group()], text)


def _forms(value: str) -> set[str]:
    """How a value may look inside a message: as it is, quoted by `repr`, or as a slug of lower case."""
    quoted = repr(value)[1:-1]
    return {form for form in (value, quoted, quoted.replace("'", "\\'"), value.lower(), value.strip()) if form}


def _pattern(form: str) -> str:
    literal = re.escape(form)
    return rf"(?<!\w){literal}(?!\w)" if len(form) < _SHORT else literal
