"""One step of a Dagster run: it runs a sync, reports on it, and evaluates its checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import dagster as dg

from dagster_retl.engine.phase import OnPhase, Phase, doing
from dagster_retl.engine.run import Report
from dagster_retl.errors import ConfigurationError, ErrorCode, RetlError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import Run, RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.orchestration.checks import check_results, last_run
from dagster_retl.orchestration.column_lineage import column_lineage
from dagster_retl.orchestration.config import SyncRunConfig
from dagster_retl.orchestration.metadata import (
    SAMPLE_FAILURES,
    Metadata,
    delivery_metadata,
    failures_metadata,
    open_letters_metadata,
    plan_metadata,
    run_metadata,
)
from dagster_retl.orchestration.names import TRIGGER_TAG, ServiceFactory, asset_key
from dagster_retl.orchestration.partitions import partitions_of, step_name, together
from dagster_retl.orchestration.upstream import upstreams_of
from dagster_retl.service import Service
from dagster_retl.store.runs import options_from_json

Progress = Callable[[Counters], None]
Results = Iterator[dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckResult]

OUTAGES = frozenset({ErrorCode.DESTINATION_DOWN, ErrorCode.SOURCE_UNAVAILABLE, ErrorCode.STATE_UNAVAILABLE})
"""Failures that may be over in a minute; all others need a person."""

OUTAGE_RETRIES = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""How a run is tried again after an outage: about 30 and 60 seconds later.

Not a policy of the op: Dagster would apply that to a run that somebody terminates as well.
"""

_TRIGGERS_BY_TAG = {
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/backfill": "backfill",
    "dagster/from_automation_condition": "automation",
}


_Part = tuple[str, Partition | None]
"""A run of a sync within a step: what the store calls it, and the partition that it is of."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What all steps of a project have in common.

    retry_policy: when Dagster tries a run again after an outage. on_progress, on_phase: called with
    the counters and phases of the runs of this process.
    """

    open_service: ServiceFactory
    retry_policy: dg.RetryPolicy = OUTAGE_RETRIES
    on_progress: Progress | None = None
    on_phase: OnPhase | None = None


