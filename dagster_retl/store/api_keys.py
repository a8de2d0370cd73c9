"""Keys of the API: made once, kept as a digest, limited in what they may do, revoked for good.

A key is `retl_key_<id>_<secret>`. The secret has 256 random bits, so that a plain SHA-256 keeps it safe.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import insert, select, update

from dagster_retl.errors import ConfigurationError, NotFoundError
from dagster_retl.model.ids import KEY_PREFIX, new_id
from dagster_retl.store.audit import Audit
from dagster_retl.store.clock import from_text, maybe_time, to_text
from dagster_retl.store.database import Database
from dagster_retl.store.schema_syncs import api_keys

_KEY = re.compile(rf"({KEY_PREFIX}[0-9a-z]{{26}})_([A-Za-z0-9_-]{{43}})")
_NO_DIGEST = hashlib.sha256(b"").hexdigest()


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    """Look at everything."""
    WRITE = "write"
    """Create, change, toggle and delete syncs; resolve dead letters."""
    RUN = "run"
    """Start, cancel and plan runs."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `destinations`: the only ones that it may reach; None: all."""

    id: str
    name: str
    scopes: frozenset[Scope]
    destinations: frozenset[str] | None
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None

    def reaches(self, destination_id: str | None) -> bool:
        """Whether it may see what goes to this destination; None: one that nobody knows any more."""
        return self.destinations is None or destination_id in self.destinations


class ApiKeys:
    """All keys of the store. Making and revoking are audited."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._db = database
        self._audit = audit

    def create(
        self, name: str, scopes: Collection[Scope], actor: str, *, destinations: Collection[str] | None = None
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which nobody can read again. Raises `ConfigurationError` without scopes."""
        if not scopes:
            raise ConfigurationError("a key needs a scope", hint="Scopes are read, write and run.")
        key_id, secret = new_id(KEY_PREFIX), secrets.token_urlsafe(32)
        with self._db.begin() as conn:
            row = {
                "id": key_id,
                "name": name,
                "digest": _digest(secret),
                "scopes": _json(sorted(scopes)),
                "destinations": None if destinations is None else _json(sorted(destinations)),
                "created_at": to_text(self._db.now(conn)),
                "created_by": actor,
            }
            conn.execute(insert(api_keys).values(row))
            self._audit.add(conn, actor, "key.create", key_id, f"{name}: {', '.join(sorted(scopes))}")
        return self.get(key_id), f"{key_id}_{secret}"

    def get(self, key_id: str) -> ApiKey:
        """Raises `NotFoundError`."""
        with self._db.read() as conn:
            row = conn.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no key {key_id}", hint="`retl keys list` shows the keys.")
        return _key(row)

    def list(self) -> list[ApiKey]:
        """All keys, newest first, revoked ones too."""
        with self._db.read() as conn:
            query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
            return [_key(row) for row in conn.execute(query)]

    def revoke(self, key_id: str, actor: str) -> ApiKey:
        """Let a key do nothing more. One that is revoked keeps its time. Raises `NotFoundError`."""
        self.get(key_id)
        mine = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
        with self._db.begin() as conn:
            now = to_text(self._db.now(conn))
            if conn.execute(update(api_keys).where(mine).values(revoked_at=now)).rowcount:
                self._audit.add(conn, actor, "key.revoke", key_id)
        return self.get(key_id)

    def authenticate(self, text: str) -> ApiKey | None:
        """The key that this is the text of; None: there is no such key, or it was revoked.

        Takes as long whichever part of the secret is wrong.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        with self._db.read() as conn:
            row = conn.execute(select(api_keys).where(api_keys.c.id == match.group(1))).one_or_none()
        known = _NO_DIGEST if row is None else row.digest
        matches = hmac.compare_digest(known, _digest(match.group(2)))
        return _key(row) if matches and row is not None and row.revoked_at is None else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Scope, orjson.loads(row.scopes))),
        destinations=None if row.destinations is None else frozenset(orjson.loads(row.destinations)),
        created_at=from_text(row.created_at),
        created_by=row.created_by,
        revoked_at=maybe_time(row.revoked_at),
    )
