"""A stateful Acme for tests: it keeps people, and insists on Acme's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagster_retl.testing import Call, FakeApi, Received, RefusedError, Reply

MOST_PEOPLE = 50


def _refused(code: str, message: str, status: int) -> RefusedError:
    return RefusedError(Reply.json({"error": {"code": code, "message": message}}, status))


class FakeAcme(FakeApi):
    """`people` is what it holds, by id."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token
        self.people: dict[str, dict[str, Any]] = {}
        self.route("GET", "/v2/me", lambda call: Reply.json({"account": {"id": "acc-7", "name": "Acme Shop"}}))
        self.route("GET", "/v2/schema/people", self._schema)
        self.route("POST", "/v2/people/upsert", lambda call: self._each(call, "people", self._put))
        self.route("POST", "/v2/people/update", lambda call: self._each(call, "people", self._change))
        self.route("POST", "/v2/people/delete", lambda call: self._each(call, "ids", self._delete))

    def admit(self, request: Received) -> Reply | None:
        if request.headers.get("authorization") == f"Bearer {self.token}":
            return None
        return _refused("unauthorized", "unknown token", 401).reply

    def _schema(self, call: Call) -> Reply:
        fields = [("id", "text", True), ("name", "text", False), ("email", "text", False)]
        return Reply.json({"fields": [{"name": name, "type": kind, "required": must} for name, kind, must in fields]})

    def _each(self, call: Call, name: str, apply: Callable[[Any], dict[str, Any]]) -> Reply:
        rows = call.json()[name]
        if len(rows) > MOST_PEOPLE:
            raise _refused("too_many", f"at most {MOST_PEOPLE}", 413)
        return Reply.json({"results": [{"index": place, **apply(row)} for place, row in enumerate(rows)]}, 207)

    def _put(self, person: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(person.get("name") or "", str):
            return {"error": {"code": "invalid", "message": "name must be text"}}
        email = person.get("email")
        if email and any(each.get("email") == email for key, each in self.people.items() if key != person["id"]):
            return {"error": {"code": "duplicate_email", "message": f"{email} belongs to somebody else"}}
        self.people[person["id"]] = {**self.people.get(person["id"], {}), **person}
        return {"id": f"p-{person['id']}"}

    def _change(self, person: dict[str, Any]) -> dict[str, Any]:
        return self._put(person) if person["id"] in self.people else self._unknown(person["id"])

    def _delete(self, key: str) -> dict[str, Any]:
        return {} if self.people.pop(key, None) else self._unknown(key)

    def _unknown(self, key: str) -> dict[str, Any]:
        return {"error": {"code": "unknown_person", "message": f"there is no {key}"}}
