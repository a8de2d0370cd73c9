"""A sync to Salesforce through the engine: a DuckDB warehouse, a real service, and an org that keeps records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from salesforce_orgs import KEY, held

from dagster_retl.engine.run import Report
from dagster_retl.errors import DestinationError, ErrorCode, GuardTrippedError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import DeadLetter, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service
from dagster_retl.testing import Trouble
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_values import RowRefusedError


@dataclass
class Scene:
    """A warehouse table `t(id, name, city, rating, revenue)` and an org."""

    org: FakeSalesforce
    folder: Path

    def sql(self, statement: str) -> None:
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    def service(self, config: Mapping[str, Any] | None = None, **changes: Any) -> Service:
        app = self.org.login.app
        auth = {"type": "client_credentials", "client_id": app.client_id, "client_secret": app.client_secret}
        usual = {"login_url": self.org.url, "auth": auth, "api": "collections", "batch_rows": 4}
        definition: dict[str, Any] = {
            "name": "accounts",
            "source_query": "SELECT * FROM t",
            "destination_id": "sf",
            "object_name": "Account",
            "sync_mode": "mirror",
            "key": KEY,
            "field_mappings": {
                KEY: "id",
                "Name": "name",
                "Site": "city",
                "Rating": "rating",
                "AnnualRevenue": "revenue",
            },
        }
        return Service(
            Project(
                store=f"sqlite:///{self.folder / 'retl.db'}",
                state=str(self.folder / "state"),
                base=self.folder,
                warehouses={"default": {"url": f"duckdb:///{self.folder / 'warehouse.duckdb'}"}},
                destinations={"sf": {"connector": "salesforce", "config": {**usual, **(config or {})}}},
                syncs=[Sync.model_validate({**definition, **changes})],
            )
        )

    def run(self, *, config: Mapping[str, Any] | None = None, options: Any = None, **changes: Any) -> Report:
        with self.service(config, **changes) as service:
            return service.run("accounts", options or RunOptions())

    def letters(self) -> dict[str, DeadLetter]:
        with self.service() as service:
            return {str(letter.record_keys[KEY]): letter for letter in service.dead_letters(limit=200)}

    def names(self) -> dict[str, str]:
        return {key: record["Name"] for key, record in held(self.org).items()}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with FakeSalesforce(instance_host="localhost") as org:
        made = Scene(org, tmp_path)
        made.sql("CREATE TABLE t (id VARCHAR, name VARCHAR, city VARCHAR, rating VARCHAR, revenue DECIMAL(18, 2))")
        made.sql("INSERT INTO t SELECT 'k' || n, 'name ' || n, NULL, 'Hot', n * 1.25 FROM range(10) r(n)")
        yield made


def test_a_first_sync_a_change_a_poisoned_row_and_a_removal(scene: Scene) -> None:
    first = scene.run().run.counters
    assert (first.written, first.failed, first.read) == (10, 0, 10)
    assert scene.names() == {f"k{n}": f"name {n}" for n in range(10)}
    ids = {record[KEY]: record_id for record_id, record in scene.org.org.records["Account"].items()}

    sent = len(scene.org.org.changes)
    assert scene.run().run.counters.unchanged == 10
    assert len(scene.org.org.changes) == sent, "an unchanged row is not sent"

    scene.sql("UPDATE t SET name = 'changed' WHERE id = 'k3'")
    scene.sql("UPDATE t SET rating = 'Lukewarm' WHERE id = 'k4'")
    scene.sql("DELETE FROM t WHERE id = 'k5'")
    scene.org.login.expire_tokens()
    second = scene.run().run.counters
    assert (second.written, second.failed, second.unchanged, second.deleted) == (1, 1, 7, 1)
    assert second.balanced()
    assert scene.names()["k3"] == "changed"
    assert "k5" not in scene.names()
    queries = [path for method, path in scene.org.data_requests() if path.startswith("query")]
    assert len(queries) == 3, "one for each look at the account: the ids of what is deleted were kept"

    (letter,) = scene.letters().values()
    assert (letter.error_code, letter.record_keys) == (ErrorCode.DESTINATION_VALIDATION, {KEY: "k4"})
    assert "bad value for restricted picklist field: Lukewarm" in letter.message
    assert held(scene.org)["k4"]["Rating"] == "Hot", "the record stays as it was"

    scene.sql("UPDATE t SET rating = 'Cold' WHERE id = 'k4'")
    third = scene.run().run.counters
    assert (third.written, third.failed) == (1, 0)
    assert scene.letters() == {}
    now = {record[KEY]: record_id for record_id, record in scene.org.org.records["Account"].items()}
    assert now == {key: record_id for key, record_id in ids.items() if key != "k5"}


def test_a_record_that_somebody_deleted_is_removed_without_an_error(scene: Scene) -> None:
    scene.run()
    record_id = next(each for each, record in scene.org.org.records["Account"].items() if record[KEY] == "k0")
    scene.org.org.delete(record_id)
    scene.sql("DELETE FROM t WHERE id = 'k0'")
    counters = scene.run().run.counters
    assert (counters.deleted, counters.delete_failed) == (1, 0)


def test_an_update_skips_what_is_not_there(scene: Scene) -> None:
    scene.org.org.insert(scene.org.org.object("Account"), {KEY: "K1", "Name": "old"})
    mappings = {KEY: "id", "Name": "name"}
    counters = scene.run(sync_mode="update", field_mappings=mappings).run.counters
    assert (counters.written, counters.skipped, counters.failed) == (1, 9, 0)
    assert scene.names() == {"K1": "name 1"}


def test_a_value_of_another_type_is_found_among_its_batch(scene: Scene) -> None:
    mappings = {KEY: "id", "Name": "name", "Founded__c": "city"}
    scene.sql("UPDATE t SET city = '2024-02-29'")
    scene.sql("UPDATE t SET city = '2024-02-30' WHERE id = 'k6'")
    counters = scene.run(field_mappings=mappings).run.counters
    assert (counters.written, counters.failed) == (9, 1)
    letter = scene.letters()["k6"]
    assert "Cannot deserialize instance of date" in letter.message
    assert set(scene.names()) == {f"k{n}" for n in range(10) if n != 6}


def test_a_locked_row_is_sent_again_in_the_same_run(scene: Scene) -> None:
    locked = RowRefusedError("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
    times = iter([locked, locked])
    scene.org.org.refuse = lambda name, values: next(times, None) if values.get(KEY) == "k2" else None
    counters = scene.run().run.counters
    assert (counters.written, counters.failed, counters.retries) == (10, 0, 2)


def test_too_many_requests_at_once_are_waited_for(scene: Scene) -> None:
    body = orjson.dumps([{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentRequests Limit exceeded."}])
    scene.org.disturb(Trouble(status=403, body=body), where=lambda request: "composite" in request.path)
    counters = scene.run().run.counters
    assert (counters.written, counters.failed) == (10, 0)


def test_a_run_leaves_the_rest_of_the_allocation_to_others(scene: Scene) -> None:
    scene.org.daily = 100
    scene.org.used = 47  # a look at the account, one at the fields, and the first batch
    with pytest.raises(DestinationError, match="`stop_at_usage`") as caught:
        scene.run(config={"stop_at_usage": 0.5, "concurrency": 1})
    assert caught.value.code is ErrorCode.QUOTA_EXHAUSTED
    assert len(scene.names()) == 4
    scene.org.used = 0
    counters = scene.run().run.counters
    assert (counters.written, counters.unchanged, counters.failed) == (6, 4, 0), "what was written stays written"
    assert len(scene.names()) == 10


def test_a_mapping_that_does_not_fit_stops_before_the_first_write(scene: Scene) -> None:
    with pytest.raises(GuardTrippedError, match="did you mean 'Rating'"):
        scene.run(field_mappings={KEY: "id", "Name": "name", "Ratin": "rating"})
    assert scene.names() == {}


def test_a_field_that_goes_away_meanwhile_ends_the_run(scene: Scene) -> None:
    account = scene.org.org.object("Account")

    def drop(name: str, values: Mapping[str, Any]) -> None:
        scene.org.org.alter(account.without_fields("Rating"))

    scene.org.org.refuse = drop
    with pytest.raises(DestinationError, match="No such column 'Rating'") as caught:
        scene.run(config={"concurrency": 1})
    assert caught.value.code is ErrorCode.SCHEMA_DRIFT
    assert scene.letters() == {}, "it is nothing that a row could help"


def test_wrong_credentials_end_the_run(scene: Scene) -> None:
    auth = {"type": "client_credentials", "client_id": scene.org.login.app.client_id, "client_secret": "wrong-secret"}
    with pytest.raises(DestinationError, match="invalid client credentials") as caught:
        scene.run(config={"auth": auth})
    assert caught.value.code is ErrorCode.AUTH
    assert b"wrong-secret" not in (scene.folder / "retl.db").read_bytes()


def test_contacts_follow_their_accounts(scene: Scene) -> None:
    scene.run()
    scene.sql("UPDATE t SET city = id")
    scene.sql("UPDATE t SET city = 'nobody' WHERE id = 'k9'")
    contacts = {
        "name": "contacts",
        "object_name": "Contact",
        "field_mappings": {KEY: "id", "LastName": "name", f"Account.{KEY}": "city"},
    }
    with scene.service(**contacts) as service:
        counters = service.run("contacts", RunOptions()).run.counters
    assert (counters.written, counters.failed) == (9, 1)
    parents = {record[KEY]: record_id for record_id, record in scene.org.org.records["Account"].items()}
    assert {key: each["AccountId"] for key, each in held(scene.org, "Contact").items()} == {
        key: record_id for key, record_id in parents.items() if key != "k9"
    }


class TestJobs:
    def test_many_rows_are_sent_as_jobs_and_removals_are_not(self, scene: Scene) -> None:
        config = {"api": "auto", "bulk_rows": 10, "job_rows": 6}
        scene.sql("UPDATE t SET rating = 'Lukewarm' WHERE id = 'k4'")
        first = scene.run(config=config).run.counters
        assert (first.written, first.failed) == (9, 1)
        assert first.balanced()
        assert [job.state for job in scene.org.jobs.jobs.values()] == ["JobComplete", "JobComplete"]
        assert "bad value for restricted picklist field: Lukewarm" in scene.letters()["k4"].message

        scene.sql("UPDATE t SET rating = 'Warm', name = 'changed'")
        scene.sql("DELETE FROM t WHERE id = 'k5'")
        second = scene.run(config={**config, "bulk_rows": 9}).run.counters
        assert (second.written, second.failed, second.deleted) == (9, 0, 1)
        assert scene.letters() == {}
        assert scene.names() == {f"k{n}": "changed" for n in range(10) if n != 5}
        deletes = [path for method, path in scene.org.data_requests() if method == "DELETE"]
        assert deletes == ["composite/sobjects"]

    def test_a_few_rows_are_not_sent_as_a_job(self, scene: Scene) -> None:
        scene.run(config={"api": "auto"})
        assert scene.org.jobs.jobs == {}
        assert len(scene.names()) == 10

    def test_rows_that_a_job_did_not_get_to_are_sent_by_another(self, scene: Scene) -> None:
        scene.org.jobs.stop_after = 4
        counters = scene.run(config={"api": "bulk"}).run.counters
        assert (counters.written, counters.failed) == (10, 0)
        assert [job.state for job in scene.org.jobs.jobs.values()] == ["Failed", "JobComplete"]
        written = [change.values[KEY] for change in scene.org.org.changes]
        assert sorted(written) == sorted(set(written)), "no row was written twice"

    def test_an_upload_whose_answer_got_lost_is_made_again_by_another_job(self, scene: Scene) -> None:
        scene.org.disturb(Trouble(reset="after"), where=lambda request: request.method == "PUT")
        counters = scene.run(config={"api": "bulk"}, sync_mode="insert").run.counters
        assert (counters.written, counters.failed) == (10, 0)
        assert [job.state for job in scene.org.jobs.jobs.values()] == ["Aborted", "JobComplete"]
        assert len(scene.org.org.changes) == 10

    def test_a_start_whose_answer_got_lost_is_no_second_start(self, scene: Scene) -> None:
        scene.org.disturb(Trouble(reset="after"), where=lambda request: request.method == "PATCH")
        counters = scene.run(config={"api": "bulk"}, sync_mode="insert").run.counters
        assert (counters.written, counters.failed) == (10, 0)
        assert [job.state for job in scene.org.jobs.jobs.values()] == ["JobComplete"]
        assert len(scene.org.org.changes) == 10

    def test_a_column_that_goes_away_meanwhile_ends_the_run(self, scene: Scene) -> None:
        gone = scene.org.org.object("Account").without_fields("Rating")
        alter = Trouble(apply=True, before=lambda: scene.org.org.alter(gone))
        scene.org.disturb(alter, where=lambda request: request.method == "PUT")
        with pytest.raises(DestinationError, match="Field name not found : Rating") as caught:
            scene.run(config={"api": "bulk"})
        assert caught.value.code is ErrorCode.SCHEMA_DRIFT
        assert scene.names() == {}


def test_a_plan_shows_what_is_there_now(scene: Scene) -> None:
    scene.sql("UPDATE t SET city = 'Oslo'")
    scene.run()
    scene.sql("UPDATE t SET city = 'Bergen' WHERE id = 'k1'")
    scene.sql("INSERT INTO t VALUES ('new', 'New', NULL, NULL, NULL)")
    with scene.service() as service:
        plan = service.plan("accounts")
    present = {row.record_keys[KEY]: row.present for row in plan.samples}
    assert present["k1"] is not None
    assert present["k1"]["Site"] == "Oslo"
    assert present["new"] == {}
    assert plan.warnings == []
