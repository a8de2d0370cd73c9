"""Mistakes in a definition: where, what is wrong, what to write instead; and how pydantic tells several at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

T = TypeVar("T")
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at `loc` (keys and indices from the model down). `kind` names the sort of mistake."""

    loc: Loc
    message: str
    hint: str | None = None
    kind: str = "mistake"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A sentence that offers the nearest known name, or else all of them when they are few."""
    names = sorted(set(known))
    if close := difflib.get_close_matches(name, names, n=1):
        return f"Did you mean `{close[0]}`?"
    if 0 < len(names) <= 12:
        return f"There {'is' if len(names) == 1 else 'are'}: {', '.join(names)}."
    return None


def gather(
    title: str,
    handler: Callable[[Any], T],
    data: Mapping[str, Any],
    mistakes: Sequence[Mistake],
    *,
    instead_of: frozenset[str] = frozenset(),
) -> T:
    """Validate `data`, and raise one `ValidationError` with the handler's errors and `mistakes`.

    instead_of: kinds of the handler's errors that only follow from the `mistakes`.
    """
    errors = [_from_mistake(mistake) for mistake in mistakes]
    try:
        result = handler(data)
    except ValidationError as error:
        skipped = instead_of if mistakes else frozenset()
        errors += [_again(details) for details in error.errors() if details["type"] not in skipped]
    else:
        if not errors:
            return result
    raise ValidationError.from_exception_data(title, errors, hide_input=True)


def _from_mistake(mistake: Mistake) -> InitErrorDetails:
    text = f"{mistake.message}. {mistake.hint}" if mistake.hint else mistake.message
    context = {"text": text, "message": mistake.message, "hint": mistake.hint or ""}
    return {"type": PydanticCustomError(mistake.kind, "{text}", context), "loc": mistake.loc, "input": None}


def _again(details: ErrorDetails) -> InitErrorDetails:
    context = {name: value for name, value in details.get("ctx", {}).items() if name != "error"}
    text = {"text": details["msg"]}
    return {
        "type": PydanticCustomError(details["type"], "{text}", text | context | text),
        "loc": details["loc"],
        "input": details["input"],
    }
