"""Syncs to HubSpot from end to end: a DuckDB warehouse, a real store, an account that enforces its rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hubspot_things import COMPANY, TOKEN, by

from dagster_retl.errors import DestinationError, ErrorCode, GuardTrippedError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import Guard, RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service
from dagster_retl.testing import Trouble, faults
from dagster_retl.testing.fake_hubspot import FakeHubSpot
from dagster_retl.testing.fake_hubspot_rules import PRIMARY, HubSpotRules

MAPPINGS = {"email": "email", "firstname": "name", "score": "score", "association.company": "domain"}


@dataclass
class Portal:
    """A sync `people` from warehouse table `t(email, name, score, domain)` to an account."""

    fake: FakeHubSpot
    service: Service
    warehouse: Path

    def sql(self, statement: str, *parameters: Any) -> None:
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute(statement, parameters)

    def put(self, *rows: tuple[Any, ...]) -> None:
        """Insert rows, or replace those with the same address."""
        for row in rows:
            self.sql("DELETE FROM t WHERE email = ?", row[0])
            self.sql("INSERT INTO t VALUES (?, ?, ?, ?)", *row)

    def run(self, **options: Any) -> Any:
        return self.service.run("people", RunOptions(**options)).run

    def paths(self) -> list[str]:
        return [request.path.removeprefix("/crm/v3/") for request in self.fake.requests]

    @property
    def people(self) -> Mapping[str, Mapping[str, str]]:
        return by(self.fake, "contacts", "email")


@contextmanager
def portal(
    folder: Path, rules: HubSpotRules | None = None, *, config: Mapping[str, Any] | None = None, **sync: Any
) -> Iterator[Portal]:
    """Set everything up; the table is empty, and there is a company `acme.com`."""
    with FakeHubSpot(rules or HubSpotRules(seed=6)) as fake:
        fake.add("companies", domain="acme.com")
        settings = {
            "base_url": fake.url,
            "token": TOKEN,
            "batch_rows": 10,
            "rate_limit": 500,
            "associations": {"company": {**COMPANY["company"], "type": "Primary"}},
        }
        definition: dict[str, Any] = {
            "name": "people",
            "source_query": "SELECT * FROM t",
            "destination_id": "portal",
            "object_name": "contacts",
            "sync_mode": "mirror",
            "key": "email",
            "field_mappings": MAPPINGS,
        }
        project = Project(
            base=folder,
            warehouses={"default": {"url": "duckdb:///warehouse.duckdb"}},
            destinations={"portal": {"connector": "hubspot", "config": {**settings, **(config or {})}}},
            syncs=[Sync(**{**definition, **sync})],
        )
        with Service(project) as service:
            made = Portal(fake, service, folder / "warehouse.duckdb")
            made.sql("CREATE TABLE t (email VARCHAR, name VARCHAR, score DECIMAL(12, 2), domain VARCHAR)")
            yield made
            assert all(run.counters.balanced() for run in service.runs(limit=200))


def test_rows_are_written_changed_refused_and_removed(tmp_path: Path) -> None:
    with portal(tmp_path) as made:
        made.put(*[(f"P{n}@x.org", f"n{n}", n, "acme.com" if n % 2 else None) for n in range(25)])
        first = made.run().counters
        assert (first.written, first.unconfirmed, first.failed) == (25, 0, 0)
        assert made.people["p7@x.org"] == {"email": "p7@x.org", "firstname": "n7", "score": "7.00"}
        assert len(made.fake.links.all) == 12
        assert {link[4] for link in made.fake.links.all} == {PRIMARY}
        assert made.run().counters.unchanged == 25

        made.put(("P3@x.org", "new", None, None), ("P4@x.org", "x", 1, "nobody.com"), ("nobody", "x", 1, None))
        made.sql("DELETE FROM t WHERE email IN ('P1@x.org', 'P2@x.org')")
        before = len(made.fake.requests)
        run = made.run()
        assert run.status is RunStatus.SUCCEEDED
        counters = run.counters
        assert (counters.written, counters.failed, counters.unchanged) == (1, 2, 21)
        assert (counters.removed, counters.deleted) == (2, 2)
        assert made.people["p3@x.org"] == {"email": "p3@x.org", "firstname": "new"}
        assert made.people.keys() == {f"p{n}@x.org" for n in range(25)} - {"p1@x.org", "p2@x.org"}
        assert "objects/contacts/batch/read" not in made.paths()[before:], "record ids were kept"
        letters = {letter.record_keys["email"]: letter for letter in made.service.dead_letters()}
        assert {key: (letter.error_code, letter.vendor_code) for key, letter in letters.items()} == {
            "nobody": ("DESTINATION_VALIDATION", "INVALID_EMAIL"),
            "P4@x.org": ("DESTINATION_VALIDATION", None),
        }
        assert letters["P4@x.org"].message == "there are no companies with domain 'nobody.com' to link to"
        assert made.people["p4@x.org"]["firstname"] == "n4", "a row whose parent does not exist is not written"

        made.fake.add("companies", domain="nobody.com")
        made.sql("DELETE FROM t WHERE email = 'nobody'")
        last = made.run().counters
        assert (last.written, last.dead_letters_resolved) == (1, 2)
        assert made.service.dead_letters() == []


def test_addresses_that_differ_in_case_are_one_person(tmp_path: Path) -> None:
    with portal(tmp_path) as made:
        made.put(("ann@x.org", "a", 1, None), ("ANN@x.org", "b", 2, None), ("bob@x.org", "c", 3, None))
        counters = made.run().counters
        assert (counters.written, counters.failed) == (1, 2)
        assert {letter.error_code for letter in made.service.dead_letters()} == {"DUPLICATE_SOURCE_KEY"}


def test_values_arrive_exactly(tmp_path: Path) -> None:
    query = """SELECT 'ann@x.org' AS email, 123456789012345678.90::DECIMAL(20, 2) AS score, TRUE AS is_member,
        DATE '1999-12-31' AS birthday, TIMESTAMP '2025-03-27 17:00:00.123' AS last_seen, ['art', 'travel'] AS interests,
        9223372036854775807 AS notes, NULL::VARCHAR AS lastname, 'Zoë 🚀 "q" \\' AS firstname"""
    names = ("email", "score", "is_member", "birthday", "last_seen", "interests", "notes", "lastname", "firstname")
    mappings = {name: name for name in names}
    with portal(tmp_path, source_query=query, field_mappings=mappings, sync_mode="upsert") as made:
        assert made.run().counters.written == 1
        assert made.people["ann@x.org"] == {
            "email": "ann@x.org",
            "score": "123456789012345678.90",
            "is_member": "true",
            "birthday": "1999-12-31",
            "last_seen": "2025-03-27T17:00:00.123Z",
            "interests": "art;travel",
            "notes": "9223372036854775807",
            "firstname": 'Zoë 🚀 "q" \\',
        }


def test_an_update_skips_people_that_hubspot_does_not_have(tmp_path: Path) -> None:
    with portal(tmp_path, sync_mode="update") as made:
        made.fake.add("contacts", email="ann@x.org")
        made.put(("Ann@x.org", "Ann", 1, "acme.com"), ("bob@x.org", "Bob", 2, None))
        counters = made.run().counters
        assert (counters.written, counters.skipped, counters.failed) == (1, 1, 0)
        assert made.people == {"ann@x.org": {"email": "ann@x.org", "firstname": "Ann", "score": "1.00"}}


def test_a_plan_shows_what_hubspot_holds_now_and_a_record_has_a_page(tmp_path: Path) -> None:
    with portal(tmp_path, config={"portal_id": "4711"}) as made:
        made.put(("Ann@x.org", "Ann", 1, "acme.com"))
        made.run()
        made.put(("Ann@x.org", "Anna", 2, "acme.com"), ("bob@x.org", "Bob", 3, None))
        present = {row.record_keys["email"]: row.present for row in made.service.plan("people").samples}
        assert present["Ann@x.org"] == {"email": "ann@x.org", "firstname": "Ann", "score": "1.00"}
        assert present["bob@x.org"] == {}
        (contact,) = made.fake.stored("contacts")
        delivered = made.service.explain("people", {"email": "ann@x.org"}, offline=True).delivered
        assert delivered.record_url == f"https://app.hubspot.com/contacts/4711/record/0-1/{contact}"


def test_people_are_inserted_once_and_deleted(tmp_path: Path) -> None:
    with portal(tmp_path, sync_mode="insert") as made:
        made.fake.add("contacts", email="p3@x.org")
        made.put(*[(f"p{n}@x.org", "x", n, "acme.com") for n in range(12)])
        counters = made.run().counters
        assert (counters.written, counters.failed) == (11, 1)
        assert made.service.dead_letters()[0].error_code == "CONFLICT"
        assert len(made.fake.links.all) == 11
    (tmp_path / "delete").mkdir()
    with portal(tmp_path / "delete", sync_mode="delete", field_mappings={"email": "email"}) as made:
        for n in range(3):
            made.fake.add("contacts", email=f"p{n}@x.org")
        made.put(("P1@x.org", None, None, None), ("nobody@x.org", None, None, None))
        assert made.run().counters.written == 2
        assert made.people.keys() == {"p0@x.org", "p2@x.org"}


def test_limits_are_waited_for(tmp_path: Path) -> None:
    rules = HubSpotRules(limit=(4, 0.8, "SECONDLY"), shows_limits=False)
    with portal(tmp_path, rules, field_mappings={"email": "email"}) as made:
        made.put(*[(f"p{n}@x.org", "x", n, None) for n in range(60)])
        counters = made.run().counters
        assert (counters.written, counters.failed) == (60, 0)
        assert made.fake.access.refused_by_rate >= 1


def test_a_day_that_is_over_ends_the_run_without_dead_letters(tmp_path: Path) -> None:
    with portal(tmp_path, HubSpotRules(daily=5), field_mappings={"email": "email"}) as made:
        made.put(*[(f"p{n}@x.org", "x", n, None) for n in range(100)])
        with pytest.raises(DestinationError) as caught:
            made.run()
        assert caught.value.code is ErrorCode.QUOTA_EXHAUSTED
        assert made.service.dead_letters() == []
        counters = made.service.runs(limit=1)[0].counters
        assert (counters.written, counters.skipped) == (len(made.people), 100 - len(made.people))
        assert 0 < counters.written < 100


def test_a_field_that_does_not_exist_stops_before_the_first_write(tmp_path: Path) -> None:
    with portal(tmp_path, field_mappings={"email": "email", "emial": "name"}) as made:
        made.put(("ann@x.org", "Ann", 1, None))
        with pytest.raises(GuardTrippedError, match="did you mean 'email'"):
            made.run()
        assert not [path for path in made.paths() if "batch" in path]
        with pytest.raises(DestinationError) as caught:
            made.run(overrides={Guard.CONTRACT})
        assert (caught.value.code, caught.value.vendor_code) == (ErrorCode.SCHEMA_DRIFT, "PROPERTY_DOESNT_EXIST")
        assert made.service.dead_letters() == []


def test_outages_lose_and_repeat_nothing(tmp_path: Path) -> None:
    writes = lambda request: "batch" in request.path  # noqa: E731
    with portal(tmp_path) as made:
        made.put(*[(f"p{n}@x.org", f"n{n}", n, "acme.com") for n in range(60)])
        for trouble in (faults.error(502), faults.reset(applied=True), faults.error(500, applied=True), faults.reset()):
            made.fake.disturb(trouble, where=writes)
        counters = made.run().counters
        assert (counters.written, counters.failed, counters.unknown) == (60, 0, 0)
        assert {email: record["firstname"] for email, record in made.people.items()} == {
            f"p{n}@x.org": f"n{n}" for n in range(60)
        }
        assert len(made.fake.links.all) == 60


def test_tokens_of_a_public_app_expire_in_the_middle(tmp_path: Path) -> None:
    app = {"client_id": "a", "client_secret": "secret-1", "refresh_token": "refresh-1"}
    rules = HubSpotRules(token=None, app=("a", "secret-1", "refresh-1"), token_requests=4)
    with portal(tmp_path, rules, config={"token": None, "oauth": app}) as made:
        made.put(*[(f"p{n}@x.org", f"n{n}", n, None) for n in range(80)])
        assert made.run().counters.written == 80


def test_a_person_who_was_deleted_by_hand_is_created_again_when_the_row_changes(tmp_path: Path) -> None:
    with portal(tmp_path) as made:
        made.put(("ann@x.org", "Ann", 1, None), ("bob@x.org", "Bob", 1, None))
        made.run()
        for id_ in made.fake.stored("contacts"):
            made.fake.records.archive(made.fake.rules.objects[0], id_)
        made.put(("ann@x.org", "Anna", 1, None))
        assert made.run().counters.written == 1
        assert made.people.keys() == {"ann@x.org"}
        made.sql("DELETE FROM t WHERE email = 'bob@x.org'")
        assert made.run().counters.deleted == 1


def test_no_secret_is_kept(tmp_path: Path) -> None:
    with portal(tmp_path) as made:
        made.put(("ann@x.org", "Ann", 1, None))
        echo = orjson.dumps({"category": "VALIDATION_ERROR", "message": f"you sent {TOKEN}"})
        made.fake.disturb(Trouble(status=400, body=echo), where=lambda request: "batch" in request.path)
        assert made.run().counters.failed == 1
        assert made.service.dead_letters()[0].message == "you sent ***"
    assert not any(TOKEN.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
