"""The demo, step by step: a first sync, a day of changes, dead letters, a repair and a replay.

Each step does something real, says what happened in numbers, and compares the CRM with the query.
"""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from dagster_retl.demo import warehouse
from dagster_retl.demo.crm import Crm
from dagster_retl.demo.proof import Proof, prove
from dagster_retl.errors import ConfigurationError, ErrorCode, RetlError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import DeadLetter, Run, RunOptions
from dagster_retl.service import Service

CRM = "demo_crm"
"""The destination that the demo's CRM stands for."""

ACCOUNTS = "crm_accounts"
OTHER_SYNCS = ("crm_contacts", "account_balances")

_FOLDER = "demo"
_WAREHOUSE = "warehouse.duckdb"
_OWN_FILES = (_WAREHOUSE, f"{_WAREHOUSE}.wal", "crm.sqlite", "crm.sqlite-journal", "ops.sqlite", ".retl", ".dagster")
_OPS_TABLE = """
CREATE TABLE account_balances (
    account_id INTEGER PRIMARY KEY, open_invoices INTEGER NOT NULL, open_amount NUMERIC NOT NULL, last_invoice_on DATE
)
"""

Launch = Callable[[Project, str, RunOptions], Run]
"""Runs a sync to its end."""


@dataclass(frozen=True, slots=True)
class Step:
    """What happened. `number` and `title` name it; `runs` are the runs it made, `letters` the dead letters to show."""

    number: int
    title: str
    text: str
    runs: Sequence[Run] = ()
    letters: Sequence[DeadLetter] = ()
    proof: Proof | None = None
    facts: Mapping[str, int] = field(default_factory=dict)


def project_text() -> str:
    """The demo's retl.yaml."""
    return files("dagster_retl.demo").joinpath("retl.yaml").read_text(encoding="utf-8")


def is_demo(project: Project) -> bool:
    """Whether the project is the demo's."""
    return CRM in project.destinations


def is_built(project: Project) -> bool:
    """Whether the demo has been run in this folder."""
    return (_folder(project) / _WAREHOUSE).exists()


def demo_advice(project: Project) -> str | None:
    """What to do when something of the demo's project cannot be reached; None for other projects."""
    if not is_demo(project):
        return None
    if not is_built(project):
        return "This is the demo's project: run `retl demo` first; it builds the rest."
    return "This is the demo's project: `retl up` and `retl demo --serve` start its CRM, `retl demo` makes all anew."


def home_of(project: Project) -> Path:
    """The Dagster instance of the demo, beside what else it keeps."""
    return _folder(project) / ".dagster"


@contextmanager
def serving_crm(project: Project) -> Iterator[Crm]:
    """The CRM that the project's destination names, while the block lasts.

    Raises `ConfigurationError` when something else listens at that address.
    """
    config = project.destination(CRM).config
    port = _port_of(str(config["url"]))
    _folder(project).mkdir(parents=True, exist_ok=True)
    _require_free(port)
    with Crm(_folder(project) / "crm.sqlite", token=str(config["auth"]["token"]), port=port) as crm:
        yield crm


def tell(project: Project, launch: Launch) -> Iterator[Step]:
    """Start over in the project's demo folder and go through the story.

    Raises `RetlError` when a run fails, or the CRM does not hold what the query says.
    """
    folder = _folder(project)
    _require_free(_port_of(str(project.destination(CRM).config["url"])))
    start_over(folder)
    with serving_crm(project) as crm, Service(project) as service:
        yield from _Story(project, service, crm, launch, folder / _WAREHOUSE).steps()


