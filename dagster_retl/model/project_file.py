"""retl.yaml as a `Project`: files included, defaults merged, every mistake told with its position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from dagster_retl.model.mistakes import Loc
from dagster_retl.model.model_errors import causes, explain, is_native, settings_at
from dagster_retl.model.problems import Position, Problem, ProjectFileError
from dagster_retl.model.project import Project
from dagster_retl.model.redaction import redact
from dagster_retl.model.sync import NO_KEY, Sync
from dagster_retl.model.yaml_document import YamlReader

OWN_TO_EACH_SYNC = frozenset({"name", "slug", "after", "adopt", "renamed_from", "project"})
"""Settings of a sync that cannot come from `defaults`."""

MERGED_BY_KEY = frozenset({"guards", "tags"})
"""Settings whose keys are merged with those in `defaults`; all others replace them."""

_OVERRIDES = {"store": "RETL_STORE", "state": "RETL_STATE", "writes": "RETL_WRITES"}
_WILDCARDS = frozenset("*?[")


def load_project(path: Path, environ: Mapping[str, str]) -> Project:
    """Read the file and those it includes. Raises `ProjectFileError`."""
    return ProjectFile(path, environ).load()


class ProjectFile:
    """One reading of a project file: its data, and where each piece of it came from."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.reader = YamlReader(environ)
        self.data: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.inherited: dict[Loc, Loc] = {}

    def load(self) -> Project:
        """The project. Raises `ProjectFileError`."""
        project, problems = self.try_load()
        if project is None or problems:
            raise ProjectFileError(str(self.path), problems)
        return project

    def try_load(self) -> tuple[Project | None, list[Problem]]:
        """The project, unless something is wrong, and all that is."""
        self.read()
        project = self._project()
        return project, sorted(dict.fromkeys(self.reader.problems), key=self._order)

    def _order(self, problem: Problem) -> tuple[bool, str, int, int]:
        return problem.file != str(self.path), problem.file, problem.line, problem.column

    def read(self) -> None:
        """Read what the project says into `data`; what is wrong with it is among the reader's problems."""
        name = str(self.path)
        node = self.reader.compose(self.path, name)
        if node is None:
            return
        data = self.reader.construct(node, (), name)
        if not isinstance(data, dict):
            self.reader.add_problem(Position(name, 1, 1), (), "expected a mapping of settings, such as `syncs:`")
            return
        self.data = data
        self.settle()

    def settle(self) -> None:
        """Bring the data into the form of the models: files included, defaults merged, settings overridden."""
        self._empty_sections()
        self._include(self.data.pop("include", None))
        self._merge_defaults(self.data.pop("defaults", None))
        self._override()

    def _empty_sections(self) -> None:
        """A section with nothing under it is an empty one."""
        if "include" in self.data:
            self.data.setdefault("syncs", [])
        for section, empty in (("warehouses", {}), ("destinations", {}), ("syncs", []), ("alerts", [])):
            if section in self.data and self.data[section] is None:
                self.data[section] = empty

    # --- include

    def _include(self, patterns: Any) -> None:
        if patterns is None:
            return
        if not isinstance(patterns, list):
            self._problem(("include",), "expected a list of files, such as [syncs/*.yaml]")
            return
        seen = {self.path.resolve()}
        for index, pattern in enumerate(patterns):
            for file in self._matches(pattern, ("include", index)):
                if (resolved := file.resolve()) not in seen:
                    seen.add(resolved)
                    self._include_file(file)

    def _matches(self, pattern: Any, loc: Loc) -> list[Path]:
        if not isinstance(pattern, str) or not pattern.strip() or "\0" in pattern:
            self._problem(loc, "expected the path of a file, or a pattern such as syncs/*.yaml")
            return []
        file = self.path.parent / pattern
        if not _WILDCARDS & set(pattern):
            if not file.is_file():
                self._problem(loc, self._redacted(f"there is no file {pattern!r} beside {self.path.name}"))
                return []
            return [file]
        root = Path(file.anchor) if Path(pattern).is_absolute() else self.path.parent
        try:
            found = root.glob(str(file.relative_to(root)))
            return sorted(each for each in found if each.is_file())
        except (ValueError, NotImplementedError, OSError) as error:
            self._problem(loc, self._redacted(f"this pattern cannot be used: {error}"))
            return []

    def _include_file(self, file: Path) -> None:
        name = str(file)
        node = self.reader.compose(file, name)
        if node is None or not isinstance(self.data.get("syncs"), list):
            return
        for sync in self._sync_nodes(node, name):
            loc = ("syncs", len(self.data["syncs"]))
            self.data["syncs"].append(self.reader.construct(sync, loc, name))

    def _sync_nodes(self, node: Node, name: str) -> Iterator[Node]:
        """The syncs of an included file: under `syncs:`, a bare list, or the file is one sync."""
        if isinstance(node, SequenceNode):
            yield from node.value
        elif not isinstance(node, MappingNode):
            self.reader.add_problem(
                _start(node, name), (), "an included file holds `syncs:`, a list of syncs, or a sync"
            )
        elif not any(key.value == "syncs" for key, _ in node.value):
            yield node
        else:
            yield from self._listed_syncs(node, name)

    def _listed_syncs(self, node: MappingNode, name: str) -> Iterator[Node]:
        seen = False
        for key, value in node.value:
            if key.value != "syncs":
                hint = f"Move it to {self.path.name}."
                self.reader.add_problem(
                    _start(key, name), (), f"an included file holds syncs only, not `{key.value}`", hint
                )
            elif seen:
                self.reader.add_problem(_start(key, name), (), "this key stands here twice")
            elif isinstance(value, SequenceNode):
                yield from value.value
            elif getattr(value, "value", None) not in ("", "~", "null"):
                self.reader.add_problem(_start(key, name), (), "expected a list of syncs")
            seen = seen or key.value == "syncs"

    # --- defaults

    def _merge_defaults(self, defaults: Any) -> None:
        if defaults is None:
            return
        if not isinstance(defaults, dict):
            self._problem(("defaults",), "expected a mapping of settings for all syncs")
            return
        self.defaults = {key: value for key, value in defaults.items() if self._may_be_default(key)}
        self._check_defaults()
        if isinstance(self.data.get("syncs"), list):
            self.data["syncs"] = [self._with_defaults(index, sync) for index, sync in enumerate(self.data["syncs"])]

    def _may_be_default(self, key: str) -> bool:
        if key in OWN_TO_EACH_SYNC:
            self._problem(("defaults", key), f"`{key}` belongs in each sync, not in `defaults`")
        return key not in OWN_TO_EACH_SYNC

    def _check_defaults(self) -> None:
        """What is wrong with `defaults`, used or not: they are tried in a sync that is otherwise right."""
        sample = {"name": "x", "source_query": "SELECT 1", "destination_id": "x", "object_name": "x"}
        mapped = {"field_mappings": [{"source": "x", "destination": "x", "key": True}]}
        try:
            Sync.model_validate(sample | mapped | self.defaults)
        except ValidationError as error:
            written = self.defaults.keys() - {"key"}
            for details in causes(error.errors()):
                if details["loc"] and details["loc"][0] in written and details["type"] != NO_KEY:
                    self._tell(details, ("defaults", *details["loc"]), settings_at(Sync, details["loc"]))

    def _with_defaults(self, index: int, sync: Any) -> Any:
        if not isinstance(sync, dict):
            return sync
        loc: Loc = ("syncs", index)
        merged = {**self.defaults, **sync}
        for key in self.defaults:
            if key not in sync:
                self.inherited[*loc, key] = ("defaults", key)
            elif key in MERGED_BY_KEY and isinstance(sync[key], dict) and isinstance(self.defaults[key], dict):
                merged[key] = {**self.defaults[key], **sync[key]}
                for name in self.defaults[key].keys() - sync[key].keys():
                    self.inherited[*loc, key, name] = ("defaults", key, name)
        return merged

    # --- environment

    def _override(self) -> None:
        for setting, variable in _OVERRIDES.items():
            if value := self.environ.get(variable):
                self.data[setting] = value
                self.reader.positions[setting,] = Position(f"environment variable {variable}")
                self.reader.values[f"${{{variable}}}"] = value

    # --- the model

    def _project(self) -> Project | None:
        if not self.data and self.reader.problems:
            return None
        for name in ("path", "base", "elsewhere"):
            if self.data.pop(name, None) is not None:
                self._problem((name,), "unknown setting")
        try:
            place = {"path": self.path, "base": self.path.parent, "elsewhere": self._elsewhere()}
            return Project.model_validate({**self.data, **place})
        except ValidationError as error:
            for details in causes(error.errors()):
                self._tell(details, details["loc"], settings_at(Project, details["loc"]))
        return None

    def _elsewhere(self) -> tuple[str, ...]:
        """Syncs that are defined elsewhere: of a file, none."""
        return ()

    def _tell(self, details: ErrorDetails, loc: Loc, settings: Sequence[str]) -> None:
        """Note an error of the model, unless its value is already known to be wrong."""
        path, found = _walk({**self.data, "defaults": self.defaults}, loc)
        path = self._written_at(path)
        if any(path[:end] in self.reader.failed for end in range(1, len(path) + 1)):
            return
        message, hint = explain(details, found, settings)
        if not is_native(details):
            message, hint = self._redacted(message), hint and self._redacted(hint)
        self._problem(path, message, hint)

    def _written_at(self, path: Loc) -> Loc:
        """The path in the file of a value that may come from `defaults`."""
        for end in range(len(path), 2, -1):
            if path[:end] in self.inherited:
                return (*self.inherited[path[:end]], *path[end:])
        return path

    def _problem(self, loc: Loc, message: str, hint: str | None = None) -> None:
        self.reader.add_problem(self.reader.position(loc), loc, message, hint)

    def _redacted(self, text: str) -> str:
        return redact(text, self.reader.values)


def _walk(data: Any, loc: Loc) -> tuple[Loc, Any]:
    """The path in the file that `loc` in the model stands for, as far as the data goes, and what is there.

    A missing setting ends the path with its name. In the short form of field mappings the model
    counts (`field_mappings[0]`) what the file names (`field_mappings.Email`).
    """
    path: Loc = ()
    for part in loc:
        step = _step(data, part)
        if step is None:
            break
        path = (*path, step)
        if isinstance(data, dict) and step not in data:
            return path, None
        data = data[step]
    return path, data


def _step(data: Any, part: str | int) -> str | int | None:
    """The key or index of `data` that `part` stands for; None where `data` is not a container of such."""
    if isinstance(data, dict):
        if isinstance(part, str):
            return part
        return next(islice(data, part, None), None)
    return part if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def _start(node: Node, name: str) -> Position:
    return Position(name, node.start_mark.line + 1, node.start_mark.column + 1)
