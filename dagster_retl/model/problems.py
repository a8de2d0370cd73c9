"""Problems of a project file, with their positions, and the error that tells all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.mistakes import Loc


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; line and column count from 1, and are 0 where there is no line (a missing file)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where (`path` as in `syncs[0].schedule`, empty for the whole file), what, and what to do."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = str(Position(self.file, self.line, self.column))
        subject = f" {self.path}:" if self.path else ""
        text = f"{place}:{subject} {self.message}"
        return f"{text}\n    {self.hint}" if self.hint else text


class ProjectFileError(ConfigurationError):
    """A project file has mistakes; `problems` holds all of them, in the order of the files."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        count = "a mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        super().__init__("\n".join([f"{file} has {count}:", *(f"  {problem}" for problem in self.problems)]))


def dotted(loc: Loc) -> str:
    """`("syncs", 0, "schedule")` as `syncs[0].schedule`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
