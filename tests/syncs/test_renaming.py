"""Syncs that get another slug: what they delivered stays theirs, and mistakes are told before anything is sent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds import World
from worlds import world as world_in

from dagster_retl.errors import ConfigurationError, ErrorCode, RetlError
from dagster_retl.model.ids import sync_id_of
from dagster_retl.model.runs import RunOptions
from dagster_retl.service import Service
from dagster_retl.testing import Rules


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    rules = Rules(refuse=lambda record: "no" if record.get("name") == "bad" else None)
    with world_in(tmp_path, rules) as plain:
        plain.put((1, "Ada", 1.5), (2, "Zoë", None), (3, "bad", 3))
        yield plain


def renamed(made: World, slug: str, old: str | None = None, **changes: object) -> World:
    return made.with_sync(name=slug, slug=slug, renamed_from=old, **changes)


def test_a_renamed_sync_keeps_all_that_it_had(made: World) -> None:
    first = made.run()
    made.service.set_enabled("things", False, actor="ann")
    with (after := renamed(made, "people", "things")).service:
        sync = after.service.find("people")
        assert sync.id == made.project.syncs[0].id
        view = after.service.sync("people")
        assert (view.enabled, view.open_dead_letters, view.last_run) == (False, 1, first.run)
        made.put((3, "good", 3))
        report = after.service.run("people")
        assert (report.run.counters.written, report.run.counters.unchanged) == (1, 2)
        assert after.letters() == {}
        assert [run.sync_name for run in after.service.runs("people")] == ["people", "things"]
        told = after.service.explain("people", {"id": 3})
        assert [attempt.run_id for attempt in told.attempts] == [first.run.id, report.run.id]
        assert after.service.catalog.retired() == []


def test_after_several_renames_the_first_slug_counts(made: World) -> None:
    made.run()
    for slug in ("people", "persons"):
        with (after := renamed(made, slug, "things")).service:
            assert after.service.run(slug).run.counters.written == 0


@pytest.mark.parametrize(("slug", "old"), [("persons", "people"), ("people", None)], ids=["the last slug", "forgotten"])
def test_what_would_start_from_nothing_is_stopped(made: World, slug: str, old: str | None) -> None:
    made.run()
    with (once := renamed(made, "people", "things")).service:
        once.service.run("people")
    sent = made.writes()
    kept = sync_id_of("default", "things")
    with (wrong := renamed(made, slug, old)).service:
        for use in (wrong.service.run, wrong.service.plan):
            with pytest.raises(ConfigurationError, match=f"as 'people'.* is kept under {kept}") as caught:
                use(slug)
            assert f"`adopt: {kept}`" in str(caught.value.hint)
        assert wrong.service.runs(slug)[0].error_code == ErrorCode.CONFIGURATION
    assert made.writes() == sent
    with (mended := made.with_sync(name=slug, slug=slug, adopt=kept)).service:
        assert mended.service.run(slug).run.counters.written == 0
    with (purged := renamed(made, slug, old)).service:
        purged.service.purge(kept, actor="ann")
        assert purged.service.run(slug).run.counters.written == 2


def test_a_new_sync_that_nobody_was_renamed_to_starts_from_nothing(made: World) -> None:
    made.run()
    with (fresh := renamed(made, "new", "never_was")).service:
        assert fresh.service.run("new").run.counters.written == 2


def test_a_renamed_sync_that_left_the_file_is_retired_under_its_last_name(made: World) -> None:
    made.run()
    with (once := renamed(made, "people", "things")).service:
        once.service.run("people")
    with Service.open(made.project.model_copy(update={"syncs": ()})) as emptied:
        [gone] = emptied.retired()
        assert (gone.retired.name, gone.retired.sync_id, gone.open_dead_letters) == (
            "people",
            made.project.syncs[0].id,
            1,
        )
        assert emptied.purge(gone.retired.sync_id, actor="ann") > 0
        assert emptied.retired() == []
        assert emptied.dead_letters() == []


def test_a_plan_says_nothing_of_who_was_here(made: World) -> None:
    made.service.plan("things")
    made.run(dry_run=True)
    assert made.service.store.file_syncs.owners() == {}
    made.run()
    assert made.service.store.file_syncs.owners() == {made.project.syncs[0].id: "default"}


HOLDER = """
import sys, time
from dagster_retl.store.store import Store
with Store.open(sys.argv[1]) as store:
    run = store.runs.create(sys.argv[2], "things")
    lease = store.leases.acquire(sys.argv[2], run.id)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_process_with_the_old_file_keeps_one_with_the_new_from_running(made: World) -> None:
    made.run()
    command = [sys.executable, "-c", HOLDER, made.project.store_url, made.project.syncs[0].id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as old:
        try:
            assert old.stdout is not None
            assert old.stdout.readline() == "held\n"
            with (new := renamed(made, "people", "things")).service, pytest.raises(RetlError) as caught:
                new.service.run("people", RunOptions())
            assert caught.value.code is ErrorCode.LEASE_HELD
        finally:
            old.kill()
            old.wait()
    with (new := renamed(made, "people", "things")).service:
        assert new.service.run("people").run.counters.unchanged == 2
