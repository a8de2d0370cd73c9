"""Jobs of a run that was killed are ended by the next one, and nothing is written twice (PROTOCOL 7)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pytest
from accounts import KEY, project_of

from dagster_retl.errors import CancelledError
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunStatus
from dagster_retl.service import Service
from dagster_retl.testing import Received, Reply, Trouble
from dagster_retl.testing.fake_salesforce import FakeSalesforce

ROWS = 12  # three jobs
HERE = Path(__file__).parent

MOMENTS = {
    "open": ("POST", "/jobs/ingest"),
    "upload": ("PUT", "/batches"),
    "start": ("PATCH", ""),
    "poll": ("GET", ""),
    "collect": ("GET", "/successfulResults"),
    "collect what failed": ("GET", "/failedResults"),
}
"""Requests in the life of a job: method, and how the address ends."""


@dataclass
class Org:
    """A fake org, a warehouse with twelve accounts, and who runs the sync between them."""

    org: FakeSalesforce
    folder: Path
    mode: str
    child: list[int] = field(default_factory=list)

    def killed_at(self, moment: str, number: int, *, applied: bool) -> None:
        """Run in a process of its own, which dies at the n-th request of that kind, before or after it is applied."""
        method, end = MOMENTS[moment]
        seen = Counter[str]()

        def where(request: Received) -> bool:
            of_kind = request.method == method and "/jobs/ingest" in request.path and request.path.endswith(end)
            seen["n"] += of_kind
            return of_kind and seen["n"] == number

        kill = Trouble(apply=applied, reset="after", before=None if applied else self._kill, after=self._kill)
        self.org.disturb(kill, where=where)
        with subprocess.Popen(
            [sys.executable, str(HERE / "accounts.py"), str(self.folder), self.org.url, self.mode],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])},
        ) as process:
            self.child.append(process.pid)
            assert process.wait(120) == -signal.SIGKILL
        self.org.calm()

    def _kill(self) -> None:
        os.kill(self.child[-1], signal.SIGKILL)

    def run(self) -> tuple[Run, Run]:
        """A plain run; that one and the one before it."""
        with Service(project_of(self.folder, self.org.url, self.mode)) as service:
            service.run("accounts")
            newest, before, *_ = service.runs("accounts")
            assert service.dead_letters("accounts") == []
            assert service.store.ledger.unfolded(newest.sync_id) == []
            return newest, before

    def names(self) -> dict[str, str]:
        return {str(record[KEY]): str(record["Name"]) for record in self.org.org.records["Account"].values()}

    def inserted(self) -> Counter[str]:
        """How often a record was made for a key."""
        return Counter(str(record[KEY]) for record in self.org.org.records["Account"].values())


@contextmanager
def org_with_accounts(folder: Path, mode: str) -> Iterator[Org]:
    with FakeSalesforce() as org:
        with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
            connection.execute(f"CREATE TABLE t AS SELECT 'k' || n AS id, 'name ' || n AS name FROM range({ROWS}) r(n)")
        yield Org(org, folder, mode)


def check(made: Org, newest: Run, killed: Run) -> None:
    assert made.names() == {f"k{n}": f"name {n}" for n in range(ROWS)}
    assert (newest.status, killed.status, killed.error_code) == (
        RunStatus.SUCCEEDED,
        RunStatus.FAILED,
        "INTERRUPTED",
    )
    assert killed.counters.balanced()
    assert newest.counters.balanced()
    assert set(made.inserted().values()) == {1}, "no record was made twice"


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_insert_is_finished_and_made_once(tmp_path: Path, moment: str, applied: bool) -> None:
    """The second job is under way; whatever the first one did is on record."""
    with org_with_accounts(tmp_path, "insert") as made:
        number = {"poll": 5}.get(moment, 2)
        made.killed_at(moment, number, applied=applied)
        newest, killed = made.run()
        check(made, newest, killed)
        assert killed.counters.unknown == 0, "jobs say what became of their rows"
        assert newest.counters.written + killed.counters.written == ROWS


@pytest.mark.parametrize("moment", ["start", "poll", "collect"])
def test_what_a_job_has_written_is_not_sent_again(tmp_path: Path, moment: str) -> None:
    with org_with_accounts(tmp_path, "upsert") as made:
        made.killed_at(moment, 2 if moment == "poll" else 1, applied=True)  # the first is asked before the upload
        newest, killed = made.run()
        check(made, newest, killed)
        assert killed.counters.written == 5
        assert newest.counters.unchanged == 5
        changes = Counter(change.record_id for change in made.org.org.changes)
        assert set(changes.values()) == {1}, "no row was sent twice"


def test_an_open_job_is_aborted_and_its_rows_are_sent_by_the_next_run(tmp_path: Path) -> None:
    with org_with_accounts(tmp_path, "insert") as made:
        made.killed_at("upload", 1, applied=True)
        newest, killed = made.run()
        check(made, newest, killed)
        states = [job.state for job in made.org.jobs.jobs.values()]
        assert states == ["Aborted", "JobComplete", "JobComplete", "JobComplete"]
        assert killed.counters == Counters(read=ROWS, skipped=ROWS)


def test_killed_twice(tmp_path: Path) -> None:
    """The run that ends the first one's jobs dies while it does."""
    with org_with_accounts(tmp_path, "insert") as made:
        made.killed_at("poll", 2, applied=True)
        made.killed_at("collect", 1, applied=True)
        newest, before = made.run()
        check(made, newest, before)


