"""`retl clean`: what is kept no longer."""

from __future__ import annotations

from cli_shop import Shop


def test_it_says_what_went(shop: Shop) -> None:
    with (shop.folder / "retl.yaml").open("a", encoding="utf-8") as file:
        file.write("retention: {row_history: 0, resolved_dead_letters: 0s}\n")
    shop.document("run", "people_service", code=3)
    shop.warehouse("UPDATE people SET email = 'zoe@example.com' WHERE id = 2")
    shop.document("run", "people_service")
    done = {each["sync_name"]: each for each in shop.document("clean")}
    assert set(done) == {"people_table", "people_service", "seats"}
    assert {name: done["people_service"][name] for name in ("runs", "history", "dead_letters", "files")} == {
        "runs": 0, "history": 0, "dead_letters": 0, "files": 0
    }  # fmt: skip
    assert shop.document("dlq", "list", "--resolved") == []
    result = shop.call("clean", "people_table")
    assert (result.exit_code, result.stdout.split()[-5:]) == (0, ["people_table", "0", "0", "0", "0"])
