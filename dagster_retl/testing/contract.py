"""What every connector must keep: test classes to inherit.

    class TestMyVendor(HttpConnectorContract):
        connector_type = MyVendorConnector
        ...

Needs pytest and Hypothesis. Connectors that do not speak HTTP inherit `ConnectorContract`.
"""
# ruff: noqa: S101  # pytest reports on plain asserts

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_retl.connectors.base import AnyConnector, Connector, Request
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation, RowResult
from dagster_retl.testing.converse import converse
from dagster_retl.testing.drive import deliver, drive, write
from dagster_retl.testing.rows import make_batch, nested

ALL_MODES = ("upsert", "insert", "update", "delete", "mirror")


class ConnectorContract:
    """The contract of any connector. A subclass says how to make a destination and look into it.

    object_name, key: the object that rows go to, and its key field. operation: what is done with
    them; doing it twice is doing it once. operations: what can be done with the object, where that is
    less than the connector's modes say. secrets: all secret values of the configuration that `connector`
    uses. examples: how many poisoned batches are tried.
    """

    connector_type: ClassVar[type[AnyConnector]]
    object_name: ClassVar[str] = "contacts"
    key: ClassVar[str] = "id"
    operation: ClassVar[Operation] = Operation.UPSERT
    operations: ClassVar[frozenset[Operation]] = frozenset(Operation)
    secrets: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[int] = 25

    @abstractmethod
    def destination(self) -> AbstractContextManager[Any]:
        """A fresh, empty destination."""

    @abstractmethod
    def connector(self, destination: Any) -> AnyConnector:
        """A connector to that destination, with credentials that it accepts."""

    @abstractmethod
    def stored(self, destination: Any) -> Mapping[str, Mapping[str, Any]]:
        """What the destination holds: the text of the key → field → value, as `expected` has them."""

    @abstractmethod
    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """A version of a row, under the same key, that the destination refuses; None where it takes any row."""

    def unauthorised(self, destination: Any) -> AnyConnector | None:
        """A connector with credentials that the destination refuses; None where it asks for none."""
        return None

    def expire(self, destination: Any) -> bool:
        """Let the destination refuse the tokens that it gave out; false where it gives out none."""
        return False

    def values(self, number: int) -> dict[str, Any]:
        """An ordinary row that the destination accepts."""
        return {self.key: f"k{number}", "name": f"Name {number}"}

    def sample(self) -> dict[str, Any]:
        """A row with a value of every kind that tends to be mangled on its way."""
        return {
            self.key: "sample",
            "text": "Zoë 🚀 \"quoted\" 'single' back\\slash\nnew line %s {brace}",
            "amount": Decimal("12345678901234567.89"),
            "big": 2**63 - 1,
            "nothing": None,
            "flag": True,
            "address.city": "København",
        }

    def expected(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `stored` has for a row: the connector's wire form of it."""
        return nested(values) if self.connector_type.spec.wire_form.nest else values

    def batch(self, rows: Sequence[Mapping[str, Any]], operation: Operation | None = None) -> Batch:
        """A batch of rows, in the connector's wire form; of `operation` unless another is asked for."""
        return make_batch(
            rows,
            operation=operation or self.operation,
            object_name=self.object_name,
            key=self.key,
            wire=self.connector_type.spec.wire_form,
        )

    @pytest.fixture
    def place(self) -> Iterator[Any]:
        with self.destination() as destination:
            yield destination

    def test_declares_itself(self) -> None:
        spec = self.connector_type.spec
        assert spec.name
        assert spec.title
        assert spec.modes
        assert spec.batch_rows >= 1
        assert spec.batch_bytes >= 1
        assert spec.concurrency >= 1

    def test_check_names_an_account(self, place: Any) -> None:
        connector = self.connector(place)
        account = _ask(connector, "check")
        assert account.id
        assert account.name
        connector.close()

    def test_each_row_is_answered_exactly_once_whatever_is_poisoned(self) -> None:
        @settings(max_examples=self.examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.booleans(), min_size=1, max_size=12))
        def check(poison: list[bool]) -> None:
            with self.destination() as destination:
                self._check_poisoned(destination, poison)

        check()

    def _check_poisoned(self, destination: Any, poison: list[bool]) -> None:
        rows = [self.values(number) for number in range(len(poison))]
        poisoned = [self.poisoned(row) if bad else None for row, bad in zip(rows, poison, strict=True)]
        sent = [row if bad is None else bad for row, bad in zip(rows, poisoned, strict=True)]
        connector = self.connector(destination)
        results = deliver(connector, self.batch(sent))
        keys = [str(row[self.key]) for row in rows]
        assert sorted(result.key for result in results) == sorted(keys), "each row has one result"
        bad_keys = {key for key, bad in zip(keys, poisoned, strict=True) if bad is not None}
        faults = {result.key: result.fault for result in results if result.fault}
        assert faults.keys() == bad_keys, "the poisoned rows fail, and no others"
        assert all(ACTIONS[fault.code] in (Action.REJECT, Action.SPLIT) for fault in faults.values())
        assert all(fault.message for fault in faults.values()), "a fault says why"
        held = self.stored(destination)
        assert held == {key: self.expected(row) for key, row in zip(keys, rows, strict=True) if key not in bad_keys}
        connector.close()

    def test_writing_twice_is_writing_once(self, place: Any) -> None:
        connector = self.connector(place)
        rows = [self.values(number) for number in range(5)]
        for _ in range(2):
            assert _accepted(deliver(connector, self.batch(rows))) == 5
        assert self.stored(place) == {str(row[self.key]): self.expected(row) for row in rows}
        connector.close()

    def test_an_empty_batch_sends_nothing(self, place: Any) -> None:
        connector = self.connector(place)
        sent: list[Request] = []
        assert write(connector, self.batch([]), sent=sent.append) == []
        assert sent == []
        assert self.stored(place) == {}
        connector.close()

    def test_values_arrive_in_the_wire_form(self, place: Any) -> None:
        connector = self.connector(place)
        sample = self.sample()
        assert _accepted(deliver(connector, self.batch([sample]))) == 1
        (held,) = self.stored(place).values()
        expected = self.expected(sample)
        assert held == expected
        assert {name: type(held[name]) for name in expected} == {name: type(expected[name]) for name in expected}
        connector.close()

    def test_full_batches_stay_within_the_limits(self, place: Any) -> None:
        connector = self.connector(place)
        rows = [self.values(number) for number in range(connector.batch_rows * 2 + 1)]
        sent: list[Request] = []
        assert _accepted(deliver(connector, self.batch(rows), sent=sent.append)) == len(rows)
        assert all(len(request.content or b"") <= connector.batch_bytes for request in sent)
        assert len(self.stored(place)) == len(rows)
        connector.close()

    def test_an_unsupported_mode_says_why(self, place: Any) -> None:
        connector = self.connector(place)
        reason = connector.supports("levitate")
        assert reason
        assert "levitate" in reason
        for mode in ALL_MODES:
            assert mode in connector.spec.modes or connector.supports(mode), f"{mode} is not among the modes"
        assert any(connector.supports(mode) is None for mode in connector.spec.modes)
        connector.close()

    def test_secrets_stay_out_of_sight(self, place: Any) -> None:
        connector = self.connector(place)
        shown = [repr(connector), str(connector), repr(connector.config), str(connector.config), connector.identity()]
        for secret in self.secrets:
            assert not any(secret in text for text in shown), "a secret is shown"
        connector.close()

    def test_refused_credentials_abort(self, place: Any) -> None:
        connector = self.unauthorised(place)
        if connector is None:
            pytest.skip("this destination asks for no credentials")
        with pytest.raises(DestinationError) as caught:
            write(connector, self.batch([self.values(1)]))
        assert caught.value.code in (ErrorCode.AUTH, ErrorCode.PERMISSION)
        assert not any(secret in str(caught.value) for secret in self.secrets)
        assert self.stored(place) == {}
        connector.close()

    def test_check_tells_of_refused_credentials(self, place: Any) -> None:
        connector = self.unauthorised(place)
        if connector is None:
            pytest.skip("this destination asks for no credentials")
        with pytest.raises(DestinationError) as caught:
            _ask(connector, "check")
        assert caught.value.code in (ErrorCode.AUTH, ErrorCode.PERMISSION)
        assert not any(secret in str(caught.value) for secret in self.secrets)
        connector.close()

    def test_an_expired_token_is_renewed(self, place: Any) -> None:
        connector = self.connector(place)
        rows = [self.values(number) for number in range(2)]
        assert _accepted(deliver(connector, self.batch(rows[:1]))) == 1
        if not self.expire(place):
            pytest.skip("this destination gives out no tokens")
        assert _accepted(deliver(connector, self.batch(rows[1:]))) == 1
        assert len(self.stored(place)) == 2
        connector.close()

    def test_objects_and_fields_are_described(self, place: Any) -> None:
        connector = self.connector(place)
        for found in _ask(connector, "objects"):
            assert found.api_name
            assert found.label
        fields = _ask(connector, "fields", self.object_name)
        names = [field.name for field in fields]
        assert len(set(names)) == len(names), "a field is there twice"
        assert all(field.label and field.data_type for field in fields)
        assert not fields or self.key in names, "the key is a field too"
        connector.close()


