"""The demo's CRM: a small HTTP service on this machine that insists on its rules.

    GET  /v1/ping               200 for those who may come in
    GET  /v1/{object}           how many records there are, and the first of them (`?limit=`)
    POST /v1/{object}           up to 200 records, created or replaced by `external_id`
    POST /v1/{object}/delete    up to 200 `external_id`s

A request is answered 200, or 207 with `errors`: each has the `index` of a record that was refused,
a `code` and a `message`. Records are kept in a SQLite file, so that the CRM of yesterday still
holds what was sent yesterday.
"""

from __future__ import annotations

import hmac
import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from dagster_retl.testing.server import LoopbackServer, Received, Reply

MAX_ROWS = 200
NAME_LENGTH = 60

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_SHOWN = 10
_SHOWN_MOST = 1_000

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record is not taken."""

    code: str
    message: str


def objection(record: Any) -> Refusal | None:
    """What the CRM has against a record, looked at by itself."""
    if not isinstance(record, dict) or record.get("external_id") in (None, ""):
        return Refusal("MISSING_EXTERNAL_ID", "a record needs an external_id")
    name = record.get("name")
    if not isinstance(name, str) or not name.strip():
        return Refusal("REQUIRED", "name is required")
    if len(name) > NAME_LENGTH:
        return Refusal("TOO_LONG", f"name has {len(name)} characters, at most {NAME_LENGTH} are allowed")
    email = record.get("email")
    if email is not None and not (isinstance(email, str) and _EMAIL.fullmatch(email)):
        return Refusal("INVALID_EMAIL", f"email {email!r} is not an e-mail address")
    return None


class Crm(LoopbackServer):
    """The service; a context manager. `path`: the SQLite file that holds its records.

    port: 0 takes a free one. token: the bearer token that lets people in.
    """

    def __init__(self, path: Path, *, token: str, port: int = 0) -> None:
        super().__init__(record=False, port=port)
        self._token = token
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS records"
            " (object TEXT, external_id TEXT, record TEXT NOT NULL, PRIMARY KEY (object, external_id))"
        )

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._database.close()

    def records(self, object_name: str) -> dict[str, Record]:
        """What the CRM holds: external id → record. Numbers with a fraction are text, digit by digit."""
        query = "SELECT external_id, record FROM records WHERE object = ? ORDER BY 1"
        with self._lock:
            return {key: json.loads(record) for key, record in self._database.execute(query, (object_name,))}

    def handle(self, request: Received) -> Reply:
        if not self._admits(request):
            return _refusal(401, "UNAUTHORIZED", "a bearer token that this CRM knows is needed")
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["v1", "ping"]:
                return Reply.json({"account": "demo"})
            case "GET", ["v1", name]:
                return self._show(name, request.query)
            case "POST", ["v1", name]:
                return self._take(request, name, delete=False)
            case "POST", ["v1", name, "delete"]:
                return self._take(request, name, delete=True)
        return _refusal(404, "NOT_FOUND", f"there is no {request.method} {request.path}")

    def _admits(self, request: Received) -> bool:
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode())

    def _show(self, name: str, query: str) -> Reply:
        asked = parse_qs(query).get("limit", [str(_SHOWN)])[0]
        if not asked.isdecimal():
            return _refusal(400, "BAD_LIMIT", f"limit {asked!r} is not a number")
        records = self.records(name)
        return Reply.json({"count": len(records), "records": list(records.values())[: min(int(asked), _SHOWN_MOST)]})

    def _take(self, request: Received, name: str, *, delete: bool) -> Reply:
        try:
            rows = json.loads(request.body, parse_float=str)
        except ValueError:
            return _refusal(400, "BAD_JSON", "the body is not JSON")
        if not isinstance(rows, list) or len(rows) > MAX_ROWS:
            return _refusal(413, "TOO_MANY_ROWS", f"the body is a list of at most {MAX_ROWS} records")
        with self._lock, self._database:
            errors = list(self._delete(name, rows) if delete else self._upsert(name, rows))
        accepted = len(rows) - len(errors)
        return Reply.json({"accepted": accepted, "errors": errors}, 207 if errors else 200)

    def _upsert(self, name: str, rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        for index, row in enumerate(rows):
            refusal = objection(row)
            if refusal is None and _id_of(row) in seen:
                refusal = Refusal("DUPLICATE_ID", f"external_id {_id_of(row)} is in this request twice")
            if refusal is not None:
                yield {"index": index, "code": refusal.code, "message": refusal.message}
                continue
            seen.add(_id_of(row))
            self._store(name, row)

    def _store(self, name: str, row: Mapping[str, Any]) -> None:
        self._database.execute(
            "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET record = excluded.record",
            (name, _id_of(row), json.dumps(row, ensure_ascii=False)),
        )

    def _delete(self, name: str, rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for index, row in enumerate(rows):
            known = isinstance(row, dict) and "external_id" in row
            found = known and self._remove(name, _id_of(row))
            if not found:
                yield {"index": index, "code": "NOT_FOUND", "message": "there is no such record"}

    def _remove(self, name: str, external_id: str) -> bool:
        query = "DELETE FROM records WHERE object = ? AND external_id = ?"
        return self._database.execute(query, (name, external_id)).rowcount > 0


def _id_of(row: Mapping[str, Any]) -> str:
    return str(row["external_id"])


def _refusal(status: int, code: str, message: str) -> Reply:
    return Reply.json({"error": {"code": code, "message": message}}, status)
