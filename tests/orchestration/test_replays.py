"""The replay sensor: what was asked for is on record, and is launched once, as soon as that can be."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene import QUIET
from worlds import World, world

from dagster_retl.errors import ConflictError, ErrorCode
from dagster_retl.model.rows import Operation
from dagster_retl.model.runs import REPLAY, Run, RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.build import build_definitions
from dagster_retl.orchestration.replays import ATTEMPTS, LAUNCHES, replay_sensor
from dagster_retl.service import Service
from dagster_retl.store.dead_letters import Failure
from dagster_retl.testing import Rules

JOBS = {"retl_syncs": dg.define_asset_job("retl_syncs")}


def no_bad(record: Mapping[str, Any]) -> str | None:
    return "a name cannot be bad" if str(record.get("name")).startswith("bad") else None


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    """Two rows that were refused and are mended now."""
    with world(tmp_path, Rules(refuse=no_bad)) as made:
        made.put((1, "bad", 1), (2, "bad", 2), (3, "good", 3))
        made.run()
        made.put((1, "mended", 1), (2, "mended", 2), (3, "changed", 3))
        yield made


def evaluate(made: World, instance: dg.DagsterInstance) -> dg.SensorResult:
    """One tick of a fresh sensor."""
    context = dg.build_sensor_context(instance=instance)
    result = replay_sensor(made.project, lambda: Service.open(made.project), JOBS)(context)
    assert isinstance(result, dg.SensorResult)
    return result


def reason(made: World, instance: dg.DagsterInstance) -> str:
    """Why a tick launches nothing."""
    result = evaluate(made, instance)
    assert not result.run_requests
    assert result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def request(made: World, instance: dg.DagsterInstance) -> dg.RunRequest:
    """The one thing that a tick launches."""
    [found] = evaluate(made, instance).run_requests or []
    return found


def execute(made: World, instance: dg.DagsterInstance, asked: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """What Dagster makes of a request."""
    job = build_definitions(made.project).resolve_job_def("retl_syncs")
    return job.execute_in_process(
        instance=instance,
        run_config={**asked.run_config, "loggers": QUIET},
        asset_selection=list(asked.asset_selection or []),
        tags=dict(asked.tags),
        raise_on_error=False,
    )


def ask(made: World, *keys: int) -> Run:
    """Have entries sent again; the run that is to do it."""
    [replay] = made.service.queue_replays([made.letters()[key].id for key in keys], actor="ann")
    return replay.run


def a_minute_passes(made: World) -> None:
    made.store("UPDATE runs SET created_at = '2000-01-01T00:00:00.000000Z' WHERE status = 'queued'")


def test_nothing_waits(made: World, instance: dg.DagsterInstance) -> None:
    assert reason(made, instance) == "no replay waits"


def test_a_replay_that_was_asked_for_is_sent_once(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1, 2)
    a_minute_passes(made)
    asked = request(made, instance)
    assert asked.asset_selection == [dg.AssetKey(["retl", "things"])]
    expected = {"retl/sync": "things", "retl/trigger": "replay", "retl/run": run.id}
    assert expected.items() <= dict(asked.tags).items()
    assert execute(made, instance, asked).success
    done = made.service.run_of(run.id)
    assert (done.status, done.trigger, done.counters.written) == (RunStatus.SUCCEEDED, REPLAY, 2)
    assert made.names() == {"1": "mended", "2": "mended", "3": "good"}
    assert made.letters() == {}
    assert reason(made, instance) == "no replay waits"


def test_whoever_asks_has_a_minute_to_launch_it(made: World, instance: dg.DagsterInstance) -> None:
    ask(made, 1)
    assert reason(made, instance) == "no replay waits"


def test_a_tick_that_is_evaluated_again_asks_for_the_same_run(made: World, instance: dg.DagsterInstance) -> None:
    ask(made, 1)
    a_minute_passes(made)
    assert request(made, instance).run_key == request(made, instance).run_key


def test_it_waits_while_the_sync_is_running_and_takes_more_meanwhile(made: World, instance: dg.DagsterInstance) -> None:
    lease = made.service.store.leases.acquire(made.project.syncs[0].id, "retl_run_busy")
    run = ask(made, 1)
    a_minute_passes(made)
    assert "is being run by retl_run_busy" in reason(made, instance)
    assert ask(made, 2).id == run.id
    made.service.store.leases.release(lease)
    execute(made, instance, request(made, instance))
    assert made.service.run_of(run.id).counters.written == 2
    assert sorted(each.trigger for each in made.service.runs()) == ["manual", REPLAY]


def test_it_waits_while_the_sync_is_disabled(made: World, instance: dg.DagsterInstance) -> None:
    ask(made, 1)
    a_minute_passes(made)
    made.service.set_enabled("things", False, actor="ann")
    assert "sync 'things' is disabled" in reason(made, instance)
    with pytest.raises(ConflictError, match="disabled"):
        ask(made, 2)
    made.service.set_enabled("things", True, actor="ann")
    assert request(made, instance).run_key


def test_it_waits_while_the_destination_is_down(made: World, instance: dg.DagsterInstance) -> None:
    store, sync = made.service.store, made.project.syncs[0]
    failed = store.runs.create(sync.id, sync.slug)
    with store.begin() as conn:
        store.runs.finish(conn, failed.id, RunStatus.FAILED, failed.counters, error_code=ErrorCode.DESTINATION_DOWN)
    ask(made, 1)
    a_minute_passes(made)
    assert "destination http_service is down" in reason(made, instance)


def test_what_was_resolved_meanwhile_is_dropped(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1, 2)
    a_minute_passes(made)
    asked = request(made, instance)
    made.service.resolve([made.letters()[1].id], "fixed_upstream", actor="ann")
    execute(made, instance, asked)
    done = made.service.run_of(run.id)
    assert (done.counters.written, made.names()) == (1, {"2": "mended", "3": "good"})
    assert [key["id"] for key in done.options["keys"]] == [2]


def test_a_replay_of_which_nothing_is_left_is_cancelled(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1, 2)
    made.run()
    a_minute_passes(made)
    assert "nothing is left to send again" in reason(made, instance)
    assert made.service.run_of(run.id).status is RunStatus.CANCELLED
    assert reason(made, instance) == "no replay waits"


def test_nothing_left_when_it_begins_is_no_run_of_everything(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1, 2)
    a_minute_passes(made)
    asked = request(made, instance)
    made.service.resolve([letter.id for letter in made.letters().values()], "skipped", actor="ann")
    before = made.writes()
    assert not execute(made, instance, asked).success
    assert made.service.run_of(run.id).status is RunStatus.CANCELLED
    assert made.writes() == before


def test_a_replay_that_a_live_run_turned_away_waits_again(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1, 2)
    a_minute_passes(made)
    asked = request(made, instance)
    lease = made.service.store.leases.acquire(made.project.syncs[0].id, "retl_run_busy")
    assert not execute(made, instance, asked).success
    assert made.service.run_of(run.id).status is RunStatus.QUEUED
    assert made.letters()[1].replaying
    made.service.store.leases.release(lease)
    again = request(made, instance)
    assert again.run_key != asked.run_key
    execute(made, instance, again)
    assert made.service.run_of(run.id).counters.written == 2


@dg.op
def broken() -> None:
    raise dg.Failure("this worker cannot start")


def lose(run: Run, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A Dagster run of the replay that ends before it begins it."""
    job = dg.GraphDefinition("lost", node_defs=[broken]).to_job()
    result = job.execute_in_process(
        instance=instance, raise_on_error=False, tags={"retl/run": run.id}, run_config={"loggers": QUIET}
    )
    found = instance.get_run_by_id(result.run_id)
    assert found is not None
    return found


