"""The resources, in assets and sensors of people's own."""

from __future__ import annotations

import json
from dataclasses import replace

import dagster as dg
from scene import QUIET, Scene, execute

from dagster_retl import DeadLetterQueue, Project, ReverseEtlResource, build_definitions
from dagster_retl.orchestration.names import JOB_NAME


def with_one_failure(scene: Scene, instance: dg.DagsterInstance) -> Project:
    project, rules = scene.project(), scene.service.rules
    scene.service.rules = replace(rules, refuse=lambda row: "too tall" if row["id"] == 3 else None)
    execute(project, instance)
    scene.service.rules = rules
    return project


def materialize(project: Project, asset: dg.AssetsDefinition, instance: dg.DagsterInstance) -> dict[str, object]:
    mine = dg.Definitions(assets=[asset], jobs=[dg.define_asset_job("mine", selection=[asset])])
    job = dg.Definitions.merge(build_definitions(project), mine).resolve_job_def("mine")
    result = job.execute_in_process(instance=instance, run_config={"loggers": QUIET})
    [event] = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_dead_letters_in_an_asset(scene: Scene, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def mended(dead_letters: DeadLetterQueue) -> dg.MaterializeResult[None]:
        opened = dead_letters.open("people")
        runs = dead_letters.replay([letter.id for letter in opened])
        counts = {"opened": len(opened), "written": runs[0].counters.written, "left": dead_letters.stats().open_count}
        return dg.MaterializeResult(metadata=counts)

    seen = materialize(with_one_failure(scene, instance), mended, instance)
    assert seen == {"opened": 1, "written": 1, "left": 0}
    assert "3" in scene.service.records["people"]


def test_resolving_is_audited_under_a_name(scene: Scene, instance: dg.DagsterInstance) -> None:
    @dg.asset
    def settled(dead_letters: DeadLetterQueue, retl: ReverseEtlResource) -> dg.MaterializeResult[None]:
        [letter] = dead_letters.open()
        closed = dead_letters.resolve([letter.id], "fixed_source_data", actor="asset settled")
        last = retl.service.sync("people").last_run
        return dg.MaterializeResult(
            metadata={"closed": closed == [letter.id], "failed": last.counters.failed if last else -1}
        )

    assert materialize(with_one_failure(scene, instance), settled, instance) == {"closed": True, "failed": 1}


def test_replay_requests_run_in_the_job(scene: Scene, instance: dg.DagsterInstance) -> None:
    project = with_one_failure(scene, instance)
    queue = build_definitions(project).resources["dead_letters"]  # type: ignore[index]  # we gave it resources
    assert isinstance(queue, DeadLetterQueue)
    [letter] = queue.open("people")
    [request] = queue.replay_requests([letter.id])
    result = (
        build_definitions(project)
        .resolve_job_def(JOB_NAME)
        .execute_in_process(
            instance=instance,
            run_config={**request.run_config, "loggers": QUIET},
            asset_selection=list(request.asset_selection or []),
            tags=dict(request.tags),
        )
    )
    assert result.success
    assert queue.open("people") == []
    assert queue.service.runs("people")[0].trigger == "replay"
    queue.service.close()


def test_a_resource_reads_the_file_that_its_path_names(scene: Scene) -> None:
    path = scene.folder / "retl.yaml"
    path.write_text(json.dumps(scene.data()))
    resource = ReverseEtlResource(project_path=str(path))
    assert [view.sync.slug for view in resource.service.syncs()] == ["people"]
    resource.service.close()
