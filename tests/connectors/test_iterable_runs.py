"""Whole runs: a DuckDB warehouse, a real store, and a fake Iterable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from iterable_things import KEY

from dagster_retl.errors import GuardTrippedError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import Guard, Run, RunOptions, RunStatus
from dagster_retl.model.sync import Sync
from dagster_retl.service import Service
from dagster_retl.testing import Trouble
from dagster_retl.testing.fake_iterable import FakeIterable, IterableRules, User
from dagster_retl.testing.fake_iterable_catalogs import Catalog
from dagster_retl.testing.fake_iterable_lists import List

USER_FIELDS = {
    "firstName": "string",
    "age": "long",
    "ltv": "double",
    "seenAt": "date",
    "address": "object",
    "address.city": "string",
}


@dataclass
class World:
    """A warehouse with a table of people, and an Iterable project."""

    service: Service
    place: FakeIterable
    warehouse: Path

    def sql(self, statement: str, *parameters: Any) -> None:
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute(statement, parameters)

    def put(self, *people: tuple[str, str, Any, Any]) -> None:
        """Insert people (address, name, age as text, lifetime value), or replace those with the same address."""
        for person in people:
            self.sql("DELETE FROM people WHERE email = ?", person[0])
            self.sql("INSERT INTO people VALUES (?, ?, ?, ?, TIMESTAMPTZ '2025-03-27 18:00:00+01', 'Ulm')", *person)

    def run(self, name: str = "people", **options: Any) -> Run:
        run = self.service.run(name, RunOptions(**options)).run
        assert run.counters.balanced()
        return run

    def user(self, email: str) -> User:
        (user,) = self.place.users.find("email", email)
        return user

    def paths(self, since: int = 0) -> list[str]:
        """The addresses of what was sent, other than questions."""
        return [
            each.path for each in self.place.requests[since:] if each.method != "GET" and each.body != b'{"users":[]}'
        ]


PEOPLE: Mapping[str, Any] = {
    "name": "people",
    "source_query": "SELECT email, name, try_cast(age AS BIGINT) AS age, age AS age_text, ltv, seen, city FROM people",
    "object_name": "users",
    "key": "email",
    "field_mappings": {
        "email": "email",
        "firstName": "name",
        "age": "age",
        "ltv": "ltv",
        "seenAt": "seen",
        "address.city": "city",
    },
}


@contextmanager
def world(folder: Path, *syncs: Mapping[str, Any], **config: Any) -> Iterator[World]:
    rules = config.pop("rules", IterableRules({KEY: "server"}))
    with FakeIterable(rules) as place:
        place.users.fields.types |= USER_FIELDS
        place.lists.all[5] = List("Buyers")
        place.catalogs.all["shops"] = Catalog()
        settings = {"base_url": place.url, "api_key": KEY, "batch_rows": 10, **config}
        project = Project(
            store=f"sqlite:///{folder / 'retl.db'}",
            state=str(folder / "state"),
            warehouses={"default": {"url": f"duckdb:///{folder / 'warehouse.duckdb'}"}},
            destinations={"marketing": {"connector": "iterable", "config": settings}},
            syncs=[Sync(**{**PEOPLE, "destination_id": "marketing", **sync}) for sync in syncs or ({},)],
            engine={"spill": "spill"},
            base=folder,
        )
        with Service(project) as service:
            made = World(service, place, folder / "warehouse.duckdb")
            made.sql(
                "CREATE TABLE people (email VARCHAR, name VARCHAR, age VARCHAR, ltv DECIMAL(12, 2), seen TIMESTAMPTZ,"
                " city VARCHAR)"
            )
            yield made


def crowd(number: int) -> Sequence[tuple[str, str, Any, Any]]:
    return [(f"p{n}@example.com", f"P{n}", str(20 + n), f"{n}.50") for n in range(number)]


def test_a_first_sync_a_change_and_a_removal(tmp_path: Path) -> None:
    with world(tmp_path, {"sync_mode": "mirror"}) as made:
        made.put(*crowd(25))
        first = made.run()
        assert (first.status, first.counters.written) == (RunStatus.SUCCEEDED, 25)
        assert made.paths() == ["/api/users/bulkUpdate"] * 3
        assert made.user("p3@example.com").data == {
            "firstName": "P3",
            "age": 23,
            "ltv": 3.5,
            "seenAt": "2025-03-27 17:00:00 +00:00",
            "address": {"city": "Ulm"},
        }
        before = len(made.place.requests)
        assert made.run().counters.unchanged == 25
        assert made.paths(before) == []
        made.put(("p3@example.com", "Third", "30", "3.50"))
        made.sql("DELETE FROM people WHERE email = 'p4@example.com'")
        before = len(made.place.requests)
        second = made.run().counters
        assert (second.written, second.deleted, second.unchanged) == (1, 1, 23)
        assert sorted(made.paths(before)) == ["/api/users/bulkUpdate", "/api/users/p4%40example.com"]
        assert made.user("P3@example.com").data["firstName"] == "Third"
        assert made.place.users.find("email", "p4@example.com") == []


@pytest.mark.parametrize("mismatches", ["row", "request"])
def test_a_row_that_is_refused_is_a_dead_letter_until_it_is_mended(tmp_path: Path, mismatches: Any) -> None:
    mappings = {"email": "email", "age": "age_text"}
    rules = IterableRules({KEY: "server"}, mismatches=mismatches)
    with world(tmp_path, {"field_mappings": mappings}, rules=rules) as made:
        made.place.users.fields.types["age"] = "date"
        made.put(*[(email, name, "2025-01-01", ltv) for email, name, _, ltv in crowd(12)])
        made.put(("p7@example.com", "P7", "old", 1))
        counters = made.run().counters
        assert (counters.written, counters.failed, counters.dead_letters_opened) == (11, 1, 1)
        (letter,) = made.service.dead_letters()
        assert letter.record_keys == {"email": "p7@example.com"}
        expected = {
            "row": ("DESTINATION_VALIDATION", "invalidDataEmails"),
            "request": ("TYPE_COERCION", "RequestFieldsTypesMismatched"),
        }
        assert (letter.error_code, letter.vendor_code) == expected[mismatches]
        made.put(("p7@example.com", "P7", "2025-01-02", 1))
        assert made.run().counters.dead_letters_resolved == 1
        assert made.service.dead_letters() == []


def test_addresses_in_another_case_are_one_key(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put(("ada@example.com", "Ada", "36", 1), ("bob@example.com", "Bob", "41", 1))
        made.put(("ADA@example.com", "Ada", "37", 1))
        counters = made.run().counters
        assert (counters.written, counters.failed) == (1, 2)
        assert {letter.error_code for letter in made.service.dead_letters()} == {"DUPLICATE_SOURCE_KEY"}
        made.sql("DELETE FROM people WHERE email = 'ada@example.com'")
        assert made.run().counters.written == 1
        assert made.service.dead_letters() == []


def test_a_field_that_the_project_does_not_have_stops_the_run(tmp_path: Path) -> None:
    mappings = {"email": "email", "nickname": "name"}
    with world(tmp_path, {"field_mappings": mappings}) as made:
        made.put(*crowd(2))
        with pytest.raises(GuardTrippedError, match="there is no field 'nickname'") as caught:
            made.run()
        assert caught.value.guard == Guard.CONTRACT
        assert made.place.users.all == []
        run = made.run(overrides=[Guard.CONTRACT])
        assert run.counters.written == 2
        assert any("Iterable left out nickname" in warning for warning in run.warnings)
        assert made.user("p1@example.com").data == {}


def test_an_update_creates_nobody(tmp_path: Path) -> None:
    with world(tmp_path, {"sync_mode": "update"}) as made:
        made.place.users.put({"email": "p1@example.com"}, new_fields=None)
        made.put(*crowd(3))
        counters = made.run().counters
        assert (counters.written, counters.skipped) == (1, 2)
        assert [user.email for user in made.place.users.all] == ["p1@example.com"]


def test_a_plan_shows_what_is_there_now(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.put(*crowd(2))
        made.run()
        made.put(("p1@example.com", "First", "21", "1.50"), ("new@example.com", "New", "1", 1))
        plan = made.service.plan("people")
        assert not plan.warnings
        present = {row.record_keys["email"]: row.present for row in plan.samples}
        assert present["new@example.com"] == {}
        assert present["p1@example.com"] is not None
        assert (present["p1@example.com"]["firstName"], present["p1@example.com"]["address"]) == ("P1", {"city": "Ulm"})


def test_members_of_a_list_come_and_go(tmp_path: Path) -> None:
    sync = {"object_name": "lists/5", "sync_mode": "mirror", "field_mappings": {"email": "email"}}
    with world(tmp_path, sync) as made:
        made.put(*crowd(15))
        assert made.run().counters.written == 15
        assert len(made.place.lists.members(5)) == 15
        made.sql("DELETE FROM people WHERE email = 'p4@example.com'")
        assert made.run().counters.deleted == 1
        assert len(made.place.lists.members(5)) == 14
        assert made.user("p4@example.com").lists == set(), "who leaves the list stays a user"


def test_events_are_inserted_once_whatever_happens(tmp_path: Path) -> None:
    sync = {
        "object_name": "events",
        "sync_mode": "insert",
        "source_query": "SELECT email, name, seen, 'Signed up' AS event FROM people",
        "field_mappings": {"email": "email", "eventName": "event", "createdAt": "seen", "firstName": "name"},
    }
    with world(tmp_path, sync, create_new_fields=True) as made:
        made.put(*crowd(12))
        made.place.disturb(Trouble(reset="after"), where=lambda request: request.path.endswith("trackBulk"))
        assert made.run().counters.written == 12
        assert made.paths() == ["/api/events/trackBulk"] * 3
        assert len(made.place.events.all) == 12
        (event,) = [each for each in made.place.events.all.values() if each["email"] == "p3@example.com"]
        assert (event["createdAt"], event["eventName"]) == (1_743_094_800, "Signed up")
        assert event["dataFields"] == {"firstName": "P3"}
        made.put(("new@example.com", "New", "1", 1))
        assert made.run().counters.written == 1
        assert len(made.place.events.all) == 13


def test_items_of_a_catalog(tmp_path: Path) -> None:
    sync = {
        "object_name": "catalogs/shops",
        "sync_mode": "mirror",
        "key": "id",
        "source_query": "SELECT replace(split_part(email, '@', 1), '.', '-') AS sku, name, city FROM people",
        "field_mappings": {"id": "sku", "name": "name", "place.city": "city"},
    }
    with world(tmp_path, sync) as made:
        made.put(*crowd(12))
        counters = made.run().counters
        assert (counters.written, counters.unconfirmed) == (12, 12)
        items = made.place.catalogs.all["shops"].items
        assert items["p3"] == {"name": "P3", "place": {"city": "Ulm"}}
        made.sql("DELETE FROM people WHERE email = 'p4@example.com'")
        assert made.run().counters.deleted == 1
        assert set(items) == {f"p{n}" for n in range(12)} - {"p4"}