def test_a_dagster_run_that_is_lost_is_replaced_but_not_for_ever(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1)
    a_minute_passes(made)
    keys = []
    for _ in range(ATTEMPTS):
        keys.append(request(made, instance).run_key)
        lose(run, instance)
    assert len(set(keys)) == ATTEMPTS
    assert f"{ATTEMPTS} Dagster runs ended before it began" in reason(made, instance)
    closed = made.service.run_of(run.id)
    assert (closed.status, closed.error_code) == (RunStatus.FAILED, ErrorCode.INTERRUPTED)
    assert not made.letters()[1].replaying


def test_a_replay_whose_dagster_run_somebody_cancelled_is_cancelled(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1)
    a_minute_passes(made)
    instance.report_run_canceled(lose(run, instance))
    assert "was cancelled" in reason(made, instance)
    assert made.service.run_of(run.id).status is RunStatus.CANCELLED
    assert not made.letters()[1].replaying


def test_a_replay_that_is_on_its_way_is_left_alone(made: World, instance: dg.DagsterInstance) -> None:
    run = ask(made, 1)
    a_minute_passes(made)
    said: list[str] = []

    @dg.op
    def look(context: dg.OpExecutionContext) -> None:
        said.append(reason(made, context.instance))

    job = dg.GraphDefinition("under_way", node_defs=[look]).to_job()
    job.execute_in_process(instance=instance, tags={"retl/run": run.id}, run_config={"loggers": QUIET})
    assert "is on its way" in said[0]


