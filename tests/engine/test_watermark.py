"""Runs that read from a watermark on (PROTOCOL 12): what they read, and how far the watermark goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from capricious import Capricious, Fate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nursery import Nursery
from worlds import World, project_of

from dagster_retl.engine.run import Report
from dagster_retl.engine.watermark import Mark
from dagster_retl.errors import ConfigurationError, DestinationError, ErrorCode, SourceError
from dagster_retl.model.runs import DeadLetter, RunOptions
from dagster_retl.service import Service
from dagster_retl.sources.window import MAX_LOOKUPS
from dagster_retl.testing.fake_http import Rules

BY_CHANGED: dict[str, Any] = {
    "source_query": "SELECT id, name, score, changed FROM t",
    "change_detection": {"watermark": "changed"},
}


def refuse_bad(record: Mapping[str, Any]) -> str | None:
    return "bad" if str(record["name"]).startswith("bad") else None


@contextlib.contextmanager
def moving_world(
    folder: Path,
    *,
    kind: str = "BIGINT",
    rules: Rules | None = None,
    config: Mapping[str, Any] | None = None,
    **sync: Any,
) -> Iterator[World]:
    """A world whose table has a column `changed`, which is the sync's watermark. Nothing settles by itself."""
    with Capricious(rules or Rules(refuse=refuse_bad)) as http:
        project = project_of(
            folder, http.url, config={"concurrency": 1, "batch_rows": 1, **(config or {})}, **{**BY_CHANGED, **sync}
        )
        with Service(project) as service:
            made = World(project, service, http, folder / "warehouse.duckdb")
            made.sql(f"CREATE TABLE t (id BIGINT, name VARCHAR, score DECIMAL(12, 2), changed {kind})")
            yield made


def put(made: World, *rows: tuple[Any, str, Any]) -> None:
    """Rows as (id, name, changed), instead of those with the same id."""
    for key, name, changed in rows:
        made.sql("DELETE FROM t WHERE id = ?", [key])
        made.sql("INSERT INTO t VALUES (?, ?, 1, ?)", [key, name, changed])


def read(report: Report) -> int:
    return report.run.counters.read


def mark(made: World) -> Any:
    """The watermark's value."""
    pointer = made.service.store.snapshots.pointer(made.project.syncs[0].id)
    found = Mark.of(pointer.watermark) if pointer else None
    return found.value if found else None


def script(made: World, *fates: Fate) -> None:
    assert isinstance(made.http, Capricious)
    made.http.expect(fates)


def letters(made: World) -> dict[Any, DeadLetter]:
    return {letter.record_keys.get("id", letter.error_code): letter for letter in made.service.dead_letters(limit=200)}


