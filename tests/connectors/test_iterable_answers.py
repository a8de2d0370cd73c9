"""How the `iterable` connector reads answers: failures are values, without an order."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from iterable_things import USERS, counts, faults, sent, talk

from dagster_retl.connectors.iterable_words import FAILURES, NAMES, VENDOR_CODES
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import AllAccepted, RowResult

EVENTS = [
    {"id": "1", "email": "ada@example.com", "eventName": "Seen"},
    {"id": "2", "email": "ADA@example.com", "eventName": "Seen"},
    {"id": "3", "email": "bob@example.com", "eventName": "Bought"},
]


def refusal(rows: Any, *answers: httpx.Response, **how: Any) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        talk(rows, *answers, **how)
    return caught.value


class TestBulk:
    def test_all_are_accepted(self) -> None:
        _, results = talk(USERS, counts(2))
        assert isinstance(results, AllAccepted)
        assert list(results) == [RowResult("ada@example.com"), RowResult("Bob@Example.com")]

    @pytest.mark.parametrize("kind", FAILURES)
    @pytest.mark.parametrize("end", NAMES)
    def test_each_list_of_failures_has_its_code(self, kind: str, end: str) -> None:
        field = NAMES[end][0]
        rows = [{"userId": "U1"}, {"userId": "U2"}] if field == "userId" else USERS
        settings = {"identify_by": field}
        failed = str(rows[1][field])
        answer = counts(1, 1, failedUpdates={f"{kind}{end}": [failed]})
        _, results = talk(rows, answer, settings=settings, key=field)
        assert faults(results) == {failed: (FAILURES[kind][0].value, f"{kind}{end}")}
        assert ACTIONS[FAILURES[kind][0]] is Action.REJECT

    def test_addresses_compare_without_case_and_user_ids_with_it(self) -> None:
        _, results = talk(USERS, counts(1, 1, failedUpdates={"forgottenEmails": ["bob@example.COM"]}))
        assert set(faults(results)) == {"Bob@Example.com"}
        rows = [{"userId": "u1"}, {"userId": "U1"}]
        answer = counts(1, 1, failedUpdates={"invalidUserIds": ["U1"]})
        _, results = talk(rows, answer, settings={"identify_by": "userId"}, key="userId")
        assert set(faults(results)) == {"U1"}

    def test_the_old_lists_are_read_where_there_are_no_others(self) -> None:
        _, results = talk(USERS, counts(1, 1, invalidEmails=["ada@example.com"], invalidUserIds=[]))
        assert faults(results) == {"ada@example.com": ("DESTINATION_VALIDATION", "invalidEmails")}

    def test_a_list_for_what_is_wrong_goes_before_the_old_ones(self) -> None:
        names = ["ada@example.com"]
        _, results = talk(USERS, counts(1, 1, invalidEmails=names, failedUpdates={"conflictEmails": names}))
        assert faults(results) == {"ada@example.com": ("CONFLICT", "conflictEmails")}

    def test_a_name_among_the_fields_is_the_row_too(self) -> None:
        rows = [{"email": "ada@example.com", "userId": "7"}, {"email": "bob@example.com", "userId": "8"}]
        _, results = talk(rows, counts(1, 1, failedUpdates={"conflictUserIds": ["8"]}))
        assert faults(results) == {"bob@example.com": ("CONFLICT", "conflictUserIds")}

    def test_who_leaves_a_list_and_is_not_there_has_left_it(self) -> None:
        answer = counts(1, 1, failedUpdates={"notFoundEmails": ["ada@example.com"]})
        assert faults(talk(USERS, answer, object_name="lists/5", operation="delete")[1]) == {}
        assert set(faults(talk(USERS, answer, object_name="lists/5")[1])) == {"ada@example.com"}


class TestSeveralRowsOfAUser:
    def test_all_of_them_fail(self) -> None:
        answer = counts(1, 2, failedUpdates={"invalidEmails": ["ada@example.com", "ADA@example.com"]})
        _, results = talk(EVENTS, answer, object_name="events", key="id", operation="insert")
        assert set(faults(results)) == {"1", "2"}
        once = counts(1, 2, failedUpdates={"invalidEmails": ["ada@example.com"]})
        assert talk(EVENTS, once, object_name="events", key="id", operation="insert")[1] == results

    def test_where_the_counts_say_otherwise_the_request_is_halved(self) -> None:
        answer = counts(2, 1, failedUpdates={"invalidEmails": ["ada@example.com"]})
        error = refusal(EVENTS, answer, object_name="events", key="id", operation="insert")
        assert (error.code, error.ambiguous) == (ErrorCode.BATCH_REJECTED, True)

    def test_events_that_the_project_does_not_take(self) -> None:
        how = {"object_name": "events", "key": "id", "operation": "insert"}
        fault = ("DESTINATION_VALIDATION", "disallowedEventNames")
        _, results = talk(EVENTS, counts(1, 2, disallowedEventNames=["Seen"]), **how)
        assert faults(results) == {"1": fault, "2": fault}
        uncounted = counts(0, 0, disallowedEventNames=["Seen"])
        assert refusal(EVENTS, uncounted, **how).code is ErrorCode.BATCH_REJECTED
        assert faults(talk(EVENTS[:1], uncounted, **how)[1]) == {"1": fault}


class TestCounts:
    @pytest.mark.parametrize(
        "answer",
        [
            counts(1, 1),
            counts(0, 2, failedUpdates={"invalidEmails": ["ada@example.com"]}),
            counts(2, 1, failedUpdates={"invalidEmails": ["somebody.else@example.com"]}),
            counts(1, 0),
        ],
    )
    def test_failures_that_nobody_names_halve_the_request(self, answer: httpx.Response) -> None:
        error = refusal(USERS, answer)
        assert (error.code, error.ambiguous) == (ErrorCode.BATCH_REJECTED, True)

    def test_a_row_alone_has_its_answer(self) -> None:
        (row,) = USERS[:1]
        assert faults(talk([row], counts(0, 1))[1]) == {"ada@example.com": ("DESTINATION_VALIDATION", None)}
        assert faults(talk([row], counts(0, 0))[1]) == {"ada@example.com": ("UNKNOWN", None)}

    @given(
        st.lists(st.sampled_from(["ada@example.com", "bob@example.com", "eve@example.com"]), max_size=4),
        st.integers(0, 3),
        st.integers(0, 3),
    )
    def test_rows_fail_just_where_names_and_counts_agree(self, named: list[str], failed: int, succeeded: int) -> None:
        answer = counts(succeeded, failed, failedUpdates={"invalidEmails": named})
        failing = {email for email in ("ada@example.com", "bob@example.com") if email in named}
        if len(failing) == failed and succeeded + failed >= len(USERS):
            _, results = talk(USERS, answer)
            assert [result.key for result in results] == [row["email"] for row in USERS]
            assert {key.lower() for key in faults(results)} == failing
        else:
            assert refusal(USERS, answer).ambiguous

    @pytest.mark.parametrize("body", [{}, {"successCount": 2}, {"successCount": "2", "failCount": "0"}, [], "ok", None])
    def test_an_answer_without_counts_is_no_answer(self, body: Any) -> None:
        error = refusal(USERS, httpx.Response(200, json=body))
        assert (error.code, error.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, True)


class TestLeftOut:
    ROWS = (
        {"email": "ada@example.com", "nickname": "a", "address": {"zip": "1"}},
        {"email": "bob@example.com", "nickname": None},
        {"email": "eve@example.com", "name": "e"},
    )

    def test_each_row_that_has_the_field_is_warned_about(self) -> None:
        _, results = talk(self.ROWS, counts(3, 0, filteredOutFields=["nickname", "address.zip"]))
        ada, bob, eve = (result.warning for result in results)
        assert ada is not None
        assert "nickname, address.zip" in ada
        assert bob is not None
        assert "address.zip" not in bob
        assert eve is None
        assert not faults(results)

    def test_a_row_that_failed_has_its_fault_only(self) -> None:
        lists = {"invalidEmails": ["ada@example.com"]}
        _, results = talk(self.ROWS, counts(2, 1, filteredOutFields=["nickname"], failedUpdates=lists))
        assert [result.warning is not None for result in results] == [False, True, False]


class TestRefusedWhole:
    @pytest.mark.parametrize("vendor_code", VENDOR_CODES)
    def test_each_code_of_the_vendor_has_its_code(self, vendor_code: str) -> None:
        body = {"msg": "these are the words", "code": vendor_code, "params": None}
        answer = httpx.Response(400, json=body)
        expected = VENDOR_CODES[vendor_code]
        if expected in (ErrorCode.NOT_FOUND, ErrorCode.SCHEMA_DRIFT):
            assert refusal(USERS, answer).code is ErrorCode.SCHEMA_DRIFT
        elif ACTIONS[expected] in (Action.REJECT, Action.SPLIT):
            error = refusal(USERS, answer)
            assert ACTIONS[error.code] is Action.SPLIT
            assert (error.vendor_code, error.message) == (vendor_code, "these are the words")
            _, results = talk(USERS[:1], answer)
            code = ErrorCode.DESTINATION_VALIDATION if expected is ErrorCode.BATCH_REJECTED else expected
            assert faults(results) == {"ada@example.com": (code.value, vendor_code)}
        else:
            assert (refusal(USERS, answer).code, refusal(USERS[:1], answer).code) == (expected, expected)

    @pytest.mark.parametrize(
        ("status", "vendor_code", "code"),
        [
            (401, "Success", ErrorCode.AUTH),
            (401, "BadParams", ErrorCode.AUTH),
            (401, "Forbidden", ErrorCode.PERMISSION),
            (403, "BadParams", ErrorCode.PERMISSION),
            (429, "GenericError", ErrorCode.RATE_LIMIT),
            (500, "BadParams", ErrorCode.DESTINATION_UNAVAILABLE),
        ],
    )
    def test_a_status_that_says_all_goes_before_a_code(self, status: int, vendor_code: str, code: ErrorCode) -> None:
        answer = httpx.Response(status, json={"msg": "no", "code": vendor_code, "params": None})
        assert refusal(USERS, answer).code is code

    def test_an_outage_may_have_written(self) -> None:
        answer = httpx.Response(400, json={"msg": "no", "code": "DatabaseError"})
        assert refusal(USERS, answer).ambiguous
        assert not refusal(USERS, httpx.Response(400, json={"msg": "no", "code": "BadParams"})).ambiguous

    def test_the_words_are_the_vendors(self) -> None:
        body = {"msg": "Field 'age' has another type", "code": "RequestFieldsTypesMismatched"}
        _, (result,) = talk(USERS[:1], httpx.Response(400, json=body))
        assert result.fault is not None
        assert result.fault.message == "Field 'age' has another type"


class TestOneByOne:
    DONE = httpx.Response(200, json={"msg": "", "code": "Success", "params": None})

    def test_each_user_is_deleted_for_itself(self) -> None:
        gone = httpx.Response(400, json={"msg": "no such user", "code": "UnknownEmailError"})
        requests, results = talk(USERS, self.DONE, gone, operation="delete")
        assert [(each.method, each.url) for each in requests] == [
            ("DELETE", "/api/users/ada%40example.com"),
            ("DELETE", "/api/users/Bob%40Example.com"),
        ]
        assert faults(results) == {}

    def test_a_name_that_is_no_user_deletes_nothing(self) -> None:
        rows = [{"userId": ".."}, {"userId": "a/b"}]
        requests, results = talk(rows, self.DONE, settings={"identify_by": "userId"}, key="userId", operation="delete")
        assert [each.url for each in requests] == ["/api/users/byUserId/a%2Fb"]
        assert faults(results) == {"..": ("MISSING_KEY", None)}

    def test_one_user_a_request(self) -> None:
        conflict = httpx.Response(409, json={"msg": "forgotten", "code": "ForgottenUserError"})
        requests, results = talk(USERS, self.DONE, conflict, settings={"one_by_one": True})
        assert {each.url for each in requests} == {"/api/users/update"}
        assert sent(requests[0])["createNewFields"] is False
        assert faults(results) == {"Bob@Example.com": ("DESTINATION_VALIDATION", "ForgottenUserError")}

    def test_another_code_than_success_is_none(self) -> None:
        body = {"code": "GenericError", "msg": "?"}
        _, results = talk(USERS[:1], httpx.Response(200, json=body), settings={"one_by_one": True})
        assert faults(results) == {"ada@example.com": ("DESTINATION_VALIDATION", "GenericError")}

    def test_credentials_that_are_refused_end_it(self) -> None:
        refused = httpx.Response(401, json={"msg": "Invalid API key", "code": "BadApiKey"})
        assert refusal(USERS, self.DONE, refused, operation="delete").code is ErrorCode.AUTH

    def test_an_update_asks_first_who_is_there(self) -> None:
        there = httpx.Response(200, json={"user": {"email": "Bob@Example.com", "dataFields": {}}})
        requests, results = talk(USERS, httpx.Response(200, json={}), there, counts(1), operation="update")
        assert [each.params for each in requests[:2]] == [{"email": row["email"]} for row in USERS]
        assert [user["email"] for user in sent(requests[2])["users"]] == ["Bob@Example.com"]
        assert faults(results) == {"ada@example.com": ("NOT_FOUND", None)}

    def test_an_update_of_nobody_sends_nothing(self) -> None:
        requests, results = talk(USERS[:1], httpx.Response(200, json={}), operation="update")
        assert [each.method for each in requests] == ["GET"]
        assert len(results) == 1


class TestCatalogs:
    ROWS = ({"id": "a", "name": "A"}, {"id": "b", "name": "B"})

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(202, json={"msg": "received", "code": "Success", "params": None}),
            httpx.Response(200, json={"msg": "received", "code": "Success", "params": None}),
            httpx.Response(202),
        ],
    )
    @pytest.mark.parametrize("operation", ["upsert", "delete"])
    def test_they_are_unconfirmed(self, answer: httpx.Response, operation: str) -> None:
        _, results = talk(self.ROWS, answer, object_name="catalogs/shops", key="id", operation=operation)
        assert list(results) == [RowResult(row["id"], unconfirmed=True) for row in self.ROWS]

    def test_a_catalog_that_is_gone_ends_the_run(self) -> None:
        answer = httpx.Response(404, json={"msg": "Catalog not found", "code": "NotFound"})
        error = refusal(self.ROWS, answer, object_name="catalogs/shops", key="id")
        assert error.code is ErrorCode.SCHEMA_DRIFT
        assert "Catalog not found" in error.message


def test_nothing_is_asked_for_no_rows() -> None:
    assert talk([]) == ([], [])