def test_a_replay_that_waits_keeps_no_run_from_starting(made: World, instance: dg.DagsterInstance) -> None:
    ask(made, 1)
    sync = made.project.syncs[0]
    with pytest.raises(ConflictError, match="queued"):
        made.service.queue_all({sync.id: RunOptions()}, trigger="api", actor="ann")
    a_minute_passes(made)
    [run] = made.service.queue_all({sync.id: RunOptions()}, trigger="api", actor="ann")
    assert run.status is RunStatus.QUEUED


def test_a_tick_launches_so_many_and_the_next_one_others(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    with world(tmp_path) as plain:
        made = crowd(plain, LAUNCHES + 1)
        with made.service.store.begin() as conn:
            for sync in made.project.syncs:
                made.service.store.dead_letters.fail(conn, sync.id, "e", "retl_run_x", [FAILURE])
        entries = [letter.id for letter in made.service.dead_letters(limit=200)]
        replays = made.service.queue_replays(entries, actor="ann")
        assert len({replay.run.id for replay in replays}) == LAUNCHES + 1
        a_minute_passes(made)
        keys = {str(each.run_key) for each in evaluate(made, instance).run_requests or []}
        assert len(keys) == LAUNCHES
        for run in made.service.runs():
            if f"{run.id}/0" in keys:
                made.service.close_replay(run, RunStatus.CANCELLED, "enough of it")
        assert len(evaluate(made, instance).run_requests or []) == 1


FAILURE = Failure(
    key="k",
    record_keys='{"id": 1}',
    code=ErrorCode.DESTINATION_VALIDATION,
    message="x",
    operation=Operation.UPSERT,
    rejection=True,
)


def crowd(made: World, count: int) -> World:
    """The same world with so many syncs."""
    one = made.project.syncs[0].model_dump(exclude_unset=True, exclude={"id", "slug"})
    syncs = tuple(Sync(**{**one, "name": f"s{number}", "object_name": f"o{number}"}) for number in range(count))
    project = made.project.model_copy(update={"syncs": syncs})
    return World(project, Service(project), made.http, made.warehouse)


Step = tuple[str, frozenset[int]]
KEYS = st.frozensets(st.integers(1, 4), min_size=1)
STEPS = st.lists(st.tuples(st.sampled_from(["ask", "resolve", "run", "send"]), KEYS), max_size=12)


@pytest.mark.long
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_meanwhile_all_that_was_asked_for_is_sent(
    steps: Sequence[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        world(tmp_path_factory.mktemp("replays"), Rules(refuse=no_bad)) as made,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        made.put(*[(key, "bad", key) for key in range(1, 5)])
        made.run()
        made.put(*[(key, "mended", key) for key in range(1, 5)])
        wanted: set[int] = set()
        for what, keys in steps:
            wanted = take(made, instance, what, keys, wanted)
            waiting = {run.id for run in made.service.runs() if run.status is RunStatus.QUEUED}
            marked = dict(made.store("SELECT id, replay_run_id FROM dead_letters WHERE replay_run_id IS NOT NULL"))
            assert set(marked.values()) <= waiting
            assert len(set(marked.values())) <= 1
            assert {key for key, letter in made.letters().items() if letter.replaying} == wanted
        take(made, instance, "send", frozenset(), wanted)
        assert all(made.names()[str(key)] == "mended" for key in wanted)
        assert not any(run.status is RunStatus.QUEUED for run in made.service.runs())


def take(made: World, instance: dg.DagsterInstance, what: str, keys: frozenset[int], wanted: set[int]) -> set[int]:
    """One step; which keys a replay is to send after it."""
    chosen = [letter.id for key, letter in made.letters().items() if key in keys]
    opened = {key for key in made.letters() if key in keys}
    if what == "ask":
        made.service.queue_replays(chosen, actor="ann")
        return wanted | opened
    if what == "resolve":
        made.service.resolve(chosen, "skipped", actor="ann")
        return wanted - keys
    if what == "run":
        made.run()
        return set()
    a_minute_passes(made)
    for asked in evaluate(made, instance).run_requests or []:
        assert execute(made, instance, asked).success
    return set()


def test_the_sensor_runs_unless_writes_are_off(made: World) -> None:
    on = replay_sensor(made.project, lambda: made.service, JOBS)
    off = replay_sensor(made.project.model_copy(update={"writes": False}), lambda: made.service, JOBS)
    assert (on.name, on.minimum_interval_seconds) == ("retl_replays", 30)
    assert on.default_status is dg.DefaultSensorStatus.RUNNING
    assert off.default_status is dg.DefaultSensorStatus.STOPPED
