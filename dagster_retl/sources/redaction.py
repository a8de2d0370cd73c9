"""Keeping a warehouse's secrets out of the messages of its driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|auth", re.IGNORECASE)
_MASK = "***"


class Redactor:
    """Replaces the password of a URL, and parameters that are named like secrets, wherever they occur in text."""

    def __init__(self, url: URL, connect_args: Mapping[str, Any]) -> None:
        values = {
            value for secret in _secrets(url, connect_args) for value in (secret, quote(secret), quote_plus(secret))
        }
        self._secrets = sorted(values, key=len, reverse=True)

    def __call__(self, message: object) -> str:
        text = str(message).strip()
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text


def _secrets(url: URL, connect_args: Mapping[str, Any]) -> Iterator[str]:
    if url.password:
        yield str(url.password)
    yield from _named_like_secrets(url.query)
    yield from _named_like_secrets(connect_args)


def _named_like_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _named_like_secrets(value)
        elif isinstance(value, str) and value and _SECRET_NAME.search(name):
            yield value
