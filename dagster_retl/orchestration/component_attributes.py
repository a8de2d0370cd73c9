"""The attributes of our components: retl.yaml's settings, checked where Dagster reads them and again once rendered.

Dagster replaces `{{ … }}` after it has checked a defs.yaml, so what depends on such text is judged
when the component is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import RootModel, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.mistakes import Loc
from dagster_retl.model.problems import Problem
from dagster_retl.model.project import Project
from dagster_retl.model.project_data import check_data, load_data, load_with_sync
from dagster_retl.orchestration.component_schema import (
    PROJECT_FILE,
    PROJECT_SETTINGS,
    project_attributes_schema,
    sync_attributes_schema,
)

TEMPLATE = "{{"

_MISSING = "this setting is missing"
_ENVIRONMENT = re.compile(r"\benv\.([A-Za-z_]\w*)")

Attributes = dict[str, Any]


class ProjectAttributes(RootModel[Attributes]):
    """All of a retl.yaml, or `project_file`, the path of one."""

    alone: ClassVar[bool] = False
    """Whether the syncs stand beside others that are defined elsewhere."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return project_attributes_schema()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        errors = [_error(self.written_at(problem), problem) for problem in self.problems()]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors, hide_input=True)
        return self

    def problems(self) -> list[Problem]:
        """What is wrong, as far as that can be said before templates are rendered."""
        if PROJECT_FILE in self.root:
            return [_stray(name) for name in self.root if name != PROJECT_FILE]
        return _problems(self.root, alone=self.alone)

    def load(self, context: dg.ComponentLoadContext) -> Project:
        """The project that the attributes stand for. Raises `ConfigurationError`."""
        data = rendered(self.root, context.resolution_context)
        if PROJECT_FILE in data:
            return Project.load(_beside(context, data[PROJECT_FILE]))
        return self.loaded(data, context)

    def loaded(self, data: Attributes, context: dg.ComponentLoadContext) -> Project:
        """The project of these settings, whose relative paths start at the root of the Dagster project."""
        project, problems = load_data(data, context.project_root, os.environ, alone=self.alone)
        if project is None or problems:
            told = [f"  {'.'.join(map(str, self.written_at(each)))}: {_told(each)}" for each in problems]
            raise ConfigurationError("\n".join([f"the component in {context.path} has mistakes:", *told]))
        return project

    def written_at(self, problem: Problem) -> Loc:
        """The place of a problem in the attributes."""
        parts = re.findall(r"[^.\[\]]+", problem.path)
        return tuple(int(part) if part.isdigit() else part for part in parts)


class SyncAttributes(ProjectAttributes):
    """The settings of one sync, and `project_file` or the settings of a project around it."""

    alone: ClassVar[bool] = True

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return sync_attributes_schema()

    def problems(self) -> list[Problem]:
        settings, sync = _parts(self.root)
        if PROJECT_FILE not in settings:
            return _problems(_around(settings, sync), alone=True)
        stray = [_stray(name) for name in settings if name != PROJECT_FILE]
        found = _problems({**_surroundings(sync), "syncs": [sync]}, alone=True)
        return [*stray, *(each for each in found if each.message != _MISSING)]  # it may be among the file's `defaults`

    def load(self, context: dg.ComponentLoadContext) -> Project:
        settings, sync = _parts(rendered(self.root, context.resolution_context))
        if PROJECT_FILE in settings:
            return load_with_sync(_beside(context, settings[PROJECT_FILE]), os.environ, sync)
        return self.loaded(_around(settings, sync), context)

    def written_at(self, problem: Problem) -> Loc:
        loc = super().written_at(problem)
        return loc[2:] if loc[:1] == ("syncs",) else loc


def rendered(value: Any, context: dg.ResolutionContext) -> Any:
    """The attributes with `{{ … }}` replaced.

    Other text is left as it is: Dagster would turn the text "10" into a number. Raises
    `ConfigurationError` for an environment variable that is not set, which Dagster takes for None.
    """
    if isinstance(value, Mapping):
        return {key: rendered(item, context) for key, item in value.items()}
    if isinstance(value, list):
        return [rendered(item, context) for item in value]
    if not isinstance(value, str) or TEMPLATE not in value:
        return value
    for name in _ENVIRONMENT.findall(value):
        if name not in os.environ:
            raise ConfigurationError(
                f"the environment variable {name} is not set",
                hint=f"Set it, or give it a default: `{{{{ env('{name}', '…') }}}}`.",
            )
    return context.resolve_value(value, as_type=object)


def _parts(data: Attributes) -> tuple[Attributes, Attributes]:
    """What is said about the project, and about the sync."""
    settings = {name: each for name, each in data.items() if name == PROJECT_FILE or name in PROJECT_SETTINGS}
    return settings, {name: each for name, each in data.items() if name not in settings}


def _around(settings: Attributes, sync: Attributes) -> Attributes:
    return {"warehouses": {}, "destinations": {}, **settings, "syncs": [sync]}


def _surroundings(sync: Attributes) -> Attributes:
    """What a sync refers to, for want of the file that has it."""
    destination = sync.get("destination_id")
    return {
        "warehouses": {str(sync.get("warehouse", "default")): {"url": "duckdb://"}},
        "destinations": {str(destination): {"connector": "http"}} if destination else {},
    }


def _problems(data: Attributes, *, alone: bool) -> list[Problem]:
    return check_data(data, Path.cwd(), os.environ, later=TEMPLATE, alone=alone)


def _beside(context: dg.ComponentLoadContext, path: object) -> Path:
    """A path relative to the folder of the defs.yaml."""
    folder = context.path if context.path.is_dir() else context.path.parent
    return folder / str(path)


def _stray(name: str) -> Problem:
    return Problem("", 0, 0, name, f"with `{PROJECT_FILE}`, this belongs into that file")


def _told(problem: Problem) -> str:
    return f"{problem.message}. {problem.hint}" if problem.hint else problem.message


def _error(loc: Loc, problem: Problem) -> InitErrorDetails:
    # Of a type that pydantic knows: Dagster makes the error anew, with positions. The input is nobody's business.
    return {"type": "value_error", "loc": loc, "input": None, "ctx": {"error": ValueError(_told(problem))}}
