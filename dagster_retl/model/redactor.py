"""Taking known secrets out of text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORT = 4


class Redactor:
    """Replaces secrets by `***`, also where they are percent-encoded.

    Those of fewer than four characters are replaced as whole words only: they would tear words apart.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""), quote_plus(secret))}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_pattern, longest_first))) if forms else None

    def __call__(self, text: object) -> str:
        return str(text) if self._pattern is None else self._pattern.sub(MASK, str(text))


def _pattern(form: str) -> str:
    literal = re.escape(form)
    return rf"(?<!\w){literal}(?!\w)" if len(form) < _SHORT else literal
