"""Small worlds that are ready for a run, to be killed or paused at any of its points.

A `Scenario` is prepared once: a first run, and what happened to the table since. Each `Crash` is a
fresh copy of that, store and state and destination, so that hundreds of them take minutes.
"""

from __future__ import annotations

import copy
import itertools
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from capricious import Capricious
from crash_kinds import DELIVERED, WANTED, WIRE, Kind, write_table
from crashes import Crash
from nursery import Nursery
from psycopg import sql
from sqlalchemy import make_url
from worlds import project_of

from dagster_retl.model.project import Project
from dagster_retl.service import Service


@dataclass
class Scenario:
    """A kind of run in a world that is ready for it. store: URL of its Postgres store; None: SQLite."""

    kind: Kind
    folder: Path
    http: Capricious
    nursery: Nursery
    store: str | None = None
    generation: str | None = None
    _records: dict[str, Any] = field(default_factory=dict)
    _answers: dict[str, Any] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def prepare(self) -> None:
        """The first run; then the table changes, and somebody edits records that a full refresh overwrites."""
        base = self.folder / "base"
        base.mkdir()
        write_table(base, DELIVERED)
        with Service(self.project(base, self.store, world="base")) as service:
            service.run("things", self.kind.plain)
            pointer = service.store.snapshots.pointer(service.project.syncs[0].id)
        assert pointer is not None
        self.generation = pointer.generation
        write_table(base, WANTED)
        records = self.http.records["things"]
        if self.kind.refresh:
            records |= {key: {**record, "name": "edited"} for key, record in records.items()}
        self._records, self._answers = copy.deepcopy(self.http.records), copy.deepcopy(self.http._answers)

    def project(self, folder: Path, store: str | None, *, world: str) -> Project:
        project = project_of(folder, self.http.url, config=self.config(world), **self.kind.sync)
        return project if store is None else project.model_copy(update={"store": store})

    def config(self, world: str) -> dict[str, Any]:
        """The destination's settings; each world's requests say where they come from."""
        return {**self.kind.config, "headers": {"X-World": world}}

    @contextmanager
    def crash(self) -> Iterator[Crash]:
        """A fresh copy of the world."""
        number = next(self._numbers)
        folder = self.folder / f"copy-{number}"
        shutil.copytree(self.folder / "base", folder)
        http = self.http
        http.records, http._answers = copy.deepcopy(self._records), copy.deepcopy(self._answers)
        http.applied.clear()
        http.requests.clear()
        http.late.clear()
        http.only = str(number)
        with _copied(self.store) as store:
            project = self.project(folder, store, world=str(number))
            with Service(project) as service:
                crash = Crash(self, number, folder, store, service)
                http.sent = crash.saw
                try:
                    yield crash
                finally:
                    crash.stop()
        shutil.rmtree(folder)

    def points(self) -> list[str]:
        """All points of this run: those where the process can die, and those of each of its requests."""
        with self.crash() as crash:
            names = crash.record()
            moments = [f"wire {moment} {n}" for n in range(1, len(self.http.requests) + 1) for moment, _ in WIRE]
        assert moments
        return names + moments


Prepare = Callable[..., Scenario]
"""(kind, postgres=False) → a scenario that is ready; see conftest.py."""


@contextmanager
def _copied(url: str | None) -> Iterator[str | None]:
    """A copy of a Postgres database, for as long as the block lasts."""
    if url is None:
        yield None
        return
    source = make_url(url)
    name, template = f"t_{secrets.token_hex(6)}", str(source.database)
    admin = source.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        copying = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(copying.format(sql.Identifier(name), sql.Identifier(template)))
        yield source.set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
