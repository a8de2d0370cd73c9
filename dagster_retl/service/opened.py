"""A project with its store and state, opened when they are first used."""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import Self

from dagster_retl.model.project import Project
from dagster_retl.store.state import State
from dagster_retl.store.store import Store


class Opened:
    """A project with its store and state, opened when they are first used."""

    def __init__(self, project: Project) -> None:
        self.project = project

    @classmethod
    def open(cls, project: Project) -> Self:
        """Open the project's store, creating an empty one. Raises `StoreError`."""
        service = cls(project)
        service.store.now()
        return service

    @cached_property
    def store(self) -> Store:
        return Store.open(self.project.store_url)

    @cached_property
    def state(self) -> State:
        return self._open_state()

    def _open_state(self) -> State:
        project = self.project
        return State.open(project.state_url, base=project.base, spill=project.spill_folder)

    def close(self) -> None:
        if "state" in self.__dict__:
            self.state.close()
        if "store" in self.__dict__:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
