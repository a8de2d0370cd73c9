"""Leases: one holder at a time, fencing, expiry by the store's clock, dead processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest
from sqlalchemy import update

from dagster_retl.errors import LeaseHeldError, LeaseLostError, NotFoundError
from dagster_retl.store.processes import ProcessIdentity
from dagster_retl.store.schema import leases
from dagster_retl.store.store import Store


def test_a_free_sync_is_taken_and_a_live_holder_stops_the_next(store: Store) -> None:
    lease = store.leases.acquire("s", "run_1")
    assert (lease.token, lease.previous_run_id) == (1, None)
    with pytest.raises(LeaseHeldError, match="run_1") as caught:
        store.leases.acquire("s", "run_2")
    assert caught.value.run_id == "run_1"
    assert abs(caught.value.since - store.now()) < timedelta(seconds=10)
    assert "terminate its run in Dagster" in str(caught.value)
    assert store.leases.acquire("other", "run_3").token == 1


def test_a_released_sync_is_free_and_its_token_grows(store: Store) -> None:
    first = store.leases.acquire("s", "run_1")
    assert store.leases.release(first)
    assert store.leases.holder("s") is None
    second = store.leases.acquire("s", "run_2")
    assert (second.token, second.previous_run_id) == (2, None)
    assert not store.leases.release(first)
    holder = store.leases.holder("s")
    assert holder is not None
    assert holder.run_id == "run_2"


def test_an_expired_lease_is_taken_and_names_the_run_it_was_taken_from(store: Store) -> None:
    first = store.leases.acquire("s", "run_1", ttl=0.05)
    time.sleep(0.06)
    assert [holder.run_id for holder in store.leases.expired()] == ["run_1"]
    second = store.leases.acquire("s", "run_2")
    assert (second.token, second.previous_run_id) == (2, "run_1")
    assert store.leases.expired() == []
    with pytest.raises(LeaseLostError, match="run_1"):
        store.leases.heartbeat(first)


def test_a_heartbeat_extends(store: Store) -> None:
    lease = store.leases.acquire("s", "run_1", ttl=0.3)
    for _ in range(4):
        time.sleep(0.1)
        lease = store.leases.heartbeat(lease)
    assert lease.expires_at > store.now()
    with pytest.raises(LeaseHeldError):
        store.leases.acquire("s", "run_2")


def test_the_deadline_is_never_later_than_the_expiry(store: Store) -> None:
    before = time.monotonic()
    lease = store.leases.acquire("s", "run_1", ttl=30)
    left = (lease.expires_at - store.now()).total_seconds()
    assert before + 30 <= lease.deadline <= time.monotonic() + left
    later = store.leases.heartbeat(lease)
    assert later.deadline > lease.deadline


def test_the_fence_lets_only_the_holder_write(store: Store) -> None:
    lease = store.leases.acquire("s", "run_1", ttl=0.0)
    with store.fenced(lease) as conn:  # expired, but nobody took it
        store.audit.add(conn, "run_1", "write", "s")
    thief = store.leases.acquire("s", "run_2")
    with pytest.raises(LeaseLostError), store.fenced(lease) as conn:
        store.audit.add(conn, "run_1", "late write", "s")
    with store.fenced(thief) as conn:
        store.leases.release(thief, conn)
    with pytest.raises(LeaseLostError), store.fenced(thief) as conn:
        store.audit.add(conn, "run_2", "write after release", "s")
    assert [entry.action for _, entry in store.audit.list()] == ["write"]


def test_an_earlier_attempt_of_the_same_run_is_fenced_too(store: Store) -> None:
    first = store.leases.acquire("s", "run_1", ttl=0.0)
    second = store.leases.acquire("s", "run_1")
    assert second.previous_run_id == "run_1"
    with pytest.raises(LeaseLostError), store.fenced(first):
        pytest.fail("the fence is open")
    assert not store.leases.release(first)
    assert store.leases.heartbeat(second).token == 2


def test_a_release_in_a_failed_commit_did_not_happen(store: Store) -> None:
    lease = store.leases.acquire("s", "run_1")

    def release_and_fail() -> None:
        with store.fenced(lease) as conn:
            assert store.leases.release(lease, conn)
            store.runs.set_epoch(conn, "no such run", "e")

    with pytest.raises(NotFoundError):
        release_and_fail()
    assert store.leases.holder("s") is not None


def test_a_thief_waits_for_a_fenced_transaction(store: Store) -> None:
    lease = store.leases.acquire("s", "run_1", ttl=0.0)
    seen: list[str] = []

    def steal() -> None:
        store.leases.acquire("s", "run_2")
        seen.append("stolen")

    with store.fenced(lease):
        thief = threading.Thread(target=steal)
        thief.start()
        time.sleep(0.2)
        seen.append("committed")
    thief.join(timeout=10)
    assert seen == ["committed", "stolen"]


HOLD = """
import sys, time
from dagster_retl.store.store import Store
store = Store.open(sys.argv[1])
print(store.leases.acquire("s", "run_1").token, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_the_lease_of_a_killed_process_is_free_at_once(store: Store, store_url: str, reaped: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, store_url], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(LeaseHeldError):
            store.leases.acquire("s", "run_2")
        holder.kill()
        if reaped:
            holder.wait()
        else:
            while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        assert [dead.run_id for dead in store.leases.expired()] == ["run_1"]
        lease = store.leases.acquire("s", "run_2")
    assert (lease.token, lease.previous_run_id) == (2, "run_1")


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"boot_id": "another"}])
def test_nothing_is_concluded_about_processes_elsewhere(store: Store, elsewhere: dict[str, str]) -> None:
    store.leases.acquire("s", "run_1")
    with store.begin() as conn:
        conn.execute(update(leases).values(pid=2**22 + 1, **elsewhere))
    with pytest.raises(LeaseHeldError):
        store.leases.acquire("s", "run_2")
    with store.begin() as conn:
        conn.execute(
            update(leases).values(host=ProcessIdentity.current().host, boot_id=ProcessIdentity.current().boot_id)
        )
    assert store.leases.acquire("s", "run_2").previous_run_id == "run_1"


def test_a_pid_that_was_given_to_another_process_is_not_its_holder() -> None:
    me = ProcessIdentity.current()
    assert not me.gone()
    assert replace(me, started=me.started - 60).gone()


RACE = """
import sys
from dagster_retl.errors import LeaseHeldError
from dagster_retl.store.store import Store
store = Store.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    try:
        print(number, store.leases.acquire(f"s{number}", sys.argv[2]).token)
    except LeaseHeldError:
        pass
sys.stdout.flush()
sys.stdin.readline()  # a holder that ended would be dead, and its leases free
"""


def test_of_two_racing_processes_exactly_one_wins(store: Store, store_url: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, store_url, f"run_{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    deadline = time.monotonic() + 20
    while any(store.leases.holder(f"s{number}") is None for number in range(20)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    wins = [line for racer in racers for line in racer.communicate("end\n", timeout=20)[0].splitlines()]
    assert sorted(wins, key=lambda line: int(line.split()[0])) == [f"{number} 1" for number in range(20)]
