"""Lists of a fake Iterable: static ones take members, those of other types do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_retl.testing.fake_api import Call
from dagster_retl.testing.fake_iterable_rules import refused
from dagster_retl.testing.fake_iterable_users import Failure, User, Users, bulk_answer, is_valid, name_of
from dagster_retl.testing.messages import Reply


@dataclass
class List:
    """A list of the project."""

    name: str
    kind: str = "Standard"


class Lists:
    """All lists of a project, by id. Users know of which they are members."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self.all: dict[int, List] = {}

    def described(self, call: Call) -> Reply:
        lists = [
            {"id": number, "name": each.name, "createdAt": 1_700_000_000_000, "listType": each.kind}
            for number, each in self.all.items()
        ]
        return Reply.json({"lists": lists})

    def create(self, call: Call) -> Reply:
        number = max(self.all, default=9_000_000) + 1
        self.all[number] = List(call.json()["name"])
        return Reply.json({"listId": number})

    def members(self, number: int) -> list[User]:
        """Who is in a list."""
        return [user for user in self._users.all if number in user.lists]

    def members_as_text(self, call: Call) -> Reply:
        names = [user.email or user.user_id or "" for user in self.members(int(call.query["listId"]))]
        return Reply(200, "".join(f"{name}\n" for name in names).encode(), {"Content-Type": "text/plain"})

    def size(self, call: Call) -> Reply:
        return Reply(200, str(len(self.members(int(call.parts["id"])))).encode(), {"Content-Type": "text/plain"})

    def subscribe(self, call: Call) -> Reply:
        creates = not call.json().get("updateExistingUsersOnly") or self._users.rules.identity == "email"
        return self._each(call, lambda body, number: self._add(body, number, creates=creates))

    def unsubscribe(self, call: Call) -> Reply:
        return self._each(call, self._remove)

    def _each(self, call: Call, change: Callable[[Mapping[str, Any], int], Failure | set[str]]) -> Reply:
        body = call.json()
        number = body.get("listId")
        if number not in self.all or self.all[number].kind != "Standard":
            raise refused("BadParams", f"There is no static list {number}")
        outcomes = [change(each, number) for each in body.get("subscribers", [])]
        failures = [each for each in outcomes if isinstance(each, Failure)]
        left_out = {name for each in outcomes if not isinstance(each, Failure) for name in each}
        return Reply.json(bulk_answer(len(outcomes), failures, left_out, self._users.rules))

    def _add(self, body: Mapping[str, Any], number: int, *, creates: bool) -> Failure | set[str]:
        became = self._users.put(body, new_fields=None, creates=creates)
        if not isinstance(became, Failure):
            for user in self._users.find(*name_of(body)):
                user.lists.add(number)
        return became

    def _remove(self, body: Mapping[str, Any], number: int) -> Failure | set[str]:
        field, value = name_of(body)
        if not is_valid(field, value):
            return Failure("invalid", field, value)
        found = self._users.find(field, value)
        for user in found:
            user.lists.discard(number)
        return set() if found else Failure("notFound", field, value)
