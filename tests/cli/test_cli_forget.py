"""`retl forget`: one row, erased from what all syncs keep."""

from __future__ import annotations

import re

from cli_shop import Shop

from dagster_retl.cli import main


def test_a_person_is_forgotten_in_all_syncs_that_know_such_keys(shop: Shop) -> None:
    shop.document("run", "people_service", code=3)
    shop.document("run", "people_table")
    shop.document("run", "seats")
    (shop.folder / "ops.sqlite").unlink()
    assert shop.document("explain", "people_table", "2", "--offline")["snapshot"] is not None

    done = shop.document("forget", "2", "--yes")
    assert {each["sync_name"]: each["dead_letters"] for each in done} == {"people_table": 0, "people_service": 1}
    for sync in ("people_table", "people_service"):
        told = shop.document("explain", sync, "2", "--offline")
        assert (told["snapshot"], told["attempts"], told["dead_letters"]) == (None, [], [])
        assert shop.document("explain", sync, "1", "--offline")["snapshot"] is not None
    assert shop.document("explain", "seats", "region=EU,number=2", "--offline")["snapshot"] is not None

    (seats,) = shop.document("forget", "region=EU,number=2", "--yes")
    assert seats["sync_name"] == "seats"
    assert shop.document("explain", "seats", "region=EU,number=2", "--offline")["snapshot"] is None
    assert shop.document("explain", "seats", "region=EU,number=1", "--offline")["snapshot"] is not None


def test_it_asks_first(shop: Shop) -> None:
    shop.document("run", "people_table")
    asked = shop.runner.invoke(main, ["--project", str(shop.folder), "forget", "1"], input="n\n")
    assert asked.exit_code == 130
    assert "people_table  id=1" in asked.stderr
    assert "sent again by the next run" in asked.stderr
    assert shop.document("explain", "people_table", "1", "--offline")["snapshot"] is not None
    answered = shop.runner.invoke(main, ["--project", str(shop.folder), "forget", "1"], input="y\n")
    assert answered.exit_code == 0, answered.stderr
    assert re.search(r"people_table\s+0\s+0\s+0\s+\d", answered.stdout)
    assert "their keys have other fields: seats" in answered.stdout
    assert shop.document("explain", "people_table", "1", "--offline")["snapshot"] is None


def test_mistakes(shop: Shop) -> None:
    for arguments, message in (
        (["forget", "2", "--json"], "say --yes"),
        (["forget", "2", "--sync", "seats", "--yes"], "'2' needs a value for each key field"),
        (["forget", "country=EU", "--yes"], "no key of any sync"),
    ):
        result = shop.call(*arguments)
        assert result.exit_code == 2
        assert message in result.stdout + result.stderr
    assert shop.call("forget", "2", "--sync", "nothing", "--yes").exit_code == 1
    assert [each["sync_name"] for each in shop.document("forget", "2", "--sync", "people_table", "--yes")] == [
        "people_table"
    ]
