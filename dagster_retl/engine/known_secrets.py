"""Finding the secrets of a configuration, to keep them out of everything that is kept or shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def secrets_in(value: Any) -> set[str]:
    """Every secret in a configuration: `SecretStr` values, and passwords in URLs."""
    if isinstance(value, SecretStr):
        return {value.get_secret_value()} | _password(value.get_secret_value())
    if isinstance(value, str):
        return _password(value)
    if isinstance(value, BaseModel):
        return _all(getattr(value, name) for name in type(value).model_fields)
    if isinstance(value, Mapping):
        return _all(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return _all(value)
    return set()


def _all(values: Iterable[Any]) -> set[str]:
    found: set[str] = set()
    for value in values:
        found |= secrets_in(value)
    return found


def _password(text: str) -> set[str]:
    if "://" not in text:
        return set()
    try:
        password = make_url(text).password
    except (ArgumentError, ValueError):
        return set()
    return {str(password)} if password else set()
