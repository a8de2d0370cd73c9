"""The vendor's own words in an error response: found in the usual shapes, short, and free of secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx
import orjson

from dagster_retl.model.redactor import Redactor

MESSAGE_LENGTH = 300
_MESSAGES = ("message", "error_description", "detail", "description", "title", "msg", "reason")
_CODES = ("code", "error_code", "errorCode", "status_code", "type")
_CONTAINERS = ("error", "errors", "detail", "details")


def dig(value: Any, path: str) -> Any:
    """What stands at a dotted path; an empty path is the value itself. None where there is nothing."""
    for part in path.split(".") if path else ():
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


class Wording:
    """Makes a vendor's text fit for a message: without secrets, one line, `MESSAGE_LENGTH` characters."""

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        self._secrets = secrets

    def clean(self, text: str, length: int = MESSAGE_LENGTH) -> str:
        """The text without secrets; cut only afterwards, so that no half of one is left at the end."""
        text = Redactor(self._secrets())(text)
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= length else line[: length - 1] + "…"


def find_words(body: Any) -> tuple[str | None, str | None]:
    """The vendor's code and message, in the shapes that services use.

    `{"message"}`, `{"error": "…"}`, `{"error": {"code", "message"}}`, `{"errors": [{"message"}]}`,
    `{"detail"}` (also as a list), problem details (RFC 9457) and OAuth errors (RFC 6749).
    """
    if isinstance(body, str):
        return None, body or None
    if isinstance(body, list):
        return find_words(body[0]) if body else (None, None)
    if not isinstance(body, Mapping):
        return None, None
    code = next((str(body[name]) for name in _CODES if isinstance(body.get(name), str | int)), None)
    message = next((body[name] for name in _MESSAGES if isinstance(body.get(name), str) and body[name]), None)
    if message is not None and isinstance(body.get("error"), str):
        code = code or body["error"]
    if message is None:
        inner_code, message = _first_inner(body)
        code = inner_code or code
    return code, message


def _first_inner(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    for name in _CONTAINERS:
        code, message = find_words(body.get(name))
        if code or message:
            return code, message
    return None, None


def vendor_words(response: httpx.Response, wording: Wording) -> tuple[str | None, str]:
    """The vendor's code and message in an error response; the status line where it says nothing readable."""
    status = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    try:
        code, message = find_words(orjson.loads(response.content))
    except orjson.JSONDecodeError:
        code, message = None, _plain_text(response)
    return wording.clean(code, 80) if code else None, wording.clean(message or status)


def _plain_text(response: httpx.Response) -> str | None:
    """Text that people can read; a page of HTML from a proxy tells nobody anything."""
    text = response.text.strip()
    html = text.startswith("<") or "html" in response.headers.get("Content-Type", "")
    return None if html else text
