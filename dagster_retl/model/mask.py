"""Taking a key out of text that quotes it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

from dagster_retl.model.redactor import MASK


class KeyMask:
    """Replaces the values of one key by `***` wherever a text names all of them, as whole words in any case.

    values: for each key field, the ways in which its value may be written. A text that names some
    of the fields only (the region, not the number) does not name the key, and stays.
    """

    def __init__(self, values: Sequence[Collection[str]]) -> None:
        self._patterns = [_pattern(texts) for texts in values]

    def __call__(self, text: str) -> str:
        if not all(pattern.search(text) for pattern in self._patterns):
            return text
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def inside(self, value: Any) -> Any:
        """A JSON value with all its texts masked; a mapping that names the key is masked as a whole."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            named = all(any(self._is(pattern, each) for each in value.values()) for pattern in self._patterns)
            return {name: MASK if named else self.inside(each) for name, each in value.items()}
        return [self.inside(each) for each in value] if isinstance(value, list) else value

    @staticmethod
    def _is(pattern: re.Pattern[str], value: Any) -> bool:
        return isinstance(value, (str, int, float)) and pattern.fullmatch(str(value)) is not None


def _pattern(texts: Collection[str]) -> re.Pattern[str]:
    forms = {form for text in texts for form in (text, quote(text, safe=""), quote_plus(text), *_escaped(text))}
    alternatives = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)


def _escaped(text: str) -> tuple[str, str]:
    """As it stands inside a JSON string."""
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
