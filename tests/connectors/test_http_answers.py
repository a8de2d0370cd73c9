"""How the `http` connector reads answers."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.connectors.http_words import MESSAGE_LENGTH, find_words
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import RowResult
from dagster_retl.testing import converse, make_batch

KEYS = ["a", "b", "7"]
RESULTS = {"key_field": "id"}


def answer(
    response: httpx.Response, *, keys: list[Any] = KEYS, operation: str = "upsert", key: Any = "id", **settings: Any
) -> list[RowResult]:
    connector = HttpConnector(HttpConfig.model_validate({"url": "https://api.example/{object}", **settings}))
    rows = [value if isinstance(value, dict) else {"id": value} for value in keys]
    return converse(connector.write(make_batch(rows, operation=operation, key=key)), response)[1]


def failure(response: httpx.Response, **settings: Any) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        answer(response, **settings)
    return caught.value


def faults(results: list[RowResult]) -> dict[str, tuple[str, str, str | None]]:
    return {
        result.key: (result.fault.code.value, result.fault.message, result.fault.vendor_code)
        for result in results
        if result.fault
    }


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["errors", "records", "index", "id", "code", "message"])
    return st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)


def errors(*items: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json={"errors": items})


class TestAccepted:
    @pytest.mark.parametrize("body", [{}, {"errors": []}, {"errors": None}, {"written": 3}])
    def test_without_errors_all_are_written(self, body: Any) -> None:
        assert answer(httpx.Response(200, json=body), results=RESULTS) == [RowResult(key) for key in KEYS]

    def test_no_content_is_an_answer(self) -> None:
        assert answer(httpx.Response(204), results=RESULTS) == [RowResult(key) for key in KEYS]

    @pytest.mark.parametrize(
        ("status", "keys", "unconfirmed"),
        [(200, KEYS, True), (200, ["a"], False), (202, ["a"], True), (207, ["a"], True), (204, ["a"], False)],
    )
    def test_without_results_many_rows_are_unconfirmed(self, status: int, keys: list[str], unconfirmed: bool) -> None:
        results = answer(httpx.Response(status), keys=keys)
        assert [(result.fault, result.unconfirmed) for result in results] == [(None, unconfirmed)] * len(keys)

    def test_a_byte_order_mark_is_no_nonsense(self) -> None:
        assert not faults(answer(httpx.Response(200, content=b"\xef\xbb\xbf{}"), results=RESULTS))


class TestRowErrors:
    @pytest.mark.parametrize("status", [200, 207])
    def test_only_the_named_rows_fail(self, status: int) -> None:
        response = errors(
            {"index": 1, "code": "INVALID", "message": "bad email"}, {"id": 7, "message": "no"}, status=status
        )
        assert faults(answer(response, results=RESULTS)) == {
            "b": ("DESTINATION_VALIDATION", "bad email", "INVALID"),
            "7": ("DESTINATION_VALIDATION", "no", None),
        }

    def test_a_row_named_twice_fails_once(self) -> None:
        response = errors({"index": 0, "message": "first"}, {"id": "a", "message": "second"})
        assert faults(answer(response, results=RESULTS)) == {"a": ("DESTINATION_VALIDATION", "first", None)}

    def test_codes_are_mapped(self) -> None:
        results = {"codes": {"LOCKED": "DESTINATION_LOCKED", "9": "CONFLICT"}, "code_field": "error.code"}
        response = errors({"index": 0, "error": {"code": "LOCKED"}}, {"index": 1, "error": {"code": 9}})
        assert {key: fault[0] for key, fault in faults(answer(response, results=results)).items()} == {
            "a": "DESTINATION_LOCKED",
            "b": "CONFLICT",
        }

    def test_paths_are_dotted_and_may_be_empty(self) -> None:
        nested = httpx.Response(200, json={"data": {"failed": [{"at": "2"}]}})
        results = {"errors_path": "data.failed", "index_field": "at"}
        assert set(faults(answer(nested, results=results))) == {"7"}
        bare = httpx.Response(200, json=[{"index": 0}])
        assert set(faults(answer(bare, results={"errors_path": ""}))) == {"a"}

    @pytest.mark.parametrize(
        "item",
        [
            {"index": 3},
            {"index": -1},
            {"index": True},
            {"index": 10**30},
            {"id": "zzz"},
            {"id": {"x": 1}},
            {"message": "something failed"},
            "just text",
            7,
            None,
            [],
        ],
    )
    def test_an_error_that_names_no_row_splits_the_batch(self, item: Any) -> None:
        error = failure(errors({"index": 0}, item), results=RESULTS)
        assert (error.code, error.ambiguous) == (ErrorCode.BATCH_REJECTED, True)

    def test_in_a_batch_of_one_it_is_that_row(self) -> None:
        assert set(faults(answer(errors("oops"), keys=["a"], results=RESULTS))) == {"a"}

    def test_a_part_of_the_key_that_several_rows_share_names_none(self) -> None:
        rows = [{"id": "a", "site": 1}, {"id": "a", "site": 2}, {"id": "b", "site": 1}]
        settings = {"keys": rows, "key": ("id", "site"), "results": RESULTS}
        assert failure(errors({"id": "a"}), **settings).code is ErrorCode.BATCH_REJECTED
        assert len(faults(answer(errors({"id": "b"}), **settings))) == 1

    def test_a_removal_of_what_is_gone_is_done(self) -> None:
        results = {"codes": {"GONE": "NOT_FOUND"}}
        delete = {"url": "https://api.example/delete", "method": "POST", "body": "array"}
        response = errors({"index": 0, "code": "GONE"}, {"index": 1, "code": "NO"})
        assert set(faults(answer(response, operation="delete", results=results, delete=delete))) == {"b"}

    @given(st.recursive(st.none() | st.booleans() | st.integers(-3, 5) | st.text(max_size=3), _containers))
    def test_no_answer_crashes(self, body: Any) -> None:
        settings = {**RESULTS, "id_path": "records", "id_field": "id"}
        outcome: list[RowResult] | DestinationError
        try:
            outcome = answer(httpx.Response(200, json=body), results=settings)
        except DestinationError as error:
            outcome = error
        if isinstance(outcome, DestinationError):
            assert outcome.ambiguous
        else:
            assert [result.key for result in outcome] == KEYS


ENTRIES = {"rows_path": "results", "success_field": "status", "success_values": ["ok", 201]}


def entries(*items: Any, status: int = 200, path: str = "results") -> httpx.Response:
    return httpx.Response(status, json={path: items})


def outcome(response: httpx.Response, **settings: Any) -> dict[str, str]:
    """Key → written, or its vendor code; a row without an answer is not in it."""
    found = answer(response, **{"results": ENTRIES, **settings})
    return {result.key: (result.fault.vendor_code or "?") if result.fault else "written" for result in found}


class TestEntries:
    @pytest.mark.parametrize("status", [200, 207])
    def test_by_position(self, status: int) -> None:
        response = entries({"status": "ok"}, {"status": "bad", "code": "X"}, {"status": 201}, status=status)
        assert outcome(response) == {"a": "written", "b": "X", "7": "written"}

    def test_by_index_in_any_order(self) -> None:
        response = entries(
            {"index": 2, "status": "OK"}, {"index": "0", "status": 201}, {"index": 1, "status": "no", "code": 7}
        )
        assert outcome(response) == {"7": "written", "a": "written", "b": "7"}

    def test_by_key_in_any_order(self) -> None:
        response = entries({"id": 7, "status": "ok"}, {"id": "b", "status": "error"}, {"id": "a", "status": "ok"})
        assert outcome(response, results={**ENTRIES, "key_field": "id"}) == {"a": "written", "b": "?", "7": "written"}

    @pytest.mark.parametrize(
        "items",
        [
            [{"index": 0, "status": "ok"}, {"index": 2, "status": "ok"}],
            [{"status": "ok"}, None, {"status": "ok"}],
            [{"index": 0, "status": "ok"}, {"index": 2, "status": "ok"}, {"index": 9, "status": "ok"}],
        ],
        ids=["not-there", "null", "of-another"],
    )
    def test_a_row_without_an_entry_has_no_answer(self, items: list[Any]) -> None:
        assert outcome(entries(*items)) == {"a": "written", "7": "written"}

    @pytest.mark.parametrize("items", [[], [{"status": "ok"}], [{"status": "ok"}] * 4])
    def test_positions_count_only_where_there_are_as_many_as_rows(self, items: list[Any]) -> None:
        error = failure(entries(*items), results=ENTRIES)
        assert (error.code, error.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, True)
        assert f"{len(items)} entries for 3 rows" in error.message

    def test_a_list_of_what_was_written_beside_the_errors(self) -> None:
        body = {"done": [{"index": 0}], "errors": [{"index": 1, "code": "X"}]}
        assert outcome(httpx.Response(200, json=body), results={"rows_path": "done"}) == {"a": "written", "b": "X"}

    def test_nothing_was_written_and_some_rows_have_no_error(self) -> None:
        body = {"done": [], "errors": [{"index": 1, "code": "X"}]}
        assert outcome(httpx.Response(200, json=body), results={"rows_path": "done"}) == {"b": "X"}

    def test_an_error_speaks_louder_than_an_entry(self) -> None:
        body = {"results": [{"index": 0, "status": "ok"}], "errors": [{"index": 0, "code": "X"}]}
        assert outcome(httpx.Response(200, json=body)) == {"a": "X"}

    def test_a_failure_that_names_no_row_splits_the_batch(self) -> None:
        error = failure(entries({"index": 0, "status": "ok"}, {"index": 9, "status": "no"}), results=ENTRIES)
        assert (error.code, error.ambiguous) == (ErrorCode.BATCH_REJECTED, True)

    @pytest.mark.parametrize("value", [None, "", "false", "failed", {"ok": True}])
    def test_what_is_not_called_success_is_none(self, value: Any) -> None:
        (result,) = answer(entries({"status": value}), keys=["a"], results=ENTRIES)
        assert result.fault is not None

    def test_the_entry_may_be_the_answer_itself(self) -> None:
        results = {"rows_path": "", "success_field": "success", "id_field": "id"}
        response = httpx.Response(200, json=[{"success": True, "id": "x"}, {"success": False}, {"success": True}])
        found = answer(response, results=results)
        assert [(result.fault is None, result.record_id) for result in found] == [
            (True, "x"),
            (False, None),
            (True, None),
        ]

    def test_ids_stand_in_the_entries(self) -> None:
        response = entries({"id": 7, "sys": 1, "status": "ok"}, {"id": "a", "sys": 2, "status": "ok"})
        results = {**ENTRIES, "key_field": "id", "id_field": "sys"}
        assert {result.key: result.record_id for result in answer(response, results=results)} == {"7": "1", "a": "2"}

    @given(st.recursive(st.none() | st.booleans() | st.integers(-3, 5) | st.text(max_size=3), _containers))
    def test_no_answer_crashes_or_speaks_of_a_row_twice(self, body: Any) -> None:
        settings = {**ENTRIES, "rows_path": "records", "success_field": "code", "key_field": "id", "id_field": "id"}
        found: list[RowResult] | DestinationError
        try:
            found = answer(httpx.Response(200, json=body), results=settings)
        except DestinationError as error:
            found = error
        if isinstance(found, DestinationError):
            assert found.ambiguous
        else:
            assert [key for key in KEYS if key in {result.key for result in found}] == [r.key for r in found]

    def test_success_is_about_entries(self) -> None:
        with pytest.raises(ValueError, match="rows_path"):
            HttpConfig.model_validate({"url": "https://api.example", "results": {"success_field": "ok"}})


class TestRecordIds:
    RESULTS: ClassVar[dict[str, Any]] = {"id_path": "records", "id_field": "sys_id"}

    def test_by_position(self) -> None:
        response = httpx.Response(200, json={"records": [{"sys_id": 1}, {"sys_id": "x"}, {}]})
        assert [result.record_id for result in answer(response, results=self.RESULTS)] == ["1", "x", None]

    def test_by_index_and_key(self) -> None:
        records = [{"id": "7", "sys_id": "seven"}, {"index": 0, "sys_id": "zero"}]
        response = httpx.Response(200, json={"records": records})
        results = {**self.RESULTS, "key_field": "id"}
        assert [result.record_id for result in answer(response, results=results)] == ["zero", None, "seven"]

    def test_a_refused_row_has_none(self) -> None:
        body = {"records": [{"sys_id": 1}, {"sys_id": 2}, {"sys_id": 3}], "errors": [{"index": 1}]}
        results = answer(httpx.Response(200, json=body), results=self.RESULTS)
        assert [result.record_id for result in results] == ["1", None, "3"]

    def test_of_the_only_row(self) -> None:
        response = httpx.Response(201, json={"id": "rec_1"})
        (result,) = answer(response, keys=["a"], results={"id_field": "id"}, body="object")
        assert result.record_id == "rec_1"


class TestNonsense:
    @pytest.mark.parametrize(
        "content", [b"", b"ok", b'{"errors": [', b"<html></html>", b"[1]", b'"fine"', b"null", b"NaN"]
    )
    def test_is_not_success(self, content: bytes) -> None:
        error = failure(httpx.Response(200, content=content), results=RESULTS)
        assert (error.code, error.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, True)

    def test_a_page_of_html_never_is(self) -> None:
        assert failure(httpx.Response(200, html="\n<!DOCTYPE html><title>Log in</title>")).ambiguous

    def test_plain_text_is_fine_where_nothing_is_read(self) -> None:
        assert not faults(answer(httpx.Response(200, text="ok")))


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "batch_code", "row_code"),
        [
            (400, "BATCH_REJECTED", "DESTINATION_VALIDATION"),
            (404, "BATCH_REJECTED", "NOT_FOUND"),
            (409, "BATCH_REJECTED", "CONFLICT"),
            (413, "PAYLOAD_TOO_LARGE", "PAYLOAD_TOO_LARGE"),
            (422, "BATCH_REJECTED", "DESTINATION_VALIDATION"),
        ],
    )
    def test_a_batch_is_split_and_a_row_refused(self, status: int, batch_code: str, row_code: str) -> None:
        response = httpx.Response(status, json={"error": {"code": "E1", "message": "not like this"}})
        error = failure(response, operation="update")
        assert (error.code.value, error.vendor_code, error.message) == (batch_code, "E1", "not like this")
        results = answer(response, keys=["a"], operation="update")
        assert faults(results) == {"a": (row_code, "not like this", "E1")}

    @pytest.mark.parametrize("status", [404, 410])
    def test_deleting_what_is_gone_is_success(self, status: int) -> None:
        delete = {"url": "https://api.example/{id}"}
        (result,) = answer(httpx.Response(status), keys=["a"], operation="delete", delete=delete)
        assert result == RowResult("a")

    def test_a_bare_delete_needs_no_body_in_its_answer(self) -> None:
        delete = {"url": "https://api.example/{id}"}
        (result,) = answer(httpx.Response(200), keys=["a"], operation="delete", delete=delete, results=RESULTS)
        assert result == RowResult("a")

    @pytest.mark.parametrize("keys", [KEYS, ["a"]])
    @pytest.mark.parametrize("status", [302, 401, 402, 403, 405, 408, 429, 500, 503])
    def test_what_is_not_about_rows_is_raised(self, status: int, keys: list[str]) -> None:
        assert failure(httpx.Response(status), keys=keys).code is not ErrorCode.BATCH_REJECTED

    def test_a_redirect_names_the_host_only(self) -> None:
        response = httpx.Response(307, headers={"Location": "https://evil.example/?token=abc"})
        error = failure(response)
        assert "evil.example" in str(error)
        assert "abc" not in str(error)


class TestWords:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"message": "no"}, (None, "no")),
            ({"error": "no"}, (None, "no")),
            ({"error": {"message": "no", "code": 12}}, ("12", "no")),
            ({"errors": [{"message": "no", "type": "T"}, {"message": "other"}]}, ("T", "no")),
            ({"errors": ["no"]}, (None, "no")),
            ({"detail": "no"}, (None, "no")),
            ({"detail": [{"msg": "no", "type": "missing"}]}, ("missing", "no")),
            ({"error": "invalid_grant", "error_description": "no"}, ("invalid_grant", "no")),
            ({"type": "about:blank", "title": "no", "status": 400}, ("about:blank", "no")),
            ([{"errorCode": "X", "message": "no"}], ("X", "no")),
            ({}, (None, None)),
            (7, (None, None)),
        ],
    )
    def test_are_found_in_the_usual_shapes(self, body: Any, words: tuple[str | None, str | None]) -> None:
        assert find_words(body) == words

    def test_html_is_not_repeated(self) -> None:
        assert failure(httpx.Response(502, html="<html>" + "x" * 5000)).message == "HTTP 502 Bad Gateway"

    def test_are_short_and_on_one_line(self) -> None:
        message = failure(httpx.Response(400, text="a\nb\x1b[31m" + "c" * 5000)).message
        assert message.startswith("a b [31mccc")
        assert len(message) == MESSAGE_LENGTH

    @given(before=st.integers(0, MESSAGE_LENGTH + 30), secret=st.text("abcdef0123456789/+=-", min_size=8, max_size=40))
    def test_no_part_of_a_secret_is_left_wherever_it_stands(self, before: int, secret: str) -> None:
        text = "." * before + secret + " and more"
        settings = {"auth": {"type": "bearer", "token": secret}}
        message = failure(httpx.Response(400, json={"message": text}), **settings).message
        assert secret[:4] not in message

    def test_all_kinds_of_secrets_are_redacted(self) -> None:
        settings = {
            "url": "https://api.example/{object}?key=in-the-address",
            "auth": {"type": "basic", "username": "u", "password": "pass/word+1"},
            "headers": {"X-Api-Key": "in-a-header", "X-Team": "data"},
            "signing_secret": "signing-secret",
        }
        echo = "in-the-address pass/word+1 pass%2Fword%2B1 dTpwYXNzL3dvcmQrMQ== in-a-header signing-secret data"
        assert failure(httpx.Response(400, text=echo), **settings).message == "*** *** *** *** *** *** data"
        row_error = errors({"index": 0, "code": "signing-secret", "message": echo})
        (fault,) = faults(answer(row_error, results=RESULTS, **settings)).values()
        assert fault[1:] == ("*** *** *** *** *** *** data", "***")


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dagster_retl"):
        failure(httpx.Response(500, text="x"))
    assert caplog.records == []