def start_over(folder: Path) -> None:
    """Remove what an earlier demo left, and nothing else; build the warehouse and an empty operations database."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _OWN_FILES:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    warehouse.build(folder / _WAREHOUSE)
    with closing(sqlite3.connect(folder / "ops.sqlite")) as database:
        database.execute(_OPS_TABLE)


@dataclass(frozen=True, slots=True)
class _Story:
    project: Project
    service: Service
    crm: Crm
    launch: Launch
    path: Path

    def steps(self) -> Iterator[Step]:
        yield self._built()
        yield self._first_run()
        yield self._changed()
        yield self._only_changes()
        yield self._dead_letters()
        yield self._mended()
        yield self._replayed()
        yield self._others()

    def _built(self) -> Step:
        tables = {table: warehouse.count(self.path, table) for table in ("accounts", "contacts", "invoices")}
        text = (
            f"demo/{_WAREHOUSE} has {tables['accounts']:,} accounts, named in a dozen scripts, and some mistakes; "
            f"the CRM listens on {self.crm.url} and insists on its rules."
        )
        return Step(1, "A warehouse and a CRM", text, facts=tables)

    def _first_run(self) -> Step:
        run = self._run()
        text = (
            f"The query gave {run.counters.read:,} active accounts. The CRM took {run.counters.written:,}; "
            f"{run.counters.failed:,} rows could not be written."
        )
        return Step(2, "The first sync", text, [run], proof=self._prove())

    def _changed(self) -> Step:
        changes = warehouse.change(self.path)
        text = f"{changes.updated} accounts changed, {changes.inserted} were added, {changes.deleted} were deleted."
        facts = {"updated": changes.updated, "inserted": changes.inserted, "deleted": changes.deleted}
        return Step(3, "A day passes in the warehouse", text, facts=facts)

    def _only_changes(self) -> Step:
        run = self._run()
        text = (
            f"Only what changed went out: {run.counters.written:,} accounts written, {run.counters.deleted:,} deleted; "
            f"{run.counters.unchanged:,} were as they had been. What had failed was tried again."
        )
        return Step(4, "The second sync", text, [run], proof=self._prove())

    def _dead_letters(self) -> Step:
        letters = self._letters()
        rows = sum(letter.rows for letter in letters)
        text = f"{rows:,} rows could not be written: {len(letters):,} dead letters say which, and why."
        return Step(5, "The dead letters", text, letters=letters, facts={"open": len(letters), "rows": rows})

    def _mended(self) -> Step:
        warehouse.mend(self.path)
        text = "E-mail addresses, names and doubles are corrected in the warehouse, where the mistakes were made."
        return Step(6, "Somebody mends the data", text)

    def _replayed(self) -> Step:
        letters = self._letters()
        [(_, options)] = self.service.replays([letter.id for letter in letters])
        run = self._run(options)
        left = len(self._letters())
        text = (
            f"The replay read those accounts again and wrote what is true now: {run.counters.written:,} accepted, "
            f"{len(letters) - left:,} dead letters resolved, {left:,} open."
        )
        facts = {"resolved": len(letters) - left, "open": left}
        return Step(7, "The replay", text, [run], proof=self._prove(), facts=facts)

    def _others(self) -> Step:
        runs = [self._ended(self.launch(self.project, slug, RunOptions())) for slug in OTHER_SYNCS]
        text = "People go to the same CRM, open invoices to a table of an operations database."
        return Step(8, "The other syncs of this project", text, runs)

    def _run(self, options: RunOptions | None = None) -> Run:
        return self._ended(self.launch(self.project, ACCOUNTS, options or RunOptions()))

    def _ended(self, run: Run) -> Run:
        if run.error_code is not None:
            raise RetlError(
                f"the run {run.id} of {run.sync_name} failed: {run.error_message}", code=ErrorCode(run.error_code)
            )
        return run

    def _letters(self) -> list[DeadLetter]:
        return self.service.dead_letters(ACCOUNTS, limit=warehouse.MISTAKES.rows)

    def _prove(self) -> Proof:
        refused = {str(letter.record_keys["external_id"]) for letter in self._letters()}
        query = self.project.sync(ACCOUNTS).source_query
        proof = prove(self.path, query, self.crm.records("accounts"), refused)
        if not proof.holds:
            raise RetlError(f"the CRM does not hold what the query says: {'; '.join(proof.differences)}")
        return proof


def _folder(project: Project) -> Path:
    return project.base / _FOLDER


def _port_of(url: str) -> int:
    host, _, port = url.partition("://")[2].partition("/")[0].partition(":")
    if host != "127.0.0.1" or not port.isdecimal():
        raise ConfigurationError(
            f"the demo's CRM cannot listen on {host}:{port}",
            hint="RETL_DEMO_CRM is an address of this machine with a port, such as http://127.0.0.1:8765.",
        )
    return int(port)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ConfigurationError(
                f"something listens on 127.0.0.1:{port}, where the demo's CRM should be",
                hint="Is `retl up` or another demo running? Stop it, "
                "or take another port: RETL_DEMO_CRM=http://127.0.0.1:8766.",
            )
