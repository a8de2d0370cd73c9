"""Keeping secrets out of everything that is kept or shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

MASK = "***"


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


class Redactor:
    """Replaces known secrets in text. Very short ones are left: they would tear words apart."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text
