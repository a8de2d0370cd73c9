"""The health of destinations: what runs and checks last said of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from dagster_retl.connectors.base import AnyConnector, Connector
from dagster_retl.engine.destination import Discovery
from dagster_retl.engine.known_secrets import secrets_in
from dagster_retl.errors import DestinationError, ErrorCode, RetlError
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.runs import Run
from dagster_retl.service.syncs import SyncCases
from dagster_retl.store.health import Checked

_RECENT = 50
"""Runs of the store that a quick look takes in."""

_ANSWERED = frozenset(
    {
        ErrorCode.AUTH,
        ErrorCode.PERMISSION,
        ErrorCode.QUOTA_EXHAUSTED,
        ErrorCode.SCHEMA_DRIFT,
        ErrorCode.GUARD_TRIPPED,
    }
)
"""What a run fails with only after its destination answered."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A destination that does not answer, or not as it should.

    since: of the first sign of it. seen_at: of the last one. run_id: the run that saw it last; None: a check did.
    """

    destination_id: str
    since: datetime
    seen_at: datetime
    code: str
    reason: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """What a run or a check says of a destination; `outage` None: that it answers."""

    at: datetime
    outage: Outage | None


class HealthCases(SyncCases):
    """The health of destinations: what runs and checks last said of them."""

    def outages(self, attempts: Iterable[Run] | None = None) -> dict[str, Outage]:
        """The destinations of which the last word is that they are down, by id.

        attempts: the last attempts of syncs (`store.runs.last_attempts`); None: the last runs of the store, for a
        look that has to be cheap.
        """
        runs = self.store.runs.list(limit=_RECENT) if attempts is None else attempts
        said: dict[str, list[_Word]] = {}
        destination_of = {sync.id: sync.destination_id for sync in self.definitions()}
        for run in runs:
            if run.sync_id in destination_of and (word := _of_run(run, destination_of[run.sync_id])) is not None:
                said.setdefault(destination_of[run.sync_id], []).append(word)
        for checked in self.store.health.all(self.project.project).values():
            said.setdefault(checked.destination_id, []).append(_of_check(checked))
        known = {name: _last_word(words) for name, words in said.items() if name in self.project.destinations}
        return {name: outage for name, outage in known.items() if outage is not None}

    def probe(self, destination_id: str, *, timeout: float, outage: Outage | None = None) -> Checked | None:
        """Ask a destination whether it answers, and remember what it said; None: its connector cannot ask.

        timeout: seconds for each request, and after which none is sent again. outage: what was known of it before.
        """
        destination = self.project.destination(destination_id)
        redact = Redactor(secrets_in(dict(destination.config)))
        try:
            with self._impatient(destination_id, timeout) as connector:
                if not _can_ask(connector):
                    return None
                redact = Redactor(secrets_in(connector.config) | secrets_in(dict(destination.config)))
                _ask(connector, timeout)
        except RetlError as error:
            code, said = str(error.code), redact(error.message)
        else:
            return self.store.health.record(self.project.project, destination_id)
        since = None if outage is None else outage.since
        return self.store.health.record(
            self.project.project, destination_id, error_code=code, message=said, since=since
        )

    @contextmanager
    def _impatient(self, destination_id: str, timeout: float) -> Iterator[AnyConnector]:
        """A connector whose requests take no longer than this."""
        patient = self.connector(self.project.destination(destination_id))
        config = patient.config.model_copy(update={"timeout": min(patient.config.timeout, timeout)})
        patient.close()
        connector = type(patient)(config)
        try:
            yield connector
        finally:
            connector.close()


def _can_ask(connector: AnyConnector) -> bool:
    """Whether a check sends anything: without an address for it, some connectors say yes to everything."""
    if not isinstance(connector, Connector):
        return True
    exchange = connector.check()
    try:
        next(exchange)
    except StopIteration:
        return False
    exchange.close()
    return True


def _ask(connector: AnyConnector, timeout: float) -> None:
    """Raises `RetlError` when the destination does not answer as it should."""
    late = threading.Event()
    timer = threading.Timer(timeout, late.set)
    timer.daemon = True
    timer.start()
    try:
        with Discovery(connector, late) as discovery:
            discovery.account()
    except RetlError as error:
        if error.code is not ErrorCode.CANCELLED:
            raise
        said = f"it did not answer within {timeout:g} s"
        raise DestinationError(said, code=ErrorCode.DESTINATION_DOWN) from None
    finally:
        timer.cancel()


def _of_run(run: Run, destination_id: str) -> _Word | None:
    """None: the run says nothing, for it did not get as far as to the destination."""
    if run.finished_at is None or run.dry_run:
        return None
    if run.error_code == ErrorCode.DESTINATION_DOWN:
        reason = " ".join((run.error_message or "no reason was given").split())
        at = run.finished_at
        return _Word(at, Outage(destination_id, at, at, run.error_code, reason, run.id))
    reached = bool(run.counters.requests) or run.error_code in _ANSWERED
    return _Word(run.finished_at, None) if reached else None


def _of_check(checked: Checked) -> _Word:
    if checked.error_code is None:
        return _Word(checked.checked_at, None)
    outage = Outage(
        checked.destination_id, checked.since, checked.checked_at, checked.error_code, checked.message or ""
    )
    return _Word(checked.checked_at, outage)


def _last_word(words: Iterable[_Word]) -> Outage | None:
    """The outage that lasts. What a check found tells itself when it began; runs tell of themselves only."""
    last: Outage | None = None
    for word in sorted(words, key=lambda word: word.at, reverse=True):
        if word.outage is None:
            break
        last = word.outage if last is None else replace(last, since=word.outage.since)
        if word.outage.run_id is None:
            break
    return last
