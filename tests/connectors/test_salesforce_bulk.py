"""Jobs of Bulk API 2.0: opened, started, asked for, collected and aborted, against an org that keeps records."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from salesforce_orgs import KEY, accounts, connector_to, held

from dagster_retl.connectors.jobs import JobRef, JobState
from dagster_retl.connectors.salesforce import SalesforceConnector
from dagster_retl.connectors.salesforce_config import SalesforceConfig
from dagster_retl.connectors.salesforce_csv import keys_of, read_csv, write_csv
from dagster_retl.connectors.salesforce_errors import RowError
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation, RowResult
from dagster_retl.testing import MadeRow, Trouble, converse, drive, write
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_jobs import FakeJob
from dagster_retl.testing.fake_salesforce_values import RowRefusedError

AUTH = {"type": "client_credentials", "client_id": "a", "client_secret": "b"}


def offline(**config: Any) -> SalesforceConnector:
    return SalesforceConnector(SalesforceConfig.model_validate({"auth": AUTH, **config}))


def run_job(connector: SalesforceConnector, batch: Batch) -> tuple[JobRef, list[JobState]]:
    """A job from its beginning to its end; the states that were seen on the way."""
    job = drive(connector, connector.open(batch))
    job = drive(connector, connector.start(batch, job))
    states = [drive(connector, connector.poll(job)).state]
    while states[-1] in (JobState.OPEN, JobState.RUNNING):
        states.append(drive(connector, connector.poll(job)).state)
    return job, states


def collected(connector: SalesforceConnector, batch: Batch, job: JobRef) -> dict[str, RowResult]:
    results = drive(connector, connector.collect(batch, job))
    assert len({result.key for result in results}) == len(results)
    return {result.key: result for result in results}


def by_manifest(batch: Batch) -> Batch:
    """The batch as a run knows it that found it in the manifest of another: keys, and no other values."""
    empty = orjson.Fragment(b"{}")
    return replace(batch, rows=[MadeRow(row.key, row.key_values, {}, empty) for row in batch.rows])


def only_job(org: FakeSalesforce) -> FakeJob:
    (job,) = org.jobs.jobs.values()
    return job


class TestJobs:
    def test_an_upsert_of_many_rows(self) -> None:
        rows = [{KEY: f"k{number}", "Name": f"Name {number}"} for number in range(500)]
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job, states = run_job(connector, accounts(*rows))
            assert states == [JobState.RUNNING, JobState.RUNNING, JobState.DONE]
            results = collected(connector, accounts(*rows), job)
            ids = {record[KEY]: record["Id"] for record in org.org.records["Account"].values()}
            assert {key: result.record_id for key, result in results.items()} == ids
            assert not any(result.fault for result in results.values())
            assert held(org) == {row[KEY]: row for row in rows}
            assert only_job(org).wanted == {
                "object": "Account",
                "operation": "upsert",
                "externalIdFieldName": KEY,
                "contentType": "CSV",
                "lineEnding": "LF",
                "columnDelimiter": "COMMA",
            }

    def test_a_refused_row_fails_alone(self) -> None:
        rows = [
            {KEY: "good", "Name": "Good", "Founded__c": date(2020, 1, 2)},
            {KEY: "type", "Name": "x", "Founded__c": "2003-04-98"},
            {KEY: "picklist", "Name": "x", "Rating": "Luke: warm"},
            {KEY: "required", "Name": None},
            {KEY: "email", "Name": "x", "Support_Email__c": "badone"},
        ]
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job, states = run_job(connector, accounts(*rows))
            assert states[-1] is JobState.DONE
            results = collected(connector, by_manifest(accounts(*rows)), job)
            faults = {key: result.fault for key, result in results.items()}
            assert faults.pop("good") is None
            assert {key: (fault.code, fault.vendor_code) for key, fault in faults.items() if fault} == {
                "type": (ErrorCode.TYPE_COERCION, "INVALID_FIELD"),
                "picklist": (ErrorCode.DESTINATION_VALIDATION, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
                "required": (ErrorCode.MISSING_REQUIRED_FIELD, "REQUIRED_FIELD_MISSING"),
                "email": (ErrorCode.DESTINATION_VALIDATION, "INVALID_EMAIL_ADDRESS"),
            }
            assert "Luke: warm" in str(faults["picklist"])
            assert set(held(org)) == {"good"}

    def test_values_arrive_as_they_do_by_collections(self) -> None:
        sample = {
            KEY: "sample",
            "Name": "Zoë 🚀 \"quoted\", 'single'\nnew line\r\nand another",
            "Description": "  =1+1;a\tb  ",
            "AnnualRevenue": Decimal("1234567890123456.78"),
            "NumberOfEmployees": 2**59,
            "Site": None,
            "AccountNumber": "",
            "Active__c": False,
            "Founded__c": date(2024, 2, 29),
            "Last_Order_At__c": datetime(2025, 3, 27, 17, 0, 0, 250_000, tzinfo=UTC),
        }
        with FakeSalesforce() as org, FakeSalesforce() as other:
            seed = {KEY: "sample", "Name": "x", "Site": "to clear", "AccountNumber": "to clear"}
            for each in (org, other):
                each.org.insert(each.org.object("Account"), seed)
            connector = connector_to(org)
            job, _ = run_job(connector, accounts(sample))
            assert collected(connector, accounts(sample), job)["sample"].fault is None
            write(connector_to(other), accounts(sample))
            assert held(org) == held(other)
            assert held(org)["sample"]["Site"] is None
            assert held(org)["sample"]["AccountNumber"] is None

    def test_fields_that_a_row_omits_stay_as_they_are(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            run_job(connector, accounts({KEY: "a", "Name": "A", "Site": "s"}))
            run_job(connector, accounts({KEY: "a", "Name": "B"}, {KEY: "b", "Name": "B", "Site": "t"}))
            assert held(org)["a"] == {KEY: "a", "Name": "B", "Site": "s"}

    def test_parents_by_external_id(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            write(connector, accounts({KEY: "acme", "Name": "Acme"}))
            rows = [
                {KEY: "c1", "LastName": "One", f"Account.{KEY}": "acme"},
                {KEY: "c2", "LastName": "Two", f"Account.{KEY}": "nobody"},
            ]
            batch = accounts(*rows, object_name="Contact")
            job, _ = run_job(connector, batch)
            results = collected(connector, batch, job)
            assert results["c1"].fault is None
            fault = results["c2"].fault
            assert fault
            assert (fault.code, fault.message) == (
                ErrorCode.DESTINATION_VALIDATION,
                f"Foreign key external ID: nobody not found for field {KEY} in entity Account",
            )

    def test_an_insert_is_matched_by_its_keys(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            rows = [
                {"Name": "a", "Score__c": Decimal("1.50")},
                {"Name": "a", "Score__c": 2},
                {"Name": None, "Score__c": 3},
            ]
            batch = accounts(*rows, operation="insert", key=["Name", "Score__c"])
            job, _ = run_job(connector, batch)
            results = drive(connector, connector.collect(batch, job))
            assert sorted(result.fault is None for result in results) == [False, True, True]
            assert {result.key for result in results} == {row.key for row in batch.rows}

    def test_an_update_by_id(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            made = [each.record_id for each in write(connector, accounts(*({KEY: k, "Name": k} for k in "ab")))]
            org.org.delete(str(made[1]))
            batch = accounts(*({"Id": each, "Name": "new"} for each in made), operation="update", key="Id")
            job, _ = run_job(connector, batch)
            results = collected(connector, batch, job)
            gone = results[str(made[1])].fault
            assert gone
            assert gone.code is ErrorCode.NOT_FOUND
            assert held(org) == {"a": {KEY: "a", "Name": "new"}}

    def test_rows_that_a_job_did_not_get_to_are_tried_again(self) -> None:
        rows = [{KEY: f"k{number}", "Name": "x"} for number in range(5)]
        with FakeSalesforce() as org:
            connector = connector_to(org)
            org.jobs.stop_after = 2
            job, states = run_job(connector, accounts(*rows))
            assert states[-1] is JobState.FAILED
            assert "TooManyLockFailure" in drive(connector, connector.poll(job)).message
            results = collected(connector, by_manifest(accounts(*rows)), job)
            assert len(results) == 5
            faults = {key: result.fault for key, result in results.items() if result.fault}
            assert set(faults) == {"k2", "k3", "k4"}
            assert all(ACTIONS[fault.code] is Action.RETRY for fault in faults.values())
            assert all("TooManyLockFailure" in fault.message for fault in faults.values())
            assert set(held(org)) == {"k0", "k1"}

    def test_a_locked_row_is_tried_again(self) -> None:
        locked = RowRefusedError("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to 1 records: 001x")
        with FakeSalesforce() as org:
            org.org.refuse = lambda name, values: locked if values.get(KEY) == "b" else None
            connector = connector_to(org)
            batch = accounts({KEY: "a", "Name": "x"}, {KEY: "b", "Name": "x"})
            job, _ = run_job(connector, batch)
            fault = collected(connector, batch, job)["b"].fault
            assert fault
            assert (fault.code, fault.message) == (ErrorCode.DESTINATION_LOCKED, locked.message)

    def test_an_unknown_column_ends_the_run(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            batch = accounts({KEY: "a", "Nmae": "x"})
            job, states = run_job(connector, batch)
            assert states[-1] is JobState.FAILED
            with pytest.raises(DestinationError, match="Field name not found : Nmae") as caught:
                collected(connector, batch, job)
            assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.SCHEMA_DRIFT, False)

    @pytest.mark.parametrize("key", ["Name", "Gone__c"])
    def test_a_key_that_is_no_external_id_ends_the_run(self, key: str) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            with pytest.raises(DestinationError, match="does not match an External ID") as caught:
                drive(connector, connector.open(accounts({key: "a"}, key=key)))
            assert caught.value.code is ErrorCode.SCHEMA_DRIFT
            assert org.jobs.jobs == {}

    def test_answers_are_matched_by_key_whatever_their_order(self) -> None:
        rows = [{KEY: f"k{number}", "Name": "x"} for number in range(6)]
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job, _ = run_job(connector, accounts(*rows))
            only_job(org).results["successfulresults"].reverse()
            results = collected(connector, accounts(*rows), job)
            ids = {record[KEY]: record["Id"] for record in org.org.records["Account"].values()}
            assert {key: result.record_id for key, result in results.items()} == ids

    def test_a_row_that_the_job_never_held_has_no_result(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job, _ = run_job(connector, accounts({KEY: "a", "Name": "x"}))
            results = collected(connector, accounts({KEY: "a", "Name": "x"}, {KEY: "b", "Name": "x"}), job)
            assert set(results) == {"a"}

    def test_nothing_is_opened_beyond_the_usage_that_is_allowed_but_what_was_begun_is_ended(self) -> None:
        batch = accounts({KEY: "a", "Name": "x"})
        with FakeSalesforce(daily=100) as org:
            connector = connector_to(org, stop_at_usage=0.5)
            org.used = 48
            job = drive(connector, connector.open(batch))
            org.used = 60
            drive(connector, connector.start(batch, job))
            for _ in range(3):
                drive(connector, connector.poll(job))
            assert collected(connector, batch, job)["a"].fault is None
            with pytest.raises(DestinationError) as caught:
                drive(connector, connector.open(batch))
            assert caught.value.code is ErrorCode.QUOTA_EXHAUSTED


class TestInterruptions:
    """Whoever goes on does not know how far the one before came."""

    BATCH = staticmethod(lambda: accounts({KEY: "a", "Name": "x"}, {KEY: "b", "Name": "x"}))

    def test_nothing_is_applied_before_the_start(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            for _ in range(5):
                assert drive(connector, connector.poll(job)).state is JobState.OPEN
            assert held(org) == {}

    def test_a_started_job_is_not_started_again(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            drive(connector, connector.start(self.BATCH(), job))
            assert drive(connector, connector.start(self.BATCH(), job)) == job
            assert only_job(org).uploads == 1

    def test_a_start_whose_answer_got_lost_has_begun(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            started = httpx.Response(400, json=[{"errorCode": "INVALIDJOBSTATE", "message": "it was closed before"}])
            answers = [
                httpx.Response(200, json={"id": job.id, "state": "Open"}),
                httpx.Response(201),
                started,
                httpx.Response(200, json={"id": job.id, "state": "UploadComplete"}),
            ]
            requests, same = converse(connector.start(self.BATCH(), job), *answers)
            assert same == job
            assert [request.method for request in requests] == ["GET", "PUT", "PATCH", "GET"]

    def test_a_job_that_was_uploaded_twice_is_ended_unbegun_and_its_rows_are_tried_again(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            org.disturb(Trouble(reset="after"), where=lambda request: request.method == "PUT")
            with pytest.raises(httpx.TransportError):
                drive(connector, connector.start(self.BATCH(), job))
            assert only_job(org).uploads == 1
            job = drive(connector, connector.start(self.BATCH(), job))
            assert drive(connector, connector.poll(job)).state is JobState.FAILED
            results = collected(connector, self.BATCH(), job)
            assert {result.fault and ACTIONS[result.fault.code] for result in results.values()} == {Action.RETRY}
            assert set(results) == {"a", "b"}
            assert held(org) == {}

    def test_a_refused_upload_is_an_error(self) -> None:
        with FakeSalesforce() as org:
            org.jobs.most_bytes = 10
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            with pytest.raises(DestinationError, match="too large"):
                drive(connector, connector.start(self.BATCH(), job))
            assert only_job(org).state == "Open"

    def test_an_open_job_can_be_aborted(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            drive(connector, connector.abort(job))
            assert only_job(org).state == "Aborted"
            drive(connector, connector.abort(job))

    def test_a_job_that_has_ended_or_is_unknown_needs_no_end(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job, _ = run_job(connector, self.BATCH())
            drive(connector, connector.abort(job))
            assert drive(connector, connector.poll(job)).state is JobState.DONE
            drive(connector, connector.abort(JobRef("750000000000999AAA")))

    def test_an_abort_that_fails_says_so(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            job = drive(connector, connector.open(self.BATCH()))
            refused = httpx.Response(400, json=[{"errorCode": "X", "message": "no"}])
            still_open = httpx.Response(200, json={"id": job.id, "state": "InProgress"})
            with pytest.raises(DestinationError, match="no"):
                converse(connector.abort(job), refused, still_open)

    def test_an_unknown_job_is_not_found(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            for ask in (connector.poll, lambda job: connector.collect(self.BATCH(), job)):
                with pytest.raises(DestinationError) as caught:
                    drive(connector, ask(JobRef("750000000000999AAA")))
                assert caught.value.code is ErrorCode.NOT_FOUND

    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(200, json={"id": "7"}),
            httpx.Response(200, json={"id": "7", "state": "Pondering"}),
            httpx.Response(200, json=["x"]),
            httpx.Response(200, html="<html>"),
        ],
    )
    def test_nonsense_is_no_state(self, answer: httpx.Response) -> None:
        with pytest.raises(DestinationError) as caught:
            converse(offline().poll(JobRef("7")), answer)
        assert (caught.value.code, caught.value.ambiguous) == (ErrorCode.DESTINATION_UNAVAILABLE, True)

    @pytest.mark.parametrize("content", [b"<html>", b'"sf__Id","sf__Created"\n"1"\n', b"\xff\xfe"])
    def test_nonsense_is_no_result(self, content: bytes) -> None:
        done = httpx.Response(200, json={"id": "7", "state": "JobComplete", "numberRecordsProcessed": 1})
        answers = [done, httpx.Response(200, content=content)]
        if content == b"<html>":  # a file without lines: the row has no result
            answers += [httpx.Response(200), httpx.Response(200)]
            assert converse(offline().collect(accounts({KEY: "a"}), JobRef("7")), *answers)[1] == []
            return
        with pytest.raises(DestinationError) as caught:
            converse(offline().collect(accounts({KEY: "a"}), JobRef("7")), *answers)
        assert caught.value.ambiguous


class TestWhenJobsAreUsed:
    @pytest.mark.parametrize(
        ("operation", "key", "fits"),
        [
            (Operation.UPSERT, (KEY,), True),
            (Operation.UPSERT, ("Id",), False),
            (Operation.UPSERT, (KEY, "Name"), False),
            (Operation.INSERT, ("Name", KEY), True),
            (Operation.INSERT, (), False),
            (Operation.UPDATE, ("id",), True),
            (Operation.UPDATE, (KEY,), False),
            (Operation.DELETE, ("Id",), False),
            (Operation.DELETE, (KEY,), False),
        ],
    )
    def test_only_for_rows_that_results_can_name(self, operation: Operation, key: tuple[str, ...], fits: bool) -> None:
        connector = offline(api="bulk", job_rows=10_000)
        assert connector.job_rows("Account", operation, key, 1) == (10_000 if fits else None)

    @pytest.mark.parametrize(
        ("api", "rows", "used"),
        [("auto", 1_999, False), ("auto", 2_000, True), ("bulk", 1, True), ("collections", 10**6, False)],
    )
    def test_from_a_threshold_on(self, api: str, rows: int, used: bool) -> None:
        connector = offline(api=api)
        assert (connector.job_rows("Account", Operation.UPSERT, (KEY,), rows) is not None) == used
        assert offline(bulk_rows=3).job_rows("Account", Operation.UPSERT, (KEY,), 3)

    def test_no_job_is_larger_than_salesforce_takes(self) -> None:
        assert offline().job_bytes == 20_000_000
        assert offline(job_bytes=100_000_000).job_bytes == 100_000_000


_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


class TestFiles:
    @given(st.lists(st.tuples(_CELLS, _CELLS), min_size=1, max_size=20, unique_by=lambda pair: pair[0]))
    def test_what_is_uploaded_is_what_results_repeat(self, pairs: list[tuple[str, str]]) -> None:
        batch = accounts(*({KEY: key, "Name": name} for key, name in pairs))
        content = write_csv(batch)
        lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
        assert lines == [[KEY, "Name"], *([key, name] for key, name in pairs)]
        echoed = read_csv(b"\xef\xbb\xbf" + content)
        assert [(line[KEY.lower()],) for line in echoed] == [keys_of(row, (KEY,)) for row in batch.rows]

    @given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.decimals(allow_nan=False, allow_infinity=False, places=4)))
    def test_number_keys_are_the_same_from_a_row_and_from_a_manifest(self, number: Any) -> None:
        batch = accounts({"Number__c": number, "Name": "x"}, key="Number__c")
        (line,) = read_csv(write_csv(batch))
        manifest = MadeRow("k", {"Number__c": Decimal(str(number))}, {}, batch.rows[0].json)
        assert keys_of(manifest, ("Number__c",)) == (line["number__c"],)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "INVALID_FIELD:Failed to deserialize field at col 3. Due to, 'x' is no xsd:date:CloseDate --",
                RowError(
                    "INVALID_FIELD",
                    "Failed to deserialize field at col 3. Due to, 'x' is no xsd:date",
                    ("CloseDate",),
                ),
            ),
            (
                "REQUIRED_FIELD_MISSING:missing: [A, B]:A,B --",
                RowError("REQUIRED_FIELD_MISSING", "missing: [A, B]", ("A", "B")),
            ),
            ("UNABLE_TO_LOCK_ROW:unable: 001x:--", RowError("UNABLE_TO_LOCK_ROW", "unable: 001x")),
            ("UNABLE_TO_LOCK_ROW:unable: 001x: --", RowError("UNABLE_TO_LOCK_ROW", "unable: 001x")),
            ("DUPLICATE_VALUE:two\nlines:F__c --\n", RowError("DUPLICATE_VALUE", "two\nlines", ("F__c",))),
            ("CODE:no end", RowError("CODE", "no end")),
            ("something else", RowError(None, "something else")),
            ("", RowError(None, "")),
        ],
    )
    def test_the_error_of_a_row(self, text: str, expected: RowError) -> None:
        assert RowError.of_job(text) == expected

    def test_rows_have_the_columns_of_all(self) -> None:
        rows: list[Mapping[str, Any]] = [{KEY: "a", "Site": None}, {KEY: "b", "Active__c": True, "Account.X__c": 1}]
        assert write_csv(accounts(*rows)) == (b"External_Id__c,Site,Active__c,Account.X__c\na,#N/A,,\nb,,true,1\n")