class TestWhatIsRead:
    def test_rows_below_the_watermark_are_not_read(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            assert (read(made.run()), mark(made)) == (2, "20")
            put(made, (3, "c", 30))
            report = made.run()
            assert (read(report), report.run.counters.written, mark(made)) == (2, 1, "30")
            assert "rows whose changed is at least 20, or null" in report.plan.reason

    def test_ties_are_read_again_and_not_sent(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10))
            made.run()
            put(made, (2, "b", 10))
            counters = made.run().run.counters
            assert (counters.unchanged, counters.written) == (1, 1)

    def test_a_row_without_cursor_is_read_by_every_run(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", None), (2, "b", 10))
            made.run()
            put(made, (1, "A", None), (3, "c", 20))
            made.run()
            assert made.names() == {"1": "A", "2": "b", "3": "c"}

    def test_a_row_that_was_committed_late_is_read_within_lookback(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, change_detection={"watermark": "changed", "lookback": 5}) as made:
            put(made, (1, "a", 100))
            made.run()
            put(made, (2, "in time", 95), (3, "too late", 94))
            made.run()
            assert made.names() == {"1": "a", "2": "in time"}
            assert mark(made) == "100"

    def test_the_column_is_found_whatever_its_case(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, change_detection={"watermark": "CHANGED"}) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            assert read(made.run()) == 1

    def test_the_query_may_be_anything(self, tmp_path: Path) -> None:
        query = (
            'WITH x AS (SELECT * FROM t) SELECT id, name, score, changed + 1 AS "when it\'s" FROM x ORDER BY 1 LIMIT 9'
        )
        with moving_world(tmp_path, source_query=query, change_detection={"watermark": "when it's"}) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            assert (mark(made), read(made.run())) == ("21", 1)

    def test_a_plan_reads_the_same_and_moves_nothing(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            put(made, (3, "c", 30))
            assert made.service.plan("things").totals.read == 2
            made.run(dry_run=True)
            assert mark(made) == "20"


TIMES = st.datetimes(datetime.fromisoformat("1900-01-01"), datetime.fromisoformat("2200-01-01"))
KINDS: dict[str, tuple[str, Any, Any]] = {
    "TIMESTAMP": (
        TIMES,
        timedelta(microseconds=1),
        timedelta(hours=1),
    ),
    "TIMESTAMPTZ": (
        TIMES,
        timedelta(microseconds=1),
        timedelta(hours=1),
    ),
    "DATE": (st.dates(), timedelta(days=1), timedelta(days=2)),
    "BIGINT": (st.integers(-(2**62), 2**62), 1, 100),
    "DECIMAL(38,10)": (st.decimals(-(10**20), 10**20, places=10), Decimal("1E-10"), Decimal("0.5")),
}  # type: ignore[assignment]  # strategies, steps and lookbacks of several types


def less(value: Any, step: Any) -> Any:
    """The difference, exact: decimals are rounded to 28 digits otherwise."""
    with localcontext(prec=60):
        return value - step


@pytest.mark.parametrize("kind", KINDS)
def test_cursors_are_compared_exactly(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The row a step below the bound is not read, the row on it is."""
    values, step, lookback = KINDS[kind]

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values, st.booleans())
    def check(value: Any, back: bool) -> None:
        detection = {"watermark": "changed", **({"lookback": lookback} if back else {})}
        bound = less(value, lookback) if back else value
        with moving_world(tmp_path_factory.mktemp("w"), kind=kind, change_detection=detection) as made:
            made.sql("SET TimeZone = 'UTC'; INSERT INTO t VALUES (1, 'a', 1, ?)", [str(value)])
            made.run()
            for key, changed in ((2, bound), (3, less(bound, step))):
                made.sql(f"SET TimeZone = 'UTC'; INSERT INTO t VALUES ({key}, 'x', 1, ?)", [str(changed)])
            made.run()
            assert sorted(made.records) == ["1", "2"], value

    check()


class TestWhatIsReadByKey:
    def test_an_open_letter_below_the_watermark_is_tried_again(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "bad", 10), (2, "b", 20))
            made.run()
            assert mark(made) == "20"
            made.http.rules = Rules()
            report = made.run()
            assert (read(report), report.run.counters.written) == (2, 1)
            assert "and 1 by key" in report.plan.reason
            assert letters(made) == {}

    def test_a_suspect_below_the_watermark_is_sent_again(self, tmp_path: Path) -> None:
        """B is lost sight of; it is A again, as the snapshot says, when B arrives."""
        with moving_world(tmp_path) as made:
            put(made, (1, "A", 10))
            made.run()
            put(made, (1, "B", 20), (2, "b", 30))
            script(made, "late", "ok", "ok")
            made.run()
            assert mark(made) == "30"
            assert isinstance(made.http, Capricious)
            made.http.land()
            script(made)
            counters = made.run().run.counters
            assert (counters.read, counters.unchanged) == (2, 2)
            put(made, (1, "C", 40))
            made.run()
            made.http.handle(made.http.requests[1])
            assert made.names()["1"] == "B"
            put(made, (2, "b", 50))
            made.run()
            assert made.names()["1"] == "C"

    def test_what_a_person_wants_tried_again_is_read_once(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "bad", 10), (2, "b", 20))
            made.run()
            made.service.resolve([letters(made)[1].id], "fixed", actor="me")
            made.http.rules = Rules()
            assert [read(made.run()) for _ in range(2)] == [2, 1]
            assert made.names() == {"1": "bad", "2": "b"}

    @pytest.mark.parametrize("resolution", ["skipped", "manual_push"])
    def test_a_version_that_a_person_settled_is_not(self, tmp_path: Path, resolution: str) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "bad", 10), (2, "b", 20))
            made.run()
            made.service.resolve([letters(made)[1].id], resolution, actor="me")
            assert read(made.run()) == 1
            put(made, (1, "good", 30))
            made.run()
            assert made.names() == {"1": "good", "2": "b"}

    @pytest.mark.parametrize("resolution", ["skipped", "manual_push"])
    def test_what_has_no_version_cannot_be_settled(self, tmp_path: Path, resolution: str) -> None:
        """Two rows of one key: the next run must look at them again."""
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.sql("INSERT INTO t VALUES (1, 'twin', 1, 10)")
            made.run()
            made.service.resolve([letters(made)[1].id], resolution, actor="me")
            assert read(made.run()) == 3
            assert set(letters(made)) == {1}

    def test_a_run_that_ended_early_forgets_no_decision(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "bad", 10), (2, "b", 20))
            made.run()
            made.service.resolve([letters(made)[1].id], "fixed", actor="me")
            made.http.rules = Rules()
            script(made, "locked_out")
            with pytest.raises(DestinationError):
                made.run()
            made.run(limit=5, keys=({"id": 2},))
            made.run()
            assert made.names() == {"1": "bad", "2": "b"}

    def test_a_killed_run_forgets_no_decision(self, tmp_path: Path, nursery: Nursery) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "bad", 10), (2, "b", 20))
            made.run()
            made.service.resolve([letters(made)[1].id], "fixed", actor="me")
            made.http.rules = Rules()
            kill(made, nursery, "kill")
            assert made.names() == {"2": "b"}
            made.run()
            assert made.names() == {"1": "bad", "2": "b"}

    def test_an_update_that_finds_nothing_is_tried_by_every_run(self, tmp_path: Path) -> None:
        with moving_world(
            tmp_path, rules=Rules(operations={"PATCH": "update"}), sync_mode="update", config=PATCH
        ) as made:
            made.http.records["things"] = {"2": {"id": 2}}
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            assert mark(made) == "20"
            assert [read(made.run()) for _ in range(2)] == [2, 2]
            made.http.records["things"]["1"] = {"id": 1}
            assert made.run().run.counters.written == 1
            assert read(made.run()) == 1

    def test_a_letter_that_an_early_end_closed_is_no_row_that_is_lost(self, tmp_path: Path) -> None:
        """The update finds nothing, which closes the letter; the run ends before it can keep the watermark down."""
        rules = Rules(refuse=refuse_bad, operations={"PATCH": "update"})
        with moving_world(tmp_path, rules=rules, sync_mode="update", config=PATCH) as made:
            made.http.records["things"] = {"1": {"id": 1}, "2": {"id": 2}}
            put(made, (1, "bad", 10), (2, "b", 20))
            made.run()
            made.http.records["things"].pop("1")
            put(made, (2, "B", 30))
            script(made, "ok", "locked_out")
            with pytest.raises(DestinationError):
                made.run()
            assert letters(made) == {}
            made.http.rules = Rules(operations={"PATCH": "update"})
            made.http.records["things"]["1"] = {"id": 1}
            made.run()
            assert made.names() == {"1": "bad", "2": "B"}

    def test_a_key_that_is_an_expression_takes_the_whole_result(self, tmp_path: Path) -> None:
        mappings = [{"source": "id + 0", "destination": "id", "key": True}, {"source": "name", "destination": "name"}]
        with moving_world(tmp_path, field_mappings=mappings) as made:
            put(made, (1, "bad", 10), (2, "b", 20), (3, "c", 30))
            made.run()
            report = made.run()
            assert read(report) == 3
            assert "1 keys cannot be asked for" in report.plan.reason
            made.http.rules = Rules()
            made.run()
            assert read(made.run()) == 1

    def test_so_many_keys_take_the_whole_result(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, config={"batch_rows": 1000}) as made:
            made.sql("INSERT INTO t SELECT n // 2, 'twin', 1, n FROM range(?) r(n)", [2 * (MAX_LOOKUPS + 1)])
            made.sql("INSERT INTO t VALUES (-1, 'a', 1, 0), (-2, 'b', 1, 1000000)")
            made.run()
            assert read(made.run()) == 2 * (MAX_LOOKUPS + 1) + 2

    def test_many_keys_do_not(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, config={"batch_rows": 1000}) as made:
            made.sql("INSERT INTO t SELECT n // 2, 'twin', 1, n FROM range(4000) r(n)")
            made.sql("INSERT INTO t VALUES (-1, 'a', 1, 0), (-2, 'b', 1, 1000000)")
            made.run()
            report = made.run()
            assert (read(report), report.run.counters.failed) == (4001, 4000)


PATCH: dict[str, Any] = {"method": "PATCH", "body": "object", "results": None, "batch_rows": None}


def kill(made: World, nursery: Nursery, *fates: Fate, **how: Any) -> None:
    """A run in a process of its own, which dies on the wire."""
    assert isinstance(made.http, Capricious)
    script(made, *fates)
    sync = made.project.syncs[0].model_dump(exclude_unset=True, mode="json")
    made.http.meet(
        nursery.begin(made.project.base, made.http.url, config={"concurrency": 1, "batch_rows": 1}, sync=sync, **how)
    )
    assert nursery.end().killed
    script(made)


class TestHowFarItGoes:
    def test_a_limited_run_moves_nothing(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run(limit=1)
            assert mark(made) is None
            made.run()
            put(made, (3, "c", 30), (4, "d", 40))
            made.run(limit=1)
            assert mark(made) == "20"
            made.run(keys=({"id": 4},))
            assert mark(made) == "20"
            made.run()
            assert (len(made.records), mark(made)) == (4, "40")

    def test_a_run_that_ended_early_moves_nothing(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10))
            made.run()
            put(made, (2, "b", 20), (3, "c", 30))
            script(made, "ok", "locked_out")
            with pytest.raises(DestinationError):
                made.run()
            assert mark(made) == "10"
            made.run()
            assert (sorted(made.records), mark(made)) == (["1", "2", "3"], "30")

    @pytest.mark.parametrize("fate", ["kill", "kill_applied"])
    def test_a_killed_run_moves_nothing(self, tmp_path: Path, nursery: Nursery, fate: Fate) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10))
            made.run()
            put(made, (2, "b", 20), (3, "c", 30))
            kill(made, nursery, "ok", fate)
            put(made, (4, "d", 25))
            made.run()
            assert (sorted(made.records), mark(made)) == (["1", "2", "3", "4"], "30")

    def test_rows_without_a_key_hold_it(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (None, "lost", 20), (2, "b", 30))
            made.run()
            assert mark(made) == "20"
            made.sql("UPDATE t SET id = 3 WHERE id IS NULL")
            made.run()
            assert (sorted(made.records), mark(made), letters(made)) == (["1", "2", "3"], "30", {})

    def test_rows_whose_key_cannot_be_computed_hold_it(self, tmp_path: Path) -> None:
        key = {"source": "CAST(name AS INTEGER)", "destination": "id", "key": True}
        with moving_world(tmp_path, field_mappings=[key, {"source": "name", "destination": "name"}]) as made:
            put(made, (1, "1", 10), (2, "two", 20), (3, "3", 30))
            made.run()
            assert mark(made) == "20"
            assert letters(made)["MAPPING_ERROR"].rows == 1

    def test_one_without_cursor_holds_nothing(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (None, "lost", None), (2, "b", 30))
            made.run()
            assert mark(made) == "30"
            assert letters(made)["MISSING_KEY"].rows == 1

    def test_it_goes_back_to_a_row_that_was_late_and_has_no_key(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, change_detection={"watermark": "changed", "lookback": 20}) as made:
            put(made, (1, "a", 100))
            made.run()
            put(made, (None, "lost", 90))
            made.run()
            assert mark(made) == "90"

    def test_it_does_not_go_back_because_its_row_left(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, change_detection={"watermark": "changed", "lookback": 5}) as made:
            put(made, (1, "a", 100))
            made.run()
            made.sql("DELETE FROM t")
            put(made, (2, "late", 96))
            made.run()
            assert (mark(made), sorted(made.records)) == ("100", ["1", "2"])

    def test_beyond_all_calendars_is_no_place_to_go_on_from(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, kind="TIMESTAMP") as made:
            put(made, (1, "a", "20000-01-01"), (2, "b", "9999-12-31 23:59:59.999999"), (3, "c", "1000-01-01 (BC)"))
            made.run()
            assert mark(made) == "9999-12-31T23:59:59.999999"
            assert read(made.run()) == 2

    def test_infinity_is_no_place_to_go_on_from(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, kind="TIMESTAMP") as made:
            put(made, (1, "a", "infinity"), (2, "b", "2024-01-01"), (3, "c", "-infinity"))
            made.run()
            assert mark(made) == "2024-01-01T00:00:00"
            put(made, (1, "A", "infinity"), (4, "d", "2024-01-02"))
            made.run()
            assert made.names() == {"1": "A", "2": "b", "3": "c", "4": "d"}

    def test_a_row_before_all_times_that_must_not_be_passed(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, kind="TIMESTAMP") as made:
            put(made, (None, "lost", "-infinity"), (2, "b", "2024-01-01"))
            made.run()
            assert mark(made) is None
            assert letters(made)["MISSING_KEY"].rows == 1
            made.run()
            assert letters(made)["MISSING_KEY"].rows == 1

    def test_a_full_refresh_reads_everything(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            assert made.run(full_refresh=True).run.counters.written == 2
            assert (read(made.run()), mark(made)) == (1, "20")

    def test_one_that_ends_early_is_finished_by_the_next_run(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            script(made, "locked_out")
            with pytest.raises(DestinationError):
                made.run(full_refresh=True)
            assert mark(made) is None
            assert made.run().run.counters.written == 2


class TestWhatStartsItAnew:
    def after(self, made: World, **changes: Any) -> tuple[Report, World]:
        """A run after the sync was edited."""
        edited = made.with_sync(**changes)
        with edited.service:
            return edited.run(), edited

    def test_another_column(self, tmp_path: Path) -> None:
        query = "SELECT id, name, score, changed, changed * 2 AS twice FROM t"
        with moving_world(tmp_path, source_query=query) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            report, edited = self.after(made, change_detection={"watermark": "twice"})
            assert (read(report), report.run.counters.unchanged, mark(edited)) == (2, 2, "40")
            assert report.run.warnings == (
                "everything is read once: the watermark's column was 'changed' and is 'twice' now",
            )

    def test_another_type(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            made.sql(
                "ALTER TABLE t ALTER changed TYPE TIMESTAMP USING TIMESTAMP '2024-01-01' + to_days(changed::INTEGER)"
            )
            report = made.run()
            assert read(report) == 2
            assert "were a number, and are timestamp[us] now" in report.run.warnings[0]
            assert (mark(made), read(made.run())) == ("2024-01-21T00:00:00", 1)

    @pytest.mark.parametrize(
        "changes",
        [
            {"source_query": "SELECT id, upper(name) AS name, score, changed FROM t"},
            {
                "field_mappings": [
                    {"source": "id", "destination": "id", "key": True},
                    {"source": "upper(name)", "destination": "name"},
                ]
            },
        ],
        ids=["query", "mapping"],
    )
    def test_what_changes_rows_whose_cursor_does_not(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            report, edited = self.after(made, **changes)
            assert report.run.warnings == (
                "everything is read once: the query, its warehouse, the mapping or the mode changed",
            )
            assert made.names() == {"1": "A", "2": "B"}
            with edited.service:
                assert read(edited.run()) == 1

    def test_another_mode(self, tmp_path: Path) -> None:
        """What an insert leaves alone, an upsert sends."""
        with moving_world(tmp_path, sync_mode="insert") as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            put(made, (1, "A", 15), (3, "c", 30))
            with made.with_sync(change_detection={"watermark": "changed", "lookback": 10}).service as patient:
                patient.run("things")
            assert made.names()["1"] == "a"
            self.after(made, sync_mode="upsert")
            assert made.names()["1"] == "A"

    def test_another_key(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            mappings = [
                {"source": "id", "destination": "id", "key": True},
                {"source": "name", "destination": "name", "key": True},
            ]
            report, _ = self.after(made, field_mappings=mappings)
            assert (report.run.counters.written, report.run.warnings) == (2, ())

    def test_a_column_that_was_renamed(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, source_query="table:t") as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            made.sql("ALTER TABLE t RENAME changed TO moved")
            with pytest.raises(SourceError, match="no column 'changed', which is to be the watermark") as caught:
                made.run()
            assert caught.value.code is ErrorCode.SOURCE_COLUMN_MISSING

    def test_comparing_the_whole_result_in_between(self, tmp_path: Path) -> None:
        """The rows that such a run was about are no longer those that the watermark was about."""
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            _, edited = self.after(made, change_detection="snapshot")
            assert mark(edited) is None
            assert read(made.run()) == 2


class TestWhatCannotBeAWatermark:
    @pytest.mark.parametrize("kind", ["DOUBLE", "BOOLEAN", "TIME", "BLOB", "BIGINT[]"])
    def test_types(self, tmp_path: Path, kind: str) -> None:
        with (
            moving_world(tmp_path, kind=kind) as made,
            pytest.raises(ConfigurationError, match="cannot be a watermark"),
        ):
            made.run()

    def test_numbers_that_are_text(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, kind="VARCHAR") as made:
            put(made, (1, "a", "9"), (2, "b", "10"))
            with pytest.raises(ConfigurationError, match="as text, 9 is more than 10"):
                made.run()
            assert made.records == {}

    def test_text_that_sorts(self, tmp_path: Path) -> None:
        with moving_world(tmp_path, kind="VARCHAR") as made:
            put(made, (1, "a", "2024-01-01 10:00"), (2, "b", "2024-01-01 9:00x"))
            made.run()
            assert (mark(made), read(made.run())) == ("2024-01-01 9:00x", 1)

    @pytest.mark.parametrize(("kind", "lookback"), [("BIGINT", "1h"), ("TIMESTAMP", 5), ("DATE", 1), ("VARCHAR", "1h")])
    def test_a_lookback_of_another_kind(self, tmp_path: Path, kind: str, lookback: Any) -> None:
        with moving_world(tmp_path, kind=kind, change_detection={"watermark": "changed", "lookback": lookback}) as made:
            put(made, (1, "a", "2024-01-01" if kind != "BIGINT" else 1))
            with pytest.raises(ConfigurationError, match="`lookback` cannot be"):
                made.run()
            assert made.records == {}


class TestWhatAWindowDoesNotSay:
    def test_a_letter_closes_when_its_key_was_asked_for_in_vain(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "bad", 10), (2, "bad", 11), (3, "c", 20))
            made.run()
            first, second = letters(made)[1], letters(made)[2]
            made.sql("DELETE FROM t WHERE id = 1")
            made.run()
            assert made.service.dead_letter(first.id).resolution == "source_row_missing"
            assert not made.service.dead_letter(second.id).resolved

    def test_a_delete_sync_forgets_no_key_outside_it(self, tmp_path: Path) -> None:
        """Another record under a key that it deleted is not the one that the query names."""
        with moving_world(tmp_path, sync_mode="delete") as made:
            made.http.records["things"] = {"1": {"id": 1}, "2": {"id": 2}}
            put(made, (1, "a", 10), (2, "b", 20))
            made.run()
            assert made.records == {}
            made.run()
            made.http.records["things"] = {"1": {"id": 1}}
            made.sql("UPDATE t SET changed = 30 WHERE id = 1")
            made.run()
            assert sorted(made.records) == ["1"]

    def test_a_window_says_nothing_of_the_size_of_the_source(self, tmp_path: Path) -> None:
        with moving_world(tmp_path) as made:
            put(made, (1, "a", 10), (2, "b", 20), (3, "c", 30))
            made.run()
            made.run()
            pointer = made.service.store.snapshots.pointer(made.project.syncs[0].id)
            assert pointer is not None
            assert pointer.source_rows == 3


def test_the_snapshot_is_that_of_a_sync_without_watermark(tmp_path: Path) -> None:
    """Rows outside the window stay in it, so that a change of change detection sends nothing."""
    with moving_world(tmp_path) as made:
        put(made, (1, "a", 10), (2, "b", 20))
        made.run()
        put(made, (3, "c", 30))
        made.run()
        compared = made.with_sync(change_detection="snapshot")
        with compared.service:
            assert compared.run().run.counters.unchanged == 3


def test_a_replay_reads_below_the_watermark(tmp_path: Path) -> None:
    with moving_world(tmp_path) as made:
        put(made, (1, "bad", 10), (2, "b", 20))
        made.run()
        made.http.rules = Rules()
        [(_, options)] = made.service.replays([letters(made)[1].id])
        assert made.service.run("things", options).run.counters.written == 1
        assert mark(made) == "20"


def test_a_postgres_warehouse(tmp_path: Path, postgres_url: str) -> None:
    """The same through another dialect, with a key that is a uuid and a decimal without declared scale."""
    import psycopg

    with moving_world(tmp_path, source_query="SELECT id::text AS id, name, score, changed FROM t") as made:
        warehouse = made.project.warehouses["default"].model_copy(update={"url": postgres_url})
        project = made.project.model_copy(update={"warehouses": {"default": warehouse}})
        with (
            psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection,
            Service(project) as service,
        ):
            connection.execute("CREATE TABLE t (id uuid, name text, score int, changed numeric)")
            insert = "INSERT INTO t VALUES (('0000000' || %s || '-0000-0000-0000-000000000000')::uuid, %s, 1, %s)"
            connection.cursor().executemany(insert, [(1, "bad", 1.5), (2, "b", 2.25), (3, "c", None)])
            service.run("things")
            connection.execute(insert, [4, "d", 2.5])
            report = service.run("things", RunOptions())
            assert (read(report), report.run.counters.written, report.run.counters.failed) == (4, 1, 1)
            assert "and 1 by key" in report.plan.reason