class HttpConnectorContract(ConnectorContract):
    """The contract of a connector over HTTP: it also withstands what servers answer."""

    NONSENSE: ClassVar[Mapping[str, httpx.Response]] = {
        "a page": httpx.Response(200, html="<html><body>Welcome to the gateway</body></html>"),
        "nothing": httpx.Response(200),
        "half a body": httpx.Response(200, content=b'{"records": [{"in', headers={"Content-Type": "application/json"}),
        "another shape": httpx.Response(200, json=["surprise", 42]),
    }

    def _http(self, destination: Any) -> Connector:
        connector = self.connector(destination)
        assert isinstance(connector, Connector)
        return connector

    def _write(self, destination: Any, response: httpx.Response, rows: int = 1) -> Sequence[RowResult]:
        connector = self._http(destination)
        batch = self.batch([self.values(number) for number in range(rows)])
        return converse(connector.write(batch), response)[1]

    def test_nonsense_is_not_success(self, place: Any) -> None:
        for what, response in self.NONSENSE.items():
            with pytest.raises(DestinationError) as caught:
                self._write(place, response, rows=self.connector(place).batch_rows)
            assert caught.value.ambiguous, f"{what}: the rows may have been written"
            assert ACTIONS[caught.value.code] is Action.RETRY, what

    @pytest.mark.parametrize(
        ("status", "code", "ambiguous"),
        [
            (401, ErrorCode.AUTH, False),
            (403, ErrorCode.PERMISSION, False),
            (429, ErrorCode.RATE_LIMIT, False),
            (500, ErrorCode.DESTINATION_UNAVAILABLE, True),
            (503, ErrorCode.DESTINATION_UNAVAILABLE, True),
        ],
    )
    def test_a_status_has_its_code(self, place: Any, status: int, code: ErrorCode, ambiguous: bool) -> None:
        with pytest.raises(DestinationError) as caught:
            self._write(place, httpx.Response(status, json={"message": "no"}))
        assert (caught.value.code, caught.value.ambiguous) == (code, ambiguous)

    def test_what_is_there_can_be_read(self, place: Any) -> None:
        connector = self._http(place)
        if not connector.can_read(self.object_name):
            pytest.skip("what this object holds cannot be read")
        rows = [self.values(number) for number in range(3)]
        assert _accepted(deliver(connector, self.batch(rows))) == 3
        asked = self.batch([*rows, self.values(3)])
        found = drive(connector, connector.read(asked, list(rows[0])))
        assert found.keys() == {row.key for row in asked.rows[:3]}, "a key without a record is left out"
        for row, values in zip(asked.rows, rows, strict=False):
            texts = {name: value for name, value in values.items() if isinstance(value, str)}
            assert {name: found[row.key].get(name) for name in texts} == texts
        connector.close()

    def test_redirects_are_refused(self, place: Any) -> None:
        with pytest.raises(DestinationError, match=r"elsewhere\.example") as caught:
            self._write(place, httpx.Response(302, headers={"Location": "https://elsewhere.example/login"}))
        assert ACTIONS[caught.value.code] is Action.ABORT

    def test_an_echoed_secret_is_redacted(self, place: Any) -> None:
        echo = " ".join(["you sent", *self.secrets])
        for response in (httpx.Response(401, json={"message": echo}), httpx.Response(500, text=echo)):
            with pytest.raises(DestinationError) as caught:
                self._write(place, response)
            assert not any(secret in str(caught.value) for secret in self.secrets)

    def test_idempotency_is_declared_on_each_request(self, place: Any) -> None:
        connector = self._http(place)
        for operation in Operation:
            if operation in self.operations and connector.supports(operation.value) is None:
                request = next(connector.write(self.batch([self.values(1)], operation)))
                assert request.idempotent == connector.idempotent(operation)


def _ask(connector: AnyConnector, question: str, *about: str) -> Any:
    """The answer to `check`, `objects` or `fields`, whatever kind the connector is."""
    answer = getattr(connector, question)(*about)
    return drive(connector, answer) if isinstance(connector, Connector) else answer


def _accepted(results: Sequence[RowResult]) -> int:
    return sum(result.fault is None for result in results)
