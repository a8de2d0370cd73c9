"""`retl run`, `plan`, `runs`, `dlq`: real rows into real destinations, through Dagster."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from cli_shop import TOKEN, Shop

from dagster_retl import Project, Service
from dagster_retl.model.runs import RunStatus

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def test_a_run_writes_the_rows_and_prints_the_apis_attributes(shop: Shop, dagster_home: Path) -> None:
    run = shop.document("run", "people_table")
    assert shop.table("SELECT * FROM people ORDER BY id") == [
        (1, "Ada", "ada@example.com"),
        (2, "Zoë", "nowhere"),
        (9007199254740993, "山田 花子", None),
    ]
    counted = {
        name: run[name] for name in ("rows_read", "rows_written", "rows_failed", "rows_unchanged", "rows_deleted")
    }
    assert counted == {"rows_read": 3, "rows_written": 3, "rows_failed": 0, "rows_unchanged": 0, "rows_deleted": 0}
    assert run["id"].startswith("retl_run_")
    assert run["sync_id"].startswith("retl_sync_")
    assert (run["status"], run["error"], run["full_refresh"], run["dry_run"]) == ("succeeded", None, False, False)
    assert all(UTC_TIME.fullmatch(run[name]) for name in ("created_at", "started_at", "finished_at"))
    created, started, finished = (
        datetime.fromisoformat(run[f"{name}_at"]) for name in ("created", "started", "finished")
    )
    assert created <= started <= finished
    assert run["duration_s"] == (finished - started).total_seconds()
    assert _dagster_runs(dagster_home)[run["dagster_run_id"]] == "SUCCESS"


def test_a_second_run_writes_nothing_and_says_so_to_people(shop: Shop) -> None:
    shop.document("run", "people_table")
    result = shop.call("run", "people_table")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"unchanged\s+3\b", result.stdout)
    assert re.search(r"written\s+0\b", result.stdout)
    assert result.stderr == ""
    again = shop.document("run", "people_table", "--full-refresh")
    assert (again["rows_written"], again["full_refresh"]) == (3, True)
    listed = shop.document("runs", "list")
    assert [run["rows_written"] for run in listed] == [3, 0, 3]
    assert shop.document("runs", "show", listed[0]["id"].removeprefix("retl_run_")) == listed[0]
    assert shop.document("runs", "list", "seats") == []
    assert len(shop.document("runs", "list", "people_table", "--limit", "2", "--status", "succeeded")) == 2


def test_dead_letters_from_refusal_to_replay(shop: Shop) -> None:
    run = shop.document("run", "people_service", code=3)
    assert (run["rows_written"], run["rows_failed"], run["dead_letters_opened"]) == (2, 1, 1)
    (letter,) = shop.document("dlq", "list", "people_service")
    assert (letter["error_code"], letter["record_keys"], letter["attempts"]) == ("DESTINATION_VALIDATION", {"id": 2}, 1)
    assert (letter["resolved"], letter["run_id"]) == (False, run["id"])
    short = letter["id"].removeprefix("retl_dlq_")
    assert shop.document("dlq", "show", short) == letter
    assert shop.document("dlq", "stats")["by_error_code"] == {"DESTINATION_VALIDATION": 1}

    assert shop.document("dlq", "replay", short, code=3)[0]["rows_failed"] == 1
    shop.warehouse("UPDATE people SET email = 'zoe@example.com' WHERE id = 2")
    (replay,) = shop.document("dlq", "replay", "--all")
    assert (replay["rows_written"], replay["trigger"]) == (1, "replay")
    assert shop.service.records["people"]["2"]["email"] == "zoe@example.com"
    assert shop.document("dlq", "list") == []
    assert shop.document("dlq", "list", "--resolved")[0]["id"] == letter["id"]
    assert shop.document("dlq", "replay", "--sync", "people_service") == []


def test_a_replay_waits_while_its_sync_is_running_and_goes_on_when_asked_again(shop: Shop) -> None:
    shop.document("run", "people_service", code=3)
    shop.warehouse("UPDATE people SET email = 'zoe@example.com' WHERE id = 2")
    with Service.open(Project.load(shop.folder / "retl.yaml")) as service:
        lease = service.store.leases.acquire(service.find("people_service").id, "retl_run_busy")
        (waits,) = shop.document("dlq", "replay", "--all")
        assert (waits["status"], waits["trigger"]) == ("queued", "replay")
        shown = shop.call("dlq", "replay", "--all")
        assert "queued" in shown.stdout
        assert [run.id for run in service.runs(status=RunStatus.QUEUED)] == [waits["id"]]
        service.store.leases.release(lease)
    with closing(sqlite3.connect(shop.folder / ".retl" / "retl.db")) as store, store:
        store.execute("UPDATE runs SET created_at = '2000-01-01T00:00:00.000000Z' WHERE id = ?", [waits["id"]])
    (done,) = shop.document("dlq", "replay", "--all")
    assert (done["id"], done["status"], done["rows_written"]) == (waits["id"], "succeeded", 1)
    assert shop.document("dlq", "list") == []


def test_a_replay_waits_while_dagster_cannot_be_reached(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.document("run", "people_service", code=3)
    monkeypatch.setenv("RETL_DAGSTER_URL", "http://127.0.0.1:9")
    result = shop.call("dlq", "replay", "--all", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["status"] == "queued"
    assert "cannot be reached" in result.stderr


def test_dead_letters_are_readable_without_json(shop: Shop) -> None:
    assert shop.call("run", "people_service").exit_code == 3
    listed = shop.call("dlq", "list")
    assert listed.exit_code == 0
    for piece in ("people_service", "id=2", "DESTINATION_VALIDATION", "email 'nowhere' is no address"):
        assert piece in listed.stdout
    (letter,) = shop.document("dlq", "list")
    shown = shop.call("dlq", "show", letter["id"])
    assert "email 'nowhere' is no address" in shown.stdout
    closed = shop.call("dlq", "resolve", letter["id"], "--resolution", "skipped")
    assert closed.stdout == "1 resolved as skipped\n"
    assert shop.document("dlq", "resolve", letter["id"], "--resolution", "skipped")["resolved_ids"] == []
    run = shop.document("run", "people_service")
    assert (run["rows_skipped"], run["rows_failed"]) == (1, 0)


def test_keys_and_limits_choose_rows(shop: Shop) -> None:
    by_key = shop.document("run", "people_table", "--key", "9007199254740993", "--key", "id=1")
    assert (by_key["rows_written"], shop.table("SELECT id FROM people ORDER BY id")) == (2, [(1,), (9007199254740993,)])
    seat = shop.document("run", "seats", "--key", "region=EU,number=2")
    assert (seat["rows_written"], shop.table("SELECT * FROM seats")) == (1, [("EU", 2, 8)])
    limited = shop.document("run", "seats", "--limit", "1")
    assert limited["rows_written"] + limited["rows_skipped"] + limited["rows_unchanged"] == 2


def test_a_plan_and_a_dry_run_write_nothing(shop: Shop) -> None:
    plan = shop.document("plan", "people_service")
    counted = {
        name: plan[name] for name in ("rows_read", "rows_added", "rows_changed", "rows_unchanged", "rows_deleted")
    }
    assert counted == {"rows_read": 3, "rows_added": 3, "rows_changed": 0, "rows_unchanged": 0, "rows_deleted": 0}
    assert {sample["change"] for sample in plan["samples"]} == {"create"}
    assert (plan["guards"], shop.document("runs", "list")) == ([], [])
    shown = shop.call("plan", "people_service")
    assert "山田 花子" in shown.stdout
    dry = shop.document("run", "people_service", "--dry-run")
    assert (dry["dry_run"], dry["rows_written"], shop.service.applied) == (True, 0, [])


def test_a_baseline_sends_nothing(shop: Shop) -> None:
    done = shop.document("baseline", "people_service")
    assert (done["baseline"], done["rows_unchanged"], done["rows_written"]) == (True, 3, 0)
    shop.warehouse("UPDATE people SET name = 'Ada L.' WHERE id = 1")
    run = shop.document("run", "people_service")
    assert (run["baseline"], run["rows_unchanged"], run["rows_written"]) == (False, 2, 1)
    assert set(shop.service.records["people"]) == {"1"}


def test_a_baseline_says_so_to_people(shop: Shop) -> None:
    result = shop.call("baseline", "people_table")
    assert result.exit_code == 0, result.stderr
    assert "(baseline: nothing was sent)" in result.stdout
    assert shop.call("baseline", "people_table", "--reset", "--keep-snapshot").exit_code == 2


def test_a_guard_stops_the_run_until_it_is_overridden(shop: Shop) -> None:
    shop.document("run", "people_service", code=3)
    shop.warehouse("DELETE FROM people")
    assert {guard["guard"] for guard in shop.document("plan", "people_service")["guards"]} == {"deletes", "shrink"}
    failed = shop.document("run", "people_service", code=1)
    assert (failed["status"], failed["error"]["code"], failed["error"]["guard"]) == (
        "failed",
        "GUARD_TRIPPED",
        "deletes",
    )
    told = shop.call("run", "people_service")
    assert told.exit_code == 1
    assert "--override deletes" in told.stdout
    done = shop.document("run", "people_service", "--override", "deletes", "--override", "shrink")
    assert (done["rows_removed"], done["rows_deleted"], shop.service.records["people"]) == (2, 2, {})


def test_secrets_are_in_no_answer(shop: Shop) -> None:
    shop.service.rules = shop.service.rules.__class__(token="another")
    answers = [
        shop.call(*arguments)
        for arguments in (
            ("check",),
            ("check", "--json"),
            ("run", "people_service"),
            ("run", "people_service", "--json"),
            ("syncs", "show", "people_service", "--json"),
            ("runs", "list", "--json"),
        )
    ]
    assert [answer.exit_code for answer in answers] == [1, 1, 1, 1, 0, 0]
    assert all(TOKEN not in answer.output for answer in answers)


def test_an_unreachable_destination_is_told_as_such(shop: Shop) -> None:
    shop.service.close()
    result = shop.call("plan", "people_service")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "refused" in result.output.lower()


@pytest.mark.long
def test_ctrl_c_ends_the_run_in_good_order(shop: Shop) -> None:
    shop.service.latency = 1.0
    shop.warehouse("INSERT INTO people SELECT range + 10, 'N', NULL FROM range(5000)")
    command = [sys.executable, "-c", "from dagster_retl.cli import main; main()", "run", "people_service", "--json"]
    with subprocess.Popen(command, cwd=shop.folder, stdout=subprocess.PIPE, text=True) as process:
        while sum(request.method == "POST" for request in shop.service.requests) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        run = json.loads(process.communicate(timeout=60)[0])
    assert (process.returncode, run["status"], run["error"]["code"]) == (1, "cancelled", "CANCELLED")
    ended = ("written", "failed", "unchanged", "skipped", "unknown")
    assert run["rows_read"] == 5003 == sum(run[f"rows_{name}"] for name in ended)
    assert run["rows_written"] == len(shop.service.records["people"])


def _dagster_runs(home: Path) -> dict[str, str]:
    """Run id → status, as Dagster's own storage has them."""
    with closing(sqlite3.connect(home / "history" / "runs.db")) as connection:
        return dict(connection.execute("SELECT run_id, status FROM runs").fetchall())