def test_a_job_that_the_org_forgot_leaves_held_inserts(tmp_path: Path) -> None:
    with org_with_accounts(tmp_path, "insert") as made:
        made.killed_at("poll", 2, applied=True)
        made.org.jobs.jobs.clear()
        with Service(project_of(tmp_path, made.org.url, "insert")) as service:
            service.run("accounts")
            letters = service.dead_letters("accounts")
            assert {letter.error_code for letter in letters} == {"UNKNOWN_OUTCOME"}
            assert len(letters) == 5
            assert all(letter.held for letter in letters)
        assert set(made.inserted().values()) <= {1}


def test_a_row_of_which_a_job_says_nothing_is_held_and_not_sent_again(tmp_path: Path) -> None:
    """The vendor wrote it, and its results do not name it: nobody knows, so nobody inserts it a second time."""
    with org_with_accounts(tmp_path, "insert") as made:
        made.killed_at("collect", 1, applied=True)
        made.org.disturb(Trouble(rewrite=_without_last_line), where=lambda request: "successful" in request.path)
        with Service(project_of(tmp_path, made.org.url, "insert")) as service:
            service.run("accounts")
            (letter,) = service.dead_letters("accounts")
            assert (letter.error_code, letter.held) == ("UNKNOWN_OUTCOME", True)
            newest, killed, *_ = service.runs("accounts")
        assert newest.counters.balanced()
        assert killed.counters.balanced()
        assert set(made.inserted().values()) == {1}
        assert len(made.inserted()) == ROWS


def _without_last_line(reply: Reply) -> Reply:
    return Reply(reply.status, b"\n".join(reply.body.splitlines()[:-1]) + b"\n", dict(reply.headers))


def test_a_run_that_is_stopped_between_upload_and_start_holds_nothing(tmp_path: Path) -> None:
    """Its job is aborted: the next run inserts the rows, and no one has to say whether they arrived."""
    with org_with_accounts(tmp_path, "insert") as made:
        stop = threading.Event()
        made.org.disturb(Trouble(after=stop.set, delay=1.5), where=lambda request: request.method == "PUT")
        with Service(project_of(tmp_path, made.org.url, "insert")) as service:
            with pytest.raises(CancelledError):
                service.run("accounts", stop=stop)
            assert service.dead_letters("accounts") == []
            assert made.inserted() == {}
            assert [job.state for job in made.org.jobs.jobs.values()] == ["Aborted"]
            assert service.run("accounts").run.counters.written == ROWS
        assert set(made.inserted().values()) == {1}
