"""What one run of one sync is given."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.engine.phase import OnPhase
from dagster_retl.engine.sealing import Sealer
from dagster_retl.model.project import EngineSettings, Retention
from dagster_retl.model.redactor import Redactor
from dagster_retl.model.rows import Counters
from dagster_retl.model.runs import RunOptions
from dagster_retl.model.sync import Sync
from dagster_retl.sources.base import Source
from dagster_retl.store.state import State
from dagster_retl.store.store import Store


@dataclass(frozen=True, slots=True)
class SyncRun:
    """Everything that one run needs. `stop`: set it to end the run at a batch boundary.

    sealer: encrypts the documents of refused rows, which are kept then.
    """

    run_id: str
    sync: Sync
    connector: AnyConnector
    source: Source
    sql: str
    store: Store
    state: State
    settings: EngineSettings
    options: RunOptions = field(default_factory=RunOptions)
    retention: Retention = field(default_factory=Retention)
    redact: Redactor = field(default_factory=lambda: Redactor(()))
    sealer: Sealer | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    on_progress: Callable[[Counters], None] = lambda counters: None
    on_phase: OnPhase = lambda phase, counters: None
