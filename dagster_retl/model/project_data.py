"""Projects that do not come from a retl.yaml alone: their settings as plain data, as a YAML file elsewhere has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_retl.model.environment import expand
from dagster_retl.model.mistakes import Loc
from dagster_retl.model.problems import Position, Problem
from dagster_retl.model.project import Project
from dagster_retl.model.project_file import ProjectFile

_YAML_1_1_KEYS = {True: "on", False: "off"}
"""Keys that readers of YAML 1.1 take for truth values: `alerts` has one called `on`."""


class _Data(ProjectFile):
    """Settings of a project.

    later: marks text whose value is not known yet; nothing is said about that. alone: the only sync stands
    beside others, which are defined elsewhere.
    """

    def __init__(
        self, data: Mapping[str, Any], base: Path, environ: Mapping[str, str], later: str | None, *, alone: bool
    ) -> None:
        super().__init__(base / "retl.yaml", environ)
        self._given = data
        self._later = later
        self._alone = alone

    def _elsewhere(self) -> tuple[str, ...]:
        return _named_after(self.data) if self._alone else ()

    def read(self) -> None:
        self.reader.positions[()] = Position("")
        self.data = self._expanded(self._given, ())
        self.settle()

    def _expanded(self, value: Any, loc: Loc) -> Any:
        if isinstance(value, Mapping):
            named = ((_YAML_1_1_KEYS.get(key, str(key)), item) for key, item in value.items())
            return {key: self._expanded(item, (*loc, key)) for key, item in named}
        if isinstance(value, list):
            return [self._expanded(item, (*loc, index)) for index, item in enumerate(value)]
        return self._text(value, loc) if isinstance(value, str) else value

    def _text(self, value: str, loc: Loc) -> str:
        if self._later is not None and self._later in value:
            self.reader.failed.add(loc)
            return value
        expansion = expand(value, self.environ)
        for fault in expansion.faults:
            self.reader.add_problem(Position(""), loc, fault)
            self.reader.failed.add(loc)
        self.reader.values |= {f"${{{name}}}": found for name, found in expansion.values.items() if found}
        return expansion.text


class _WithSync(ProjectFile):
    """A project file, with one sync from elsewhere instead of its own."""

    def __init__(self, path: Path, environ: Mapping[str, str], sync: Mapping[str, Any]) -> None:
        super().__init__(path, environ)
        self._sync = sync

    def settle(self) -> None:
        self.data.pop("include", None)
        self.data["syncs"] = [dict(self._sync)]
        super().settle()

    def _elsewhere(self) -> tuple[str, ...]:
        return _named_after(self.data)


def _named_after(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in the `after` of all syncs."""
    found = [sync.get("after") for sync in data.get("syncs", ()) if isinstance(sync, Mapping)]
    return tuple(name for names in found if isinstance(names, list) for name in names if isinstance(name, str))


def check_data(
    data: Mapping[str, Any], base: Path, environ: Mapping[str, str], *, later: str, alone: bool = False
) -> list[Problem]:
    """What is wrong with the settings of a project, each problem with its path in them.

    later: marks text that is not final (`{{`); whatever follows from it is not judged. alone: the project's
    only sync stands beside others, which are defined elsewhere: `after` may name them.
    """
    return _Data(data, base, environ, later, alone=alone).try_load()[1]


def load_data(
    data: Mapping[str, Any], base: Path, environ: Mapping[str, str], *, alone: bool = False
) -> tuple[Project | None, list[Problem]]:
    """The project that the settings make, unless something is wrong. base: where relative paths start."""
    project, problems = _Data(data, base, environ, None, alone=alone).try_load()
    return (None if project is None else project.model_copy(update={"path": None})), problems


def load_with_sync(path: Path, environ: Mapping[str, str], sync: Mapping[str, Any]) -> Project:
    """The project of a file, with `sync` (`defaults` of the file apply) as its only one. Raises `ProjectFileError`."""
    return _WithSync(path, environ, sync).load()
