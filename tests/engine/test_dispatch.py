"""One batch until every row has an answer, against a writer that is told what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.changes.outcomes import Status
from dagster_retl.connectors.base import ConnectorConfig, ConnectorSpec, DirectConnector
from dagster_retl.engine.answers import Answer
from dagster_retl.engine.breaker import Breaker, RefusalWatch
from dagster_retl.engine.concurrency import Gate
from dagster_retl.engine.dispatch import ROW_ATTEMPTS, Dispatch, _Part
from dagster_retl.engine.pacing import Pacer
from dagster_retl.engine.transport import PATIENCE, Traffic
from dagster_retl.engine.turns import Turns
from dagster_retl.engine.writers import DirectWriter, Reply
from dagster_retl.errors import DestinationError, ErrorCode, GuardTrippedError
from dagster_retl.model.rows import Account, Batch, Fault, FieldInfo, ObjectInfo, Operation, RowResult


@dataclass(frozen=True)
class PlainRow:
    key: str
    record_id: str | None = None
    idempotency_key: str = ""
    key_values: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def json(self) -> orjson.Fragment:
        return orjson.Fragment("{}")


class Plain(DirectConnector):
    """A connector of which only the declarations matter here."""

    spec = ConnectorSpec("plain", "Plain", frozenset({"upsert", "insert"}))
    Config = ConnectorConfig

    def check(self) -> Account:
        return Account("a", "a")

    def objects(self) -> list[ObjectInfo]:
        return []

    def fields(self, object_name: str) -> list[FieldInfo]:
        return []

    def write(self, batch: Batch) -> list[RowResult]:
        return []


class Script:
    """A writer whose answer is a function of the keys it is given. `sent` is what it was given."""

    def __init__(self, answer: Callable[[list[str]], Reply]) -> None:
        self.answer = answer
        self.sent: list[list[str]] = []
        self.traffic = Traffic()

    def write(self, batch: Batch) -> Reply:
        keys = [row.key for row in batch.rows]
        self.sent.append(keys)
        return self.answer(keys)

    def close(self) -> None:
        pass


def send(
    script: Script, keys: Sequence[str], operation: Operation = Operation.UPSERT, **settings: Any
) -> tuple[dict[str, Answer], Dispatch]:
    batch = Batch("thing", operation, [PlainRow(key) for key in keys], ("id",))
    dispatch = Dispatch(batch, script, Plain(ConnectorConfig()), Breaker(200), threading.Event(), **settings)
    answers = dispatch.send()
    return dict(zip(keys, answers, strict=True)), dispatch


def accepted(keys: list[str]) -> Reply:
    return Reply([RowResult(key) for key in keys])


def refusing(poison: set[str], code: ErrorCode = ErrorCode.BATCH_REJECTED) -> Callable[[list[str]], Reply]:
    def answer(keys: list[str]) -> Reply:
        if poison & set(keys):
            return Reply(error=DestinationError("bad row", code=code, vendor_code="E1"))
        return accepted(keys)

    return answer


@given(st.integers(1, 40), st.data())
def test_a_bad_row_never_takes_its_batch_down(size: int, data: st.DataObject) -> None:
    keys = [f"k{n}" for n in range(size)]
    poison = set(data.draw(st.lists(st.sampled_from(keys), unique=True)))
    answers, dispatch = send(Script(refusing(poison)), keys)
    assert dispatch.abort is None
    for key, answer in answers.items():
        assert answer.status is (Status.FAILED if key in poison else Status.WRITTEN)
    assert all(
        a.fault is not None and a.fault.code is ErrorCode.DESTINATION_VALIDATION
        for k, a in answers.items()
        if k in poison
    )


def test_one_bad_row_in_two_hundred_costs_few_requests() -> None:
    script = Script(refusing({"k77"}))
    send(script, [f"k{n}" for n in range(200)])
    assert len(script.sent) <= 18


def test_a_refused_batch_of_inserts_is_not_split_unless_refusals_are_atomic() -> None:
    answers, _ = send(Script(refusing({"b"})), ["a", "b"], Operation.INSERT)
    assert {answer.fault.code for answer in answers.values() if answer.fault} == {ErrorCode.UNKNOWN_OUTCOME}
    assert all(answer.held for answer in answers.values())


def test_a_row_without_an_answer_has_an_unknown_outcome() -> None:
    answers, _ = send(Script(lambda keys: accepted(keys[:1])), ["a", "b"])
    assert answers["a"].status is Status.WRITTEN
    assert answers["b"].fault is not None
    assert answers["b"].fault.code is ErrorCode.UNKNOWN_OUTCOME
    assert answers["b"].ambiguous
    assert not answers["b"].held


def test_a_locked_row_is_sent_again_alone() -> None:
    locked = iter([True, True, False])

    def answer(keys: list[str]) -> Reply:
        if "b" in keys and next(locked):
            fault = Fault(ErrorCode.DESTINATION_LOCKED, "locked")
            return Reply([RowResult(key, fault if key == "b" else None) for key in keys])
        return accepted(keys)

    script = Script(answer)
    answers, _ = send(script, ["a", "b", "c"])
    assert script.sent == [["a", "b", "c"], ["b"], ["b"]]
    assert {answer.status for answer in answers.values()} == {Status.WRITTEN}


LIMITED = Fault(ErrorCode.RATE_LIMIT, "slow down")


@pytest.mark.long
def test_a_row_over_a_rate_limit_waits_for_as_long_as_it_takes() -> None:
    """Waiting is no attempt: a locked row would have failed by then."""
    script = Script(
        lambda keys: Reply([RowResult(key, LIMITED if len(script.sent) <= ROW_ATTEMPTS else None) for key in keys])
    )
    pauses: list[float] = []
    answers, _ = send(script, ["a"], pause=pauses.append)
    assert answers["a"].status is Status.WRITTEN
    assert (len(pauses), script.traffic.retries) == (ROW_ATTEMPTS, 0)


def test_a_batch_over_a_rate_limit_waits_whole() -> None:
    """Some vendors say so in an answer of 200, so that no status tells the transport."""
    error = DestinationError("ratelimited", code=ErrorCode.RATE_LIMIT)
    script = Script(lambda keys: Reply(error=error) if len(script.sent) == 1 else accepted(keys))
    answers, dispatch = send(script, ["a", "b"])
    assert dispatch.abort is None
    assert {answer.status for answer in answers.values()} == {Status.WRITTEN}
    assert script.sent == [["a", "b"]] * 2


@pytest.mark.parametrize(
    "reply", [Reply([RowResult("a", LIMITED)]), Reply(error=DestinationError("x", code=LIMITED.code))]
)
@pytest.mark.parametrize(("waited", "again"), [(0.0, 1), (PATIENCE, 0)])
def test_patience_ends(reply: Reply, waited: float, again: int) -> None:
    batch = Batch("thing", Operation.UPSERT, [PlainRow("a")], ("id",))
    dispatch = Dispatch(batch, Script(accepted), Plain(ConnectorConfig()), Breaker(200), threading.Event())
    parts = dispatch._settle(_Part((0,), tries=ROW_ATTEMPTS, waited=waited), reply)
    assert len(parts) == again
    assert (dispatch._answers[0].status is Status.FAILED) == (not again)


def test_a_stop_ends_the_wait_of_rows_over_a_rate_limit() -> None:
    stop = threading.Event()

    def limited(keys: list[str]) -> Reply:
        stop.set()
        return Reply(error=DestinationError("slow down", code=ErrorCode.RATE_LIMIT))

    batch = Batch("thing", Operation.UPSERT, [PlainRow("a")], ("id",))
    script = Script(limited)
    (only,) = Dispatch(batch, script, Plain(ConnectorConfig()), Breaker(200), stop).send()
    assert (only.status, len(script.sent)) == (Status.NOT_SENT, 1)


def test_a_direct_write_over_a_rate_limit_is_no_attempt() -> None:
    class Slow(Plain):
        asked = 0

        def write(self, batch: Batch) -> list[RowResult]:
            self.asked += 1
            if self.asked == 1:
                raise DestinationError("slow down", code=ErrorCode.RATE_LIMIT)
            return [RowResult(row.key) for row in batch.rows]

    stop, pacer, gate = threading.Event(), Pacer(None), Gate(4)
    connector = Slow(ConnectorConfig())
    writer = DirectWriter(connector, Turns(pacer, stop, gate))
    batch = Batch("thing", Operation.UPSERT, [PlainRow("a")], ("id",))
    (only,) = Dispatch(batch, writer, connector, Breaker(200), stop, pause=pacer.pause).send()
    assert only.status is Status.WRITTEN
    assert (writer.traffic.requests, writer.traffic.retries, gate.size) == (2, 0, 2)
    assert pacer.paused > 0


@pytest.mark.parametrize(
    ("operation", "ambiguous", "asked", "status", "held"),
    [
        (Operation.UPSERT, True, 2, Status.WRITTEN, False),
        (Operation.INSERT, False, 2, Status.WRITTEN, False),
        (Operation.INSERT, True, 1, Status.FAILED, True),
    ],
)
def test_a_direct_write_that_may_have_been_applied_is_repeated_only_where_that_does_no_harm(
    operation: Operation, ambiguous: bool, asked: int, status: Status, held: bool
) -> None:
    """PROTOCOL 19."""

    class Lost(Plain):
        asked = 0

        def write(self, batch: Batch) -> list[RowResult]:
            self.asked += 1
            if self.asked == 1:
                raise DestinationError("lost", code=ErrorCode.DESTINATION_UNAVAILABLE, ambiguous=ambiguous)
            return [RowResult(row.key) for row in batch.rows]

    stop = threading.Event()
    connector = Lost(ConnectorConfig())
    writer = DirectWriter(connector, Turns(Pacer(None), stop, Gate(1)))
    batch = Batch("thing", operation, [PlainRow("a")], ("id",))
    (only,) = Dispatch(batch, writer, connector, Breaker(200), stop).send()
    assert (connector.asked, only.status, only.held, only.ambiguous) == (asked, status, held, ambiguous)


def test_refused_credentials_end_the_run_without_failing_rows() -> None:
    error = DestinationError("bad token", code=ErrorCode.AUTH)
    answers, dispatch = send(Script(lambda keys: Reply(error=error)), ["a", "b"])
    assert dispatch.abort is error
    assert {answer.status for answer in answers.values()} == {Status.NOT_SENT}


def test_an_abort_after_an_ambiguous_attempt_leaves_rows_unknown() -> None:
    error = DestinationError("gone", code=ErrorCode.DESTINATION_DOWN, ambiguous=True)
    answers, _ = send(Script(lambda keys: Reply(error=error, ambiguous=True)), ["a"])
    assert answers["a"].status is Status.UNKNOWN
    assert answers["a"].ambiguous


def test_an_accepted_row_keeps_the_mark_of_an_ambiguous_attempt() -> None:
    """PROTOCOL 5: whatever a later attempt answered, the earlier one may still land."""
    answers, _ = send(Script(lambda keys: Reply([RowResult("a")], ambiguous=True)), ["a"])
    assert answers["a"] == Answer(Status.WRITTEN, ambiguous=True)


def test_a_server_error_that_one_row_causes_is_narrowed_down() -> None:
    def answer(keys: list[str]) -> Reply:
        if "bad" in keys:
            error = DestinationError("500", code=ErrorCode.DESTINATION_UNAVAILABLE, ambiguous=True)
            return Reply(error=error, ambiguous=True)
        return accepted(keys)

    answers, dispatch = send(Script(answer), ["a", "b", "bad", "c"])
    assert dispatch.abort is None
    assert [key for key, answer in answers.items() if answer.status is Status.FAILED] == ["bad"]


def test_a_destination_that_only_fails_opens_the_breaker() -> None:
    error = DestinationError("502", code=ErrorCode.DESTINATION_UNAVAILABLE, ambiguous=True)
    script = Script(lambda keys: Reply(error=error, ambiguous=True))
    answers, dispatch = send(script, [f"k{n}" for n in range(200)])
    assert dispatch.abort is not None
    assert dispatch.abort.code is ErrorCode.DESTINATION_DOWN
    assert len(script.sent) <= 12
    assert Status.NOT_SENT not in {answer.status for answer in answers.values()}


@pytest.mark.parametrize(("fails", "status"), [(False, Status.MISSING), (True, Status.GONE)])
def test_an_update_that_finds_no_record(fails: bool, status: Status) -> None:
    missing = Reply([RowResult("a", Fault(ErrorCode.NOT_FOUND, "no such record"))])
    answers, _ = send(Script(lambda keys: missing), ["a"], Operation.UPDATE, gone_is_failure=fails)
    assert answers["a"].status is status


def test_a_delete_that_finds_no_record_is_done() -> None:
    """PROTOCOL 15."""
    missing = Reply([RowResult("a", Fault(ErrorCode.NOT_FOUND, "no such record"))])
    answers, _ = send(Script(lambda keys: missing), ["a"], Operation.DELETE)
    assert answers["a"].status is Status.WRITTEN


def test_a_conflict_after_an_ambiguous_insert_is_unknown() -> None:
    """PROTOCOL 8: the conflict may be with our own first attempt."""
    conflict = Reply([RowResult("a", Fault(ErrorCode.CONFLICT, "exists"))], ambiguous=True)
    answers, _ = send(Script(lambda keys: conflict), ["a"], Operation.INSERT)
    assert answers["a"].held


def test_the_first_rows_all_refused_for_one_reason_stop_the_run() -> None:
    refused = Answer(Status.FAILED, Fault(ErrorCode.DESTINATION_VALIDATION, "no such field", "E9"))
    watch = RefusalWatch(rows=4)
    watch.saw([refused] * 3)
    with pytest.raises(GuardTrippedError, match="first 4 rows were all refused with E9"):
        watch.saw([refused])


def test_one_accepted_row_or_a_second_reason_lets_the_run_go_on() -> None:
    first = Answer(Status.FAILED, Fault(ErrorCode.DESTINATION_VALIDATION, "bad", "E1"))
    second = Answer(Status.FAILED, Fault(ErrorCode.DESTINATION_VALIDATION, "bad", "E2"))
    RefusalWatch(rows=2).saw([first, second, first])
    watch = RefusalWatch(rows=2)
    watch.saw([Answer(Status.WRITTEN)])
    watch.saw([first] * 5)


def test_a_destination_that_never_answers_is_down_at_once() -> None:
    refused = DestinationError("connection refused", code=ErrorCode.DESTINATION_UNAVAILABLE)
    answers, dispatch = send(Script(lambda keys: Reply(error=refused)), ["a", "b"])
    assert dispatch.abort is not None
    assert dispatch.abort.code is ErrorCode.DESTINATION_DOWN
    assert {answer.status for answer in answers.values()} == {Status.NOT_SENT}


def test_a_batch_that_times_out_while_others_are_answered_fails_alone() -> None:
    breaker = Breaker(200)
    timeout = DestinationError("no answer within 30 s", code=ErrorCode.TIMEOUT, ambiguous=True)

    def answer(keys: list[str]) -> Reply:
        breaker.answered()  # another worker, meanwhile
        return Reply(error=timeout, ambiguous=True)

    batch = Batch("thing", Operation.UPSERT, [PlainRow("a")], ("id",))
    dispatch = Dispatch(batch, Script(answer), Plain(ConnectorConfig()), breaker, threading.Event())
    (only,) = dispatch.send()
    assert dispatch.abort is None
    assert only.fault is not None
    assert (only.fault.code, only.ambiguous) == (ErrorCode.TIMEOUT, True)