class SyncStep:
    """One attempt of a sync's op: a run of the sync, or (checks selected alone) a look at the last one."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        sync: Sync,
        settings: StepSettings,
        service: Service,
        frame: object = None,
    ) -> None:
        self.sync = sync
        self.service = service
        self._context = context
        self._settings = settings
        self._frame = frame
        self._config = SyncRunConfig.model_validate(context.op_execution_context.op_config)

    def run(self) -> Results:
        """What Dagster is to hear, as it happens. Raises `dg.Failure` or `dg.RetryRequested`."""
        if not self._context.selected_asset_keys:
            yield from self._checks(last_run(self.service, self.sync))
            return
        if self._trigger == "automation" and not self.service.is_enabled(self.sync):
            self._context.log.info("sync %r is disabled: it does not run by itself", self.sync.name)
            return
        parts: list[_Part] = []
        reports: list[Report] = []
        try:
            parts += self._parts()
            for part in parts:
                reports.append(self._run(*part))  # noqa: PERF401 - what was done before one fails is needed
        except RetlError as error:
            yield from self._counts_of_failed(parts, reports)
            self._give_up_or_retry(error, self._recorded(parts[len(reports) :]))
        except BaseException:
            yield from self._counts_of_failed(parts, reports)
            raise
        yield from self._results(reports)

    def _parts(self) -> Iterator[_Part]:
        partitions = partitions_of(self._context, self.service, self.sync)
        return ((step_name(self.sync, partition, len(partitions)), partition) for partition in partitions)

    def _results(self, reports: Sequence[Report]) -> Results:
        if reports[0].run.dry_run:
            for report in reports:
                yield self._observation(run_metadata(report.run) | plan_metadata(report.plan), report.run.partition)
            return
        metadata = self._lineage()
        for report in reports:
            found = self._metadata_of(report)
            if len(reports) == 1:
                metadata |= found
            else:
                self._context.add_asset_metadata(found, asset_key(self.sync), report.run.partition)
        yield dg.MaterializeResult(
            asset_key=asset_key(self.sync),
            metadata=metadata,
            check_results=list(self._checks(together([report.run for report in reports]))),
        )

    def _metadata_of(self, report: Report) -> Metadata:
        return run_metadata(report.run, self._failures(report.run)) | delivery_metadata(report.run, report.plan)

    @property
    def _trigger(self) -> str:
        return _trigger(self._context.run.tags)

    def _run(self, name: str, partition: Partition | None) -> Report:
        run_id, options = self._asked()
        if options.partition not in (None, partition):
            raise ConfigurationError(
                f"what is asked of the run is of partition {options.partition.key!r}, and the run of another one",
                hint="Launch it for that partition.",
            )
        return self.service.run(
            self.sync.id,
            replace(options, partition=partition),
            run_id=run_id,
            trigger=self._trigger,
            dagster_run_id=self._context.run.run_id,
            dagster_step=name,
            on_progress=self._settings.on_progress,
            on_phase=self._enter,
            frame=self._frame,
        )

    def _enter(self, phase: Phase, counters: Counters) -> None:
        self._context.log.info(doing(phase, counters))
        if self._settings.on_phase is not None:
            self._settings.on_phase(phase, counters)

    def _counts_of_failed(self, parts: Sequence[_Part], done: Sequence[Report]) -> Results:
        """What the run did before it ended early; partitions that were done are materialized.

        Yielded: events that are only logged get lost with the error.
        """
        for report in done:
            if not report.run.dry_run:
                yield self._materialization(report)
        run = self._recorded(parts[len(done) :])
        if run is not None:
            yield self._observation(run_metadata(run, self._failures(run)), run.partition)

    def _recorded(self, parts: Sequence[_Part]) -> Run | None:
        """The run of the first of these, if it came to one."""
        return self.service.store.runs.find(self._context.run.run_id, parts[0][0]) if parts else None

    def _materialization(self, report: Report) -> dg.AssetMaterialization:
        metadata = self._metadata_of(report) | self._lineage()
        return dg.AssetMaterialization(asset_key(self.sync), metadata=metadata, partition=report.run.partition)

    def _asked(self) -> tuple[str | None, RunOptions]:
        """The queued run to execute, if any, and what is asked of the run."""
        config = self._config
        if config.run_id is None:
            return None, self._with_replay(config.options())
        queued = self.service.run_of(config.run_id)
        if queued.sync_id != self.sync.id:
            raise ConfigurationError(f"run {queued.id} is one of sync {queued.sync_name!r}, not {self.sync.name!r}")
        # Executing a Dagster run again copies its configuration: that is a new run with the same options.
        taken = queued.dagster_run_id not in (None, self._context.run.run_id)
        return (None if taken else queued.id), options_from_json(queued.options)

    def _with_replay(self, options: RunOptions) -> RunOptions:
        if not options.replay:
            return options
        asked = self.service.replays(options.replay)
        if {sync_id for sync_id, _ in asked} != {self.sync.id}:
            raise ConfigurationError(
                f"some of the dead letters to replay are not of sync {self.sync.name!r}",
                hint="Replay each sync's dead letters with a run of that sync.",
            )
        if len(asked) > 1:
            raise ConfigurationError(
                f"the dead letters to replay are of several partitions of sync {self.sync.name!r}",
                hint="Replay those of each partition with a run of that partition.",
            )
        [(_, found)] = asked
        return replace(options, replay=found.replay, keys=found.keys, partition=found.partition)

    def _give_up_or_retry(self, error: RetlError, run: Run | None) -> NoReturn:
        """Raise what Dagster is to hear. Not the error itself: what lies behind it may hold secrets."""
        failure = self._failure(error, run)
        attempt, policy = self._context.op_execution_context.retry_number + 1, self._settings.retry_policy
        if error.code in OUTAGES and self._config.retry_outages and attempt <= policy.max_retries:
            raise dg.RetryRequested(policy.max_retries, policy.calculate_delay(attempt)) from failure
        raise failure from None

    def _failure(self, error: RetlError, run: Run | None) -> dg.Failure:
        metadata = run_metadata(run) if run else {}
        metadata["retl/error_code"] = dg.MetadataValue.text(error.code.value)
        return dg.Failure(f"{error.code}: {error}", metadata=metadata, allow_retries=False)

    def _observation(self, metadata: Metadata, partition: str | None) -> dg.AssetObservation:
        return dg.AssetObservation(asset_key(self.sync), metadata=metadata, partition=partition)

    def _lineage(self) -> Metadata:
        spec = self._context.assets_def.get_asset_spec(asset_key(self.sync))
        lineage = column_lineage(self.service.project, self.sync, upstreams_of(spec))
        return {} if lineage is None else {"dagster/column_lineage": dg.MetadataValue.column_lineage(lineage)}

    def _failures(self, run: Run) -> Metadata:
        letters = self.service.dead_letters(self.sync.id, run_id=run.id, limit=SAMPLE_FAILURES)
        count = self.service.store.dead_letters.count_open(self.sync.id)
        return failures_metadata(letters) | open_letters_metadata(self.sync, count, os.environ.get("RETL_API_URL"))

    def _checks(self, run: Run | None) -> Iterator[dg.AssetCheckResult]:
        names = {key.name for key in self._context.selected_asset_check_keys}
        return check_results(self.sync, run, names)


def _trigger(tags: Mapping[str, str]) -> str:
    """Who asked for a Dagster run: what its launcher says, or what started it."""
    if TRIGGER_TAG in tags:
        return tags[TRIGGER_TAG]
    return next((trigger for tag, trigger in _TRIGGERS_BY_TAG.items() if tag in tags), "manual")
