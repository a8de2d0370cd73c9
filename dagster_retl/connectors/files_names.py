"""Names of the files that rows go to: a folder for each object, and in it a name for each part of each run."""

from __future__ import annotations

import hashlib
import string
from pathlib import PureWindowsPath

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch

PLACEHOLDERS = ("run_id", "number", "key", "extension")
USUAL_NAME = "run={run_id}/part-{number}-{key}.{extension}"

_NEEDED = ("run_id", "number", "key")
"""Without one of these, parts would replace each other."""


def check_pattern(pattern: str) -> str:
    """The pattern of a part's name, when every part gets a name of its own by it. Raises `ValueError`."""
    try:
        pieces = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{error}; literal braces are doubled") from None
    named = [name for _, name, _, _ in pieces if name is not None]
    if unknown := [name for name in named if name not in PLACEHOLDERS]:
        raise ValueError(f"has no placeholder {{{unknown[0]}}}; there are {_listed(PLACEHOLDERS)}")
    if any(form or conversion for _, _, form, conversion in pieces):
        raise ValueError("placeholders take no format: write {number}, not {number:05d}")
    if missing := [name for name in _NEEDED if name not in named]:
        raise ValueError(f"needs {_listed(missing)}: parts would replace each other")
    if problem := _problem(pattern):
        raise ValueError(f"is not a path inside the object's folder: {problem}")
    return pattern


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def object_folder(object_name: str) -> str:
    """The folder of an object, below the destination's. Raises `DestinationError` for a name that leads elsewhere."""
    if problem := _problem(object_name):
        raise DestinationError(
            f"object {object_name!r} is not the name of a folder below the destination's: {problem}",
            code=ErrorCode.CONFIGURATION,
            hint="Name a folder, such as contacts or crm/contacts.",
        )
    return object_name


def _problem(path: str) -> str | None:
    """Why a path is none that stays below the folder it starts in."""
    if path.startswith("/") or PureWindowsPath(path).drive:
        return "it is absolute"
    if "\\" in path or any(ord(character) < 32 for character in path):
        return "it has a backslash or a control character"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "a part of it is empty, '.' or '..'"
    return None


def part_name(pattern: str, batch: Batch, extension: str) -> str:
    """The name of a batch's file, below the destination's folder: the same whenever this very batch is sent again."""
    name = pattern.format(
        run_id=batch.run_id, number=f"{batch.number:05d}", key=_short(batch.idempotency_key), extension=extension
    )
    return f"{object_folder(batch.object_name)}/{name}"


def _short(idempotency_key: str) -> str:
    """Of the whole key: those of a batch and of its parts begin alike."""
    return hashlib.blake2b(idempotency_key.encode(), digest_size=4).hexdigest()
