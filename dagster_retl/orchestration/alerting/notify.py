"""Sending a message to an Apprise URL: https://github.com/caronc/apprise/wiki."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import apprise

from dagster_retl.model.redactor import Redactor
from dagster_retl.orchestration.alerting.messages import Message, Tone

TIMEOUT = 10.0
"""Seconds that one message may take."""

_TYPES = {
    Tone.FAILURE: apprise.NotifyType.FAILURE,
    Tone.WARNING: apprise.NotifyType.WARNING,
    Tone.SUCCESS: apprise.NotifyType.SUCCESS,
}
_LOGGERS = ("apprise", "urllib3.connectionpool")  # both write addresses, whose paths and hosts are often the secret


def send(url: str, message: Message) -> str | None:
    """Deliver a message. Returns None, or why it was not delivered, in words without secrets."""
    with _overheard() as words:
        delivered = _sent(url, message)
    if delivered:
        return None
    redact = Redactor(_parts(url))
    return redact("; ".join(dict.fromkeys(words))) or "the service gave no reason"


def _sent(url: str, message: Message) -> bool:
    with warnings.catch_warnings():
        # Apprise loads all its services at the first URL, and what some of them import is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        service = apprise.Apprise()
        if not service.add(url):
            return False
    return bool(
        service.notify(
            title=message.title,
            body=message.body,
            notify_type=_TYPES[message.tone],
            body_format=apprise.NotifyFormat.MARKDOWN,
            timeout=TIMEOUT,
        )
    )


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Keep what Apprise logs out of all logs; its complaints are collected instead."""
    words: list[str] = []

    def overhear(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            words.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(overhear)
    try:
        yield words
    finally:
        for logger in loggers:
            logger.removeFilter(overhear)


def _parts(url: str) -> set[str]:
    """Everything in an address that may be a secret: all of it, except its scheme."""
    pieces = re.split(r"[/:@?&=#,\s]+", url.partition("://")[2] or url)
    return {form for piece in pieces for form in (piece, unquote(piece))} | {url}
