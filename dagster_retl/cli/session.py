"""What the commands of one call share: where the project is, and how to answer."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO

from rich.console import Console

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service

PROJECT_FILE = "retl.yaml"

_PIPED_WIDTH = 10_000  # programs read lines: nothing is wrapped or cut


@dataclass
class Session:
    """One call of the program. `path`: what `--project` or `RETL_PROJECT` named."""

    path: Path | None = None
    json: bool = False

    @cached_property
    def out(self) -> Console:
        """Where answers go."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        """Where errors, hints and progress go."""
        return Console(stderr=True, highlight=False)

    @property
    def project_path(self) -> Path:
        """The project file: what was named (a folder means its retl.yaml), or retl.yaml here."""
        named = self.path or Path(PROJECT_FILE)
        return named / PROJECT_FILE if named.is_dir() else named

    def project(self) -> Project:
        """Read the project. Raises `ConfigurationError` when there is none, `ProjectFileError` for its mistakes."""
        path = self.project_path
        if not path.exists():
            raise ConfigurationError(
                f"there is no project file {path}",
                hint="`retl init` writes one here; `--project PATH` or RETL_PROJECT names one elsewhere.",
            )
        return Project.load(path)

    @contextmanager
    def service(self, project: Project | None = None) -> Iterator[Service]:
        """The project's service, closed at the end of the block."""
        with Service(project or self.project()) as service:
            yield service

    def definition(self, project: Project, reference: str) -> Sync:
        """A sync of the project's file or store. Raises `NotFoundError`."""
        with self.service(project) as service:
            return service.find(reference)


def actor() -> str:
    """Who types, for the audit."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container whose user has no name
        return f"cli:{os.getuid()}"


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _PIPED_WIDTH)
