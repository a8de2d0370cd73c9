"""The secrets of a warehouse connection, to keep them out of the messages of its driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.engine import URL

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|credential|auth", re.IGNORECASE)


def connection_secrets(url: URL, connect_args: Mapping[str, Any]) -> Iterator[str]:
    """The password of a URL, and parameters that are named like secrets."""
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
