"""Syncs that people make and change through the service, in a real project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import World, project_of
from worlds import world as world_in

from dagster_retl.errors import ConfigurationError, ConflictError, NotFoundError, StoreError, VersionMismatchError
from dagster_retl.model.project import Project
from dagster_retl.model.runs import RunStatus
from dagster_retl.orchestration.build import build_definitions
from dagster_retl.service import Service
from dagster_retl.syncs.definition import InvalidSyncError, file_data, parse_sync


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path) as made:
        made.put((1, "Ada", 1.5), (2, "Zoë", None))
        yield made


def data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Other things",
        "source_query": "SELECT id, name FROM t",
        "destination_id": "http_service",
        "object_name": "others",
        "key": "id",
        "field_mappings": {"id": "id", "name": "upper(name)"},
    } | changes


def mistakes(error: InvalidSyncError) -> dict[str, str]:
    return {".".join(map(str, mistake.loc)): mistake.message for mistake in error.mistakes}


def slugs(definitions: dg.Definitions) -> set[str]:
    """Of the syncs that the definitions hold; what those read is in their graph, too."""
    return {each.op.name for each in definitions.assets or () if isinstance(each, dg.AssetsDefinition)}


def test_a_frame_of_an_asset_is_looked_at_by_runs_only(world: World) -> None:
    saved = world.service.editor.create(data(source_query="asset:frames/people"), actor="ann")
    assert ["not checked" in warning for warning in saved.warnings] == [True]
    with pytest.raises(InvalidSyncError) as caught:
        world.service.editor.create(data(name="x", source_query="asset:frames//people"), actor="ann")
    assert "names no asset" in mistakes(caught.value)["source_query"]


def test_a_sync_of_the_store_runs_like_any_other(world: World) -> None:
    saved = world.service.editor.create(data(schedule="0 * * * *", guards={"deletes": "5%"}), actor="ann")
    sync = saved.entry.sync
    assert (sync.slug, sync.schedule.expression, sync.guards.deletes) == ("other_things", "0 * * * *", 0.05)
    assert (saved.entry.owner, saved.entry.version, saved.entry.enabled, saved.warnings) == ("store", 1, True, ())
    assert world.service.run("Other things").run.counters.written == 2
    assert world.http.records["others"]["1"] == {"id": 1, "name": "ADA"}
    assert [view.sync.slug for view in world.service.syncs()] == ["things", "other_things"]
    assert world.service.find(sync.id) == sync == world.service.find("other_things")
    with Service.open(world.project) as another:
        assert another.find(sync.id) == sync


def test_a_run_takes_the_query_as_it_is_now(world: World) -> None:
    sync_id = world.service.editor.create(data(), actor="ann").entry.sync.id
    world.service.run(sync_id)
    changed = world.service.editor.update(
        sync_id, {"field_mappings": {"id": "id", "name": "lower(name)"}, "key": "id"}, actor="bob"
    )
    assert changed.entry.version == 2
    assert world.service.run(sync_id).run.counters.written == 2
    assert world.http.records["others"]["1"]["name"] == "ada"


@pytest.mark.parametrize(("changes", "where", "what"), [
    ({"name": None}, "name", "expected text"),
    ({"sync_mod": "upsert"}, "sync_mod", "unknown setting. Did you mean `sync_mode`?"),
    ({"sync_mode": "upsertt"}, "sync_mode", "Did you mean `upsert`?"),
    ({"key": []}, "sync_mode", "needs a key"),
    ({"field_mappings": {}}, "field_mappings", "at least 1"),
    ({"field_mappings": [{"source": "id", "destination": "id"}] * 2}, "field_mappings", "mapped twice"),
    ({"destination_id": "http_servise"}, "destination_id", "Did you mean `http_service`?"),
    ({"warehouse": "elsewhere"}, "warehouse", "there is no warehouse"),
    ({"schedule": "every day"}, "schedule.expression", "not a cron expression"),
    ({"schedule": {"type": "cron", "expression": "0 * * * *", "timezone": "Mars/B"}}, "schedule.timezone", "Mars/B"),
    ({"source_query": "DELETE FROM t"}, "source_query", "must only read"),
    ({"source_query": "SELECT 1; SELECT 2"}, "source_query", "2 statements"),
    ({"source_query": "SELECT id, name FROM nowhere"}, "source_query", "nowhere"),
    ({"source_query": "file:../secret.sql"}, "source_query", "outside"),
    ({"source_query": "dbt:model"}, "source_query", "dbt_project.yml"),
    ({"field_mappings": {"id": "id", "name": "nane"}}, "field_mappings", "no column 'nane'"),
    ({"field_mappings": {"id": "id", "name": "getenv('HOME')"}}, "field_mappings", "getenv"),
    ({"name": "class"}, "slug", "reserved"),
    ({"name": "retl syncs"}, "slug", "reserved"),
    ({"name": "日本"}, "slug", "letters, digits"),
    ({"owners": ["ann"]}, "owners.0", "e-mail"),
    ({"group": "a b"}, "group", "letters"),
    ({"tags": {"a b": "c"}}, "tags.a b", "letters"),
    ({"adopt": "retl_sync_abc"}, "adopt", "retl.yaml only"),
    ({"project": "other"}, "project", "retl.yaml only"),
    ({"partitions": {"a": 1}}, "partitions.a", "unknown"),
    ({"renamed_from": "things"}, "renamed_from", "retl.yaml only"),
    ({"after": ["thing"]}, "after.0", "there is no sync 'thing'. Did you mean `things`?"),
    ({"after": ["Other things"]}, "after.0", "after itself"),
    ({"after": "things"}, "after", "expected a list"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(world: World, changes: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(InvalidSyncError) as caught:
        world.service.editor.create(data(**changes), actor="ann")
    told = mistakes(caught.value)
    assert where in told, told
    assert what in told[where]
    assert world.service.store.syncs.live("default") == []


def test_all_mistakes_are_told_at_once(world: World) -> None:
    with pytest.raises(InvalidSyncError) as caught:
        world.service.editor.create(data(object_name="", schedule="x", owners=["y"], destination_id="z"), actor="ann")
    assert set(mistakes(caught.value)) == {"object_name", "schedule.expression", "destination_id"}


def test_the_destination_says_which_objects_and_fields_there_are(tmp_path: Path) -> None:
    fields = [
        {"name": "id", "required": True},
        {"name": "name"},
        {"name": "fixed", "updateable": False, "createable": False},
    ]
    with world_in(tmp_path, config={"objects": ["others"], "fields": fields}) as world:
        editor = world.service.editor
        for changes, where, what in (
            ({"object_name": "ohters"}, "object_name", "Did you mean `others`?"),
            ({"field_mappings": {"id": "id", "nam": "name"}}, "field_mappings", "did you mean 'name'?"),
            ({"field_mappings": {"id": "id", "fixed": "name"}}, "field_mappings", "cannot be written"),
        ):
            with pytest.raises(InvalidSyncError) as caught:
                editor.create(data(**changes), actor="ann")
            assert what in mistakes(caught.value)[where]
        assert editor.create(data(), actor="ann").warnings == ()


def test_a_warehouse_that_does_not_answer_keeps_nobody_from_saving(tmp_path: Path) -> None:
    with world_in(tmp_path) as world:
        gone = world.project.model_copy(
            update={
                "warehouses": {
                    "default": world.project.warehouse().model_copy(
                        update={"url": f"duckdb:///{tmp_path / 'none.duckdb'}"}
                    )
                }
            }
        )
        with Service.open(gone) as service:
            saved = service.editor.create(data(), actor="ann")
            assert len(saved.warnings) == 1
            assert "the query was not tried" in saved.warnings[0]


def test_a_change_merges_and_null_goes_back_to_the_default(world: World) -> None:
    editor = world.service.editor
    sync_id = editor.create(data(schedule="0 * * * *", description="x", max_attempts=2), actor="ann").entry.sync.id
    changed = editor.update(
        sync_id, {"schedule": None, "object_name": "new", "name": "renamed"}, actor="bob"
    ).entry.sync
    assert (changed.schedule.type, changed.object_name, changed.name, changed.slug) == (
        "manual",
        "new",
        "renamed",
        "other_things",
    )
    assert (changed.description, changed.max_attempts) == ("x", 2)
    rekeyed = editor.update(sync_id, {"key": "name"}, actor="bob").entry.sync
    assert rekeyed.key_fields == ("name",)
    same = editor.update(sync_id, {"key": "name", "object_name": "new"}, actor="bob").entry
    assert same.version == 3
    for changes, where in (({"name": None}, "name"), ({"slug": "other"}, "slug"), ({"sync_mode": "x"}, "sync_mode")):
        with pytest.raises(InvalidSyncError) as caught:
            editor.update(sync_id, changes, actor="bob")
        assert where in mistakes(caught.value)
    with pytest.raises(VersionMismatchError):
        editor.update(sync_id, {"key": "name"}, actor="bob", expected=2)
    assert [each.version for each in editor.versions(sync_id)] == [3, 2, 1]


def test_enabled_is_what_people_decided_last(world: World) -> None:
    editor = world.service.editor
    entry = editor.create(data(enabled=False), actor="ann").entry
    assert not entry.enabled
    assert not world.service.is_enabled(entry.sync)
    switched = editor.update(entry.sync.id, {"enabled": True}, actor="ann").entry
    assert (switched.enabled, switched.version) == (True, 1)
    world.service.set_enabled(entry.sync.id, enabled=False, actor="bob")
    assert not editor.update(entry.sync.id, {"description": "x"}, actor="ann").entry.enabled


def test_a_sync_of_the_file_is_changed_there(world: World) -> None:
    [own] = world.project.syncs
    for change in (
        lambda: world.service.editor.update(own.id, {"description": "x"}, actor="ann"),
        lambda: world.service.editor.delete(own.id, actor="ann"),
        lambda: world.service.editor.versions(own.id),
        lambda: world.service.editor.create(data(name="things"), actor="ann"),
        lambda: world.service.editor.create(data(name="Things!"), actor="ann"),
        lambda: world.service.purge(own.id, actor="ann"),
    ):
        with pytest.raises(ConflictError) as caught:
            change()
        assert caught.value.subject == own.id


def test_deleting_cancels_what_has_not_begun_and_keeps_what_was(world: World) -> None:
    sync_id = world.service.editor.create(data(), actor="ann").entry.sync.id
    done = world.service.run(sync_id).run
    queued = world.service.queue(sync_id)
    deleted = world.service.editor.delete(sync_id, actor="bob")
    assert [run.id for run in deleted.cancelled] == [queued.id]
    assert world.service.run_of(queued.id).status is RunStatus.CANCELLED
    assert world.service.run_of(done.id) == done
    for use in (world.service.find, world.service.run, world.service.queue):
        with pytest.raises(NotFoundError):
            use(sync_id)
    with pytest.raises(NotFoundError):
        world.service.editor.delete(sync_id, actor="bob")
    assert world.service.editor.create(data(), actor="ann").entry.sync.id != sync_id


def test_what_is_gone_can_be_purged(world: World) -> None:
    sync_id = world.service.editor.create(data(), actor="ann").entry.sync.id
    world.service.run(sync_id)
    world.service.run("things")
    with pytest.raises(ConflictError):
        world.service.purge(sync_id, actor="ann")
    world.service.editor.delete(sync_id, actor="ann")
    with Service.open(world.project.model_copy(update={"syncs": ()})) as emptied:
        gone = {retired.name: retired for retired in emptied.catalog.retired()}
        assert set(gone) == {"things", "Other things"}
        assert gone["things"].deleted_at is None
        folder = world.project.base / "state" / sync_id
        assert list(folder.iterdir())
        assert emptied.purge(sync_id, actor="ann") > 0
        assert list(folder.iterdir()) == []
        assert emptied.purge(gone["things"].sync_id, actor="ann") > 0
        assert emptied.catalog.retired() == []
        with pytest.raises(NotFoundError):
            emptied.purge(sync_id, actor="ann")
    assert world.service.run("things").run.counters.written == 2


def test_a_sync_moves_into_the_file_with_all_that_it_delivered(world: World) -> None:
    sync = world.service.editor.create(data(), actor="ann").entry.sync
    world.service.run(sync.id)
    moved = world.project.model_dump(exclude_unset=True) | {"syncs": [file_data(sync)]}
    with Service.open(Project.model_validate(moved)) as service:
        assert [view.sync.id for view in service.syncs()] == [sync.id]
        assert service.run("other_things").run.counters.unchanged == 2
        with pytest.raises(ConflictError):
            service.editor.update(sync.id, {"description": "x"}, actor="ann")
        assert slugs(build_definitions(service.project)) == {"other_things"}


def test_definitions_hold_the_syncs_of_the_store(world: World) -> None:
    world.service.editor.create(data(schedule="0 * * * *"), actor="ann")
    definitions = build_definitions(world.project)
    assert slugs(definitions) == {"things", "other_things"}
    assert [schedule.name for schedule in definitions.schedules or ()] == ["other_things"]
    assert slugs(build_definitions(world.project, stored_syncs=False)) == {"things"}
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("retl_syncs").execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(["retl", "other_things"])],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    assert result.success
    assert set(world.http.records["others"]) == {"1", "2"}


def test_definitions_of_a_store_that_cannot_be_read_raise(world: World, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("no database, although long enough to be taken for one " * 20)
    broken = world.project.model_copy(update={"store": f"sqlite:///{tmp_path / 'broken.db'}"})
    with pytest.raises(StoreError):
        build_definitions(broken)


def test_a_name_of_file_and_store_is_told_when_definitions_load(world: World) -> None:
    world.service.editor.create(data(), actor="ann")
    both = world.project.model_dump(exclude_unset=True)
    both["syncs"] = [data()]
    with pytest.raises(ConfigurationError, match="adopt: retl_sync_"):
        build_definitions(Project.model_validate(both))


def test_a_destination_that_is_gone_is_told_when_definitions_load(world: World, tmp_path: Path) -> None:
    world.service.editor.create(data(), actor="ann")
    without = project_of(tmp_path, world.http.url).model_copy(update={"destinations": {}, "syncs": ()})
    with pytest.raises(ConfigurationError, match="needs the destination 'http_service'"):
        build_definitions(without)


NAMES = st.text(min_size=1, max_size=20) | st.sampled_from(["type", "None", "input", "a", "1", "_", "class_", "pass"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@given(
    name=NAMES,
    group=st.none() | TEXT,
    owners=st.lists(TEXT | st.sampled_from(["team:a", "a@b.co", "team:"]) | st.emails(), max_size=2),
    tags=st.dictionaries(TEXT | st.sampled_from(["a/b", "a/b/c"]), TEXT, max_size=2),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dagster_takes_whatever_may_be_saved(
    empty: Callable[[], Project], name: str, group: str | None, owners: list[str], tags: dict[str, str]
) -> None:
    said = data(name=name, owners=owners, tags=tags) | ({"group": group} if group is not None else {})
    try:
        sync = parse_sync(said, empty(), sync_id="retl_sync_x")
    except InvalidSyncError:
        return
    build_definitions(empty().model_copy(update={"syncs": (sync,)}), stored_syncs=False)


@pytest.fixture
def empty(tmp_path: Path) -> Callable[[], Project]:
    project = project_of(tmp_path, "http://127.0.0.1:9").model_copy(update={"syncs": ()})
    return lambda: project


def test_a_sync_of_the_store_runs_after_others_by_their_slugs(world: World) -> None:
    editor = world.service.editor
    first = editor.create(data(after=["things"]), actor="ann").entry.sync
    second = editor.create(data(name="More things", after=["Other things", "things"]), actor="ann").entry.sync
    assert (first.after, second.after) == (("things",), ("other_things", "things"))
    editor.update(first.id, {"name": "Renamed"}, actor="ann")
    assert world.service.find(second.id).after == ("other_things", "things")
    assert slugs(build_definitions(world.project)) >= {"things", "other_things", "more_things"}
    with pytest.raises(InvalidSyncError) as caught:
        editor.update(first.id, {"after": ["more_things"]}, actor="ann")
    assert "other_things → more_things" in mistakes(caught.value)["after"]
    with pytest.raises(ConflictError, match=r"'More things' .* runs after 'Renamed'"):
        editor.delete(first.id, actor="ann")
    editor.update(second.id, {"after": None}, actor="ann")
    editor.delete(first.id, actor="ann")


def test_a_sync_of_the_store_that_runs_after_one_that_left_the_file_fails_the_load(world: World) -> None:
    world.service.editor.create(data(after=["things"]), actor="ann")
    without = world.project.model_copy(update={"syncs": ()})
    with pytest.raises(ConfigurationError, match="cannot run after 'things': there is no sync 'things'") as caught:
        build_definitions(without)
    assert "through the API" in str(caught.value.hint)
