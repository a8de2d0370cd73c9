"""Keys and ids as people type them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import click

from dagster_retl.model.mistakes import did_you_mean
from dagster_retl.model.sync import Sync


def parse_key(text: str, fields: Sequence[str], *, hint: str = "--key") -> dict[str, str]:
    """`42`, `id=42` or `region=EU,id=42` as field → value; values are compared as text, so `42` is the number too.

    fields: the key fields of the sync; hint: what it was typed as. Raises `click.BadParameter`.
    """
    if not fields:
        raise click.BadParameter("this sync has no key fields", param_hint=hint)
    named = _named(text, fields)
    if named is None:
        if len(fields) == 1 and not _names_something_else(text):
            return {fields[0]: text}
        raise click.BadParameter(_advice(text, fields), param_hint=hint)
    missing = [field for field in fields if field not in named]
    if missing:
        raise click.BadParameter(f"{text!r} does not say {', '.join(missing)}", param_hint=hint)
    return named


def _named(text: str, fields: Sequence[str]) -> dict[str, str] | None:
    """The parts `field=value` of a key; None when it does not begin with one. A value may hold commas."""
    alternatives = "|".join(re.escape(field) for field in sorted(fields, key=len, reverse=True))
    starts = list(re.finditer(rf"(?:^|,)\s*({alternatives})=", text))
    if not starts or starts[0].start() != 0:
        return None
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {match[1]: text[match.end() : end] for match, end in zip(starts, ends, strict=True)}


def _names_something_else(text: str) -> bool:
    """Whether it looks like `field=value` with a field that is none."""
    return re.match(r"[A-Za-z_][A-Za-z0-9_.]*=", text) is not None


def _advice(text: str, fields: Sequence[str]) -> str:
    if _names_something_else(text):
        typed = text.partition("=")[0]
        close = did_you_mean(typed, fields) or ""
        return f"{typed!r} is not a key field of this sync. {close}".rstrip()
    return f"{text!r} needs a value for each key field: {','.join(f'{field}=…' for field in fields)}"


def keys_of(sync: Sync, texts: Iterable[str]) -> tuple[Mapping[str, str], ...]:
    """The keys that `--key` named."""
    return tuple(parse_key(text, sync.key_fields) for text in texts)


def with_prefix(text: str, prefix: str) -> str:
    """An id, typed in full or, as tables show it, without the prefix that says what it is of."""
    return text if text.startswith(prefix) else prefix + text
