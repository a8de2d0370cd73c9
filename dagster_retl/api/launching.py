"""Runs on their way to Dagster: launched once they are queued in the store, closed when they get lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta

from dagster_retl.errors import ConflictError, ErrorCode, NotFoundError, RetlError
from dagster_retl.model.dagster_names import RUN_TAG, TRIGGER_TAG, run_tags
from dagster_retl.model.runs import REPLAY, Run, RunStatus
from dagster_retl.service import Service
from dagster_retl.webserver import Webserver, WebserverError, is_over

_LOG = logging.getLogger(__name__)

LOST = timedelta(seconds=60)
"""A queued run that no Dagster run was launched for by then belongs to a process that died."""

_LOOK = 15.0  # seconds between two looks at runs that wait
_FRESH = timedelta(seconds=15)


class Launcher:
    """Launches runs, ends them, and looks after those that wait."""

    def __init__(self, service: Service, webserver: Webserver) -> None:
        self._service = service
        self._webserver = webserver
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="retl-api-launcher", daemon=True)

    def open(self) -> None:
        """Look after runs that wait, until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def launch(self, run: Run) -> RetlError | None:
        """Launch a queued run; one that cannot be launched is closed as failed, and why is returned.

        A replay that finds no Dagster waits: the sensor `retl_replays` launches it.
        """
        try:
            sync = self._service.find(run.sync_id)
            config = {"ops": {sync.slug: {"config": {"run_id": run.id}}}}
            tags = {**run_tags(sync), TRIGGER_TAG: run.trigger, RUN_TAG: run.id}
            dagster_run_id = self._webserver.launch(sync, config, tags, run.partition)
        except (WebserverError, NotFoundError) as error:
            if run.trigger == REPLAY and isinstance(error, WebserverError) and not error.refused:
                return None
            self._close(run, RunStatus.FAILED, f"the run was not launched: {error.message}")
            return error
        self._service.store.runs.link_dagster(run.id, dagster_run_id, sync.slug)
        return None

    def cancel(self, run_id: str, actor: str) -> Run:
        """End a run that is queued or running; a running one stops soon.

        Raises `NotFoundError`, `ConflictError` for a run that is over or cannot be stopped alone, `WebserverError`.
        """
        run = self._service.run_of(run_id)
        if run.status.ended:
            raise ConflictError(f"run {run.id} is over: it {_PAST[run.status]}", subject=run.id)
        self._refuse_company(run)
        store = self._service.store
        with store.begin() as conn:
            store.audit.add(conn, actor, "run.cancel", run.id, run.sync_name)
        if self._close(run, RunStatus.CANCELLED, "somebody cancelled the run before it began"):
            self.terminate([run])
        elif run.dagster_run_id is None:
            raise ConflictError(
                f"run {run.id} was not started by Dagster", hint="Stop it where it runs.", subject=run.id
            )
        else:
            self._webserver.terminate(run.dagster_run_id)
        return self._service.run_of(run_id)

    def terminate(self, cancelled: Sequence[Run]) -> None:
        """End the Dagster runs of runs that were cancelled before they began; without that they end as they begin."""
        for run in cancelled:
            if run.dagster_run_id is not None:
                try:
                    self._webserver.terminate(run.dagster_run_id)
                except WebserverError as error:
                    _LOG.warning("the Dagster run of %s ends as it begins: %s", run.id, error)

    def reconcile(self, run: Run) -> Run:
        """The run, closed if it is queued and nobody is going to begin it."""
        if run.status is not RunStatus.QUEUED:
            return run
        lost = self._lost(run)
        if lost is None:
            return run
        self._close(run, *lost)
        return self._service.run_of(run.id)

    def _lost(self, run: Run) -> tuple[RunStatus, str] | None:
        if run.dagster_run_id is None:
            if run.trigger == REPLAY:
                return None  # the sensor launches it
            late = self._service.store.now() - run.created_at > LOST
            return (RunStatus.FAILED, "the process that queued the run died before it was launched") if late else None
        try:
            status = self._webserver.status(run.dagster_run_id)
        except WebserverError:
            return None  # nobody can tell now
        if status is not None and not is_over(status):
            return None
        ended = RunStatus.CANCELLED if status == "CANCELED" else RunStatus.FAILED
        seen = "is not known to Dagster any more" if status is None else f"ended as {status} before the sync began"
        return ended, f"Dagster run {run.dagster_run_id} {seen}"

    def _close(self, run: Run, status: RunStatus, message: str) -> bool:
        code = ErrorCode.CANCELLED if status is RunStatus.CANCELLED else ErrorCode.INTERRUPTED
        store = self._service.store
        if not store.runs.close_queued(run.id, status, code, message):
            return False
        with store.begin() as conn:
            store.dead_letters.clear_replaying(conn, run.id)
        return True

    def _refuse_company(self, run: Run) -> None:
        if run.dagster_run_id is None:
            return
        others = [each for each in self._service.store.runs.sharing(run.dagster_run_id) if each.id != run.id]
        running = [each.sync_name for each in others if not each.status.ended]
        if running:
            raise ConflictError(
                f"Dagster run {run.dagster_run_id} also runs {', '.join(running)}: one of them cannot be ended alone",
                hint="Terminate that run in Dagster to end all of them.",
                subject=run.id,
            )

    def _look_after(self) -> None:
        while not self._stop.wait(_LOOK):
            try:
                store = self._service.store
                for run in store.runs.queued(store.now() - _FRESH):
                    self.reconcile(run)
            except Exception:  # noqa: BLE001 - it is in the log, and the next look may go well
                _LOG.exception("runs that wait could not be looked after")


_PAST = {RunStatus.SUCCEEDED: "succeeded", RunStatus.FAILED: "failed", RunStatus.CANCELLED: "was cancelled"}
