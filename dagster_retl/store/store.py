"""The store: the truth about leases, runs, what was sent, what was answered and what failed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, update

from dagster_retl.store.acceptances import Acceptances
from dagster_retl.store.api_keys import ApiKeys
from dagster_retl.store.audit import Audit
from dagster_retl.store.budgets import Budgets
from dagster_retl.store.database import Database
from dagster_retl.store.dead_letters import DeadLetters
from dagster_retl.store.expiry import Expiry
from dagster_retl.store.file_syncs import FileSyncs
from dagster_retl.store.health import Health
from dagster_retl.store.idempotency import IdempotencyKeys
from dagster_retl.store.key_records import KeyRecords
from dagster_retl.store.leases import Lease, Leases
from dagster_retl.store.ledger import Ledger
from dagster_retl.store.mentions import Mentions
from dagster_retl.store.migrate import ensure_schema, revision, store_uuid
from dagster_retl.store.notices import Notices
from dagster_retl.store.purging import Purging
from dagster_retl.store.rearmed_keys import RearmedKeys
from dagster_retl.store.replays import Replays
from dagster_retl.store.row_history import RowHistory
from dagster_retl.store.runs import Runs
from dagster_retl.store.schema import acceptances, dead_letters, rearmed_keys, row_history, suspects
from dagster_retl.store.snapshots import Snapshots
from dagster_retl.store.states import SyncStates
from dagster_retl.store.stored_syncs import StoredSyncs
from dagster_retl.store.suspects import Suspects
from dagster_retl.store.whole_runs import WholeRuns


class Store:
    """An open store, safe to share between threads; processes open their own.

    uuid: the store's own name, part of every generation's name. url_display: its URL without
    password and parameters.
    """

    def __init__(self, database: Database, uuid: str) -> None:
        self._db = database
        self.uuid = uuid
        self.url_display = database.display
        self.audit = Audit(database)
        self.leases = Leases(database)
        self.runs = Runs(database)
        self.whole_runs = WholeRuns(database)
        self.ledger = Ledger(database)
        self.dead_letters = DeadLetters(database, self.audit)
        self.suspects = Suspects(database)
        self.acceptances = Acceptances(database)
        self.rearmed = RearmedKeys(database)
        self.replays = Replays(database)
        self.snapshots = Snapshots(database)
        self.history = RowHistory(database)
        self.keys = KeyRecords(database)
        self.expiry = Expiry(database)
        self.mentions = Mentions(database)
        self.states = SyncStates(database, self.audit)
        self.syncs = StoredSyncs(database, self.audit)
        self.file_syncs = FileSyncs(database)
        self.api_keys = ApiKeys(database, self.audit)
        self.idempotency = IdempotencyKeys(database)
        self.purging = Purging(database, self.audit)
        self.notices = Notices(database)
        self.health = Health(database)
        self.budgets = Budgets(database)
        # Drivers complain about connections that nobody closed: whoever forgets close() has it done.
        self._finalizer = weakref.finalize(self, database.close)

    @classmethod
    def open(cls, url: str, *, upgrade: bool | None = None) -> Store:
        """Open the store at a SQLAlchemy URL (`sqlite:///path`, `postgresql://…`), creating an empty one.

        upgrade: what to do about an older store; None: upgrade SQLite, refuse Postgres. Raises
        `ConfigurationError` for a URL that cannot be a store's, `StoreError` for a store that is
        older, newer or cannot be reached.
        """
        database = Database(url)
        try:
            database.prepare()
            with database.reachable():
                ensure_schema(database, upgrade=upgrade)
                with database.read() as conn:
                    return cls(database, store_uuid(conn))
        except BaseException:
            database.close()
            raise

    @property
    def engine(self) -> Engine:
        """For reading; writes go through `begin` and `fenced`."""
        return self._db.engine

    def upgrade(self) -> str:
        """Bring the tables to this version's revision and return it."""
        ensure_schema(self._db, upgrade=True)
        return self.revision()

    def revision(self) -> str:
        """The revision of the store's tables."""
        with self._db.read() as conn:
            return str(revision(conn))

    def now(self, conn: Connection | None = None) -> datetime:
        """The store's clock, UTC: the server's on Postgres, the host's on SQLite."""
        return self._db.now(conn)

    def begin(self) -> AbstractContextManager[Connection]:
        """A write transaction: committed at the end of the block, rolled back when it raises."""
        return self._db.begin()

    @contextmanager
    def fenced(self, lease: Lease) -> Iterator[Connection]:
        """A write transaction of the holder of a lease. Raises `LeaseLostError` before anything is written."""
        with self._db.begin() as conn:
            self.leases.fence(conn, lease)
            yield conn

    def move_epoch(self, conn: Connection, sync_id: str, old: str, new: str) -> None:
        """Give what belongs to an epoch of a sync, its snapshot aside, to another epoch: it is the same data."""
        for table in (suspects, acceptances, dead_letters, rearmed_keys, row_history):
            mine = (table.c.sync_id == sync_id) & (table.c.epoch == old)
            conn.execute(update(table).where(mine).values(epoch=new))

    def compact(self) -> bool:
        """Leave no trace of deleted rows in the database's files. False: somebody read it for too long."""
        return self._db.compact()

    def close(self) -> None:
        """Close the connections."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
