"""`--partition`: runs, plans, baselines, explanations and replays of a sync that is read in partitions."""

from __future__ import annotations

import pytest
from cli_shop import Shop

PARTED = """
  - name: parted
    source_query: SELECT id, name, email FROM people WHERE (id > 1) = (:partition = 'late')
    destination_id: service
    object_name: parted
    key: id
    field_mappings: {id: id, name: name, email: email}
    partitions: [early, late]
"""


@pytest.fixture
def parted(shop: Shop) -> Shop:
    with (shop.folder / "retl.yaml").open("a", encoding="utf-8") as file:
        file.write(PARTED)
    return shop


def test_runs_plans_and_baselines_are_of_a_partition(parted: Shop) -> None:
    run = parted.document("run", "parted", "--partition", "early")
    assert (run["partition"], run["rows_written"]) == ("early", 1)
    assert parted.document("plan", "parted", "--partition", "late")["rows_sent"] == 2
    taken = parted.document("baseline", "parted", "--partition", "late")
    assert (taken["partition"], taken["baseline"], taken["rows_unchanged"]) == ("late", True, 2)
    assert parted.document("plan", "parted", "--partition", "late")["rows_sent"] == 0
    shown = parted.call("runs", "show", run["id"]).stdout
    assert "partition" in shown
    assert "early" in shown


def test_replays_are_a_run_for_each_partition(parted: Shop) -> None:
    parted.warehouse("UPDATE people SET email = 'nowhere' WHERE id < 3")
    for key in ("early", "late"):
        parted.document("run", "parted", "--partition", key, code=3)
    parted.warehouse("UPDATE people SET email = 'a@b.example'")
    replayed = parted.document("dlq", "replay", "--sync", "parted")
    assert {run["partition"]: run["rows_written"] for run in replayed} == {"early": 1, "late": 1}
    assert parted.document("dlq", "list", "parted") == []


def test_an_explanation_reads_the_partition_that_the_row_was_seen_in(parted: Shop) -> None:
    parted.document("run", "parted", "--partition", "early")
    told = parted.document("explain", "parted", "1")
    assert (told["snapshot"]["partition"], told["now"]["outcome"]) == ("early", "unchanged")
    assert "early" in parted.call("explain", "parted", "1").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "parted"], "nothing says which one"),
        (["plan", "parted"], "nothing says which one"),
        (["run", "parted", "--partition", "lat"], "there is no partition 'lat'"),
        (["run", "people_table", "--partition", "late"], "has no partitions"),
    ],
)
def test_what_cannot_be_run(parted: Shop, arguments: list[str], said: str) -> None:
    result = parted.call(*arguments)
    assert result.exit_code != 0
    assert said in " ".join((result.stdout + result.stderr).split())


def test_people_see_which_partition_it_was(parted: Shop) -> None:
    assert parted.call("run", "parted", "--partition", "late", "--full-refresh").stdout.startswith("✓ parted late  ")
    listed = parted.call("runs", "list").stdout
    assert "parted late" in listed
    shown = " ".join(parted.call("syncs", "show", "parted").stdout.split())
    assert "partitions early, late" in shown
