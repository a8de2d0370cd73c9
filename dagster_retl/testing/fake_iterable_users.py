"""Users of a fake Iterable, as its project knows them: by e-mail address, by user id, or by both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dagster_retl.testing.fake_iterable_fields import Fields, merged, without
from dagster_retl.testing.fake_iterable_rules import IterableRules, refused

_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_USER_ID = re.compile(r"[\x20-\x7e]{0,51}[\x21-\x7e]")


@dataclass
class User:
    """A profile. A user without address, in a project that wants one, has a placeholder."""

    email: str | None
    user_id: str | None
    data: dict[str, Any] = field(default_factory=dict)
    lists: set[int] = field(default_factory=set)

    @property
    def names(self) -> dict[str, str]:
        return {name: text for name, text in (("email", self.email), ("userId", self.user_id)) if text is not None}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a user was not written. kind: of the list that names it, such as `invalid`; named_by, value: its name."""

    kind: str
    named_by: str
    value: Any
    types: Mapping[str, tuple[Any, str, str]] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The list that names it."""
        return self.kind + {"email": "Emails", "userId": "UserIds"}[self.named_by]


class Users:
    """All users of a project. forgotten: names of users who are not to be written any more, as they compare."""

    def __init__(self, rules: IterableRules) -> None:
        self.rules = rules
        self.all: list[User] = []
        self.fields = Fields({"email": "string", "userId": "string", "signupDate": "date"})
        self.forgotten: set[str] = set()

    def find(self, name_field: str, value: Any) -> list[User]:
        """The users of that name; several where the project does not keep user ids apart."""
        wanted = _compared(name_field, value)
        return [each for each in self.all if _compared(name_field, each.names.get(name_field)) == wanted]

    def delete(self, name_field: str, value: str) -> int:
        """Delete the users of that name; how many there were."""
        found = self.find(name_field, value)
        self.all = [each for each in self.all if each not in found]
        return len(found)

    def put(self, body: Mapping[str, Any], *, new_fields: bool | None, creates: bool = True) -> Failure | set[str]:
        """Write one user: why not, or the fields that were left out."""
        name_field, value = name_of(body)
        data = dict(body.get("dataFields") or {})
        failure = self._objection(name_field, value, data)
        if failure:
            return failure
        found = self.find(name_field, value)
        if not found and not (creates and self._may_create(name_field, body)):
            return Failure("notFound" if not creates else "invalid", name_field, value)
        allowed = self.rules.accepts_new_fields if new_fields is None else new_fields
        left_out = set() if allowed else self.fields.unknown(data)
        data = without(data, left_out)
        if not self.fields.learn(data):
            raise refused("UniqueFieldsLimitExceeded", f"A project has at most {self.fields.most} fields")
        for user in found or [self._created(name_field, value)]:
            self._update(user, data, nested=bool(body.get("mergeNestedObjects")))
        return left_out

    def _objection(self, name_field: str, value: Any, data: Mapping[str, Any]) -> Failure | None:
        for each, name in ((name_field, value), *((key, data[key]) for key in ("email", "userId") if key in data)):
            if not is_valid(each, name):
                return Failure("invalid", each, name)
        if _compared(name_field, value) in self.forgotten:
            return Failure("forgotten", name_field, value)
        for each in self._unique:
            others = self.find(each, data[each]) if each in data else []
            if any(
                _compared(name_field, other.names.get(name_field)) != _compared(name_field, value) for other in others
            ):
                return Failure("conflict", each, data[each])
        types = self.fields.mismatches(data)
        return Failure("invalidData", name_field, value, types) if types else None

    @property
    def _unique(self) -> tuple[str, ...]:
        return ("email", "userId") if self.rules.identity == "hybrid" else (self.rules.identity,)

    def _may_create(self, name_field: str, body: Mapping[str, Any]) -> bool:
        if self.rules.identity == "email":
            return name_field == "email" or bool(body.get("preferUserId"))
        return self.rules.identity == "hybrid" or name_field == "userId"

    def _created(self, name_field: str, value: str) -> User:
        user = User(value, None) if name_field == "email" else User(None, value)
        if user.email is None and self.rules.identity == "email":
            user.email = f"{value}@placeholder.email"
        self.all.append(user)
        return user

    def _update(self, user: User, data: dict[str, Any], *, nested: bool) -> None:
        user.email = data.pop("email", user.email)
        user.user_id = data.pop("userId", user.user_id)
        user.data = merged(user.data, data, nested=nested)


def name_of(body: Mapping[str, Any]) -> tuple[str, Any]:
    """The field that names a user, and its value. Refuses a request in which a user has no name, or two."""
    names = [name for name in ("email", "userId") if body.get(name) is not None]
    if len(names) != 1:
        raise refused("BadParams", "Provide an email or a userId, but not both")
    return names[0], body[names[0]]


def is_valid(name_field: str, value: Any) -> bool:
    """Whether a user can have this name."""
    return isinstance(value, str) and bool((_EMAIL if name_field == "email" else _USER_ID).fullmatch(value))


def _compared(name_field: str, value: Any) -> Any:
    return value.lower() if name_field == "email" and isinstance(value, str) else value


def bulk_answer(
    sent: int, failures: list[Failure], left_out: set[str], rules: IterableRules, **more: Any
) -> dict[str, Any]:
    """The answer to a request of many users or events."""
    named = [] if rules.vague else failures
    lists: dict[str, list[Any]] = {}
    for each in named:
        lists.setdefault(each.where, []).append(each.value)
    return {
        "successCount": sent - len(failures),
        "failCount": len(failures),
        "invalidEmails": [each.value for each in named if each.named_by == "email"],
        "invalidUserIds": [each.value for each in named if each.named_by == "userId"],
        "filteredOutFields": sorted(left_out),
        "createdFields": [],
        "failedUpdates": lists,
        **more,
    }
