"""`retl explain`: the timeline of one row, for people and for programs."""

from __future__ import annotations

import re

from cli_shop import Shop


def test_the_timeline_of_a_refused_row(shop: Shop) -> None:
    refused = shop.document("run", "people_service", code=3)
    shop.warehouse("UPDATE people SET email = 'zoe@example.com' WHERE id = 2")
    accepted = shop.document("run", "people_service")
    shop.warehouse("UPDATE people SET email = 'zoe@example.org' WHERE id = 2")

    told = shop.document("explain", "people_service", "2")
    assert (told["key"], told["sync_name"], told["missing"]) == ('["2"]', "people_service", [])
    attempts = [(each["outcome"], each["error_code"], each["run_id"]) for each in told["attempts"]]
    assert attempts == [
        ("failed", "DESTINATION_VALIDATION", refused["id"]),
        ("written", None, accepted["id"]),
    ]
    assert told["attempts"][0]["dagster_run_id"] == refused["dagster_run_id"]
    assert told["snapshot"]["run_id"] == accepted["id"]
    (letter,) = told["dead_letters"]
    assert (letter["resolution"], letter["parked"], letter["silences"]) == ("delivered", False, False)
    assert (told["now"]["outcome"], told["now"]["values"]["email"]) == ("update", "zoe@example.org")
    offline = shop.document("explain", "people_service", "id=2", "--offline")
    assert offline == told | {"now": None}

    result = shop.call("explain", "people_service", "2")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "people_service  id=2"
    assert re.search(r"next run\s+~ update", result.stdout)
    assert re.search(r"snapshot\s+delivered .* in " + accepted["id"].removeprefix("retl_run_"), result.stdout)
    timeline = [re.sub(r"^\S+ \S+ UTC\s+", "", line) for line in lines if " UTC " in line]
    assert [line.partition("  ")[0] for line in timeline] == ["✗ refused", "dead letter", "✓ accepted", "dead letter"]
    assert "email 'nowhere' is no address" in timeline[1]
    assert "resolved: delivered" in timeline[3]


def test_a_key_of_several_fields(shop: Shop) -> None:
    shop.document("run", "seats")
    told = shop.document("explain", "seats", "region=EU,number=2")
    assert (told["key"], told["now"]["outcome"], told["snapshot"]["deleted"]) == ('["EU","2"]', "unchanged", False)


def test_a_row_that_nobody_knows(shop: Shop) -> None:
    told = shop.document("explain", "people_table", "77")
    assert (told["snapshot"], told["attempts"], told["dead_letters"]) == (None, [], [])
    assert told["now"]["outcome"] == "absent"
    assert "nothing is known of this row" in shop.call("explain", "people_table", "77").stdout


def test_what_is_no_key_of_the_sync(shop: Shop) -> None:
    result = shop.call("explain", "seats", "EU")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for KEY: 'EU' needs a value for each key field: region=…,number=…" in result.stderr
    assert shop.call("explain", "no_such_sync", "1").exit_code == 1


def test_a_destination_that_is_out_of_order(shop: Shop) -> None:
    shop.document("run", "people_service", code=3)
    shop.service.close()
    told = shop.document("explain", "people_service", "1")
    assert told["snapshot"] is not None
    assert told["now"]["error"]["code"] == "DESTINATION_UNAVAILABLE"
    assert re.search(r"next run\s+cannot be told: ", shop.call("explain", "people_service", "1").stdout)
