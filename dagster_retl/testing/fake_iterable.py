"""A stateful Iterable for tests: it keeps users, events, lists and catalogs, and insists on its rules.

POST   /api/users/bulkUpdate, update           many users, one
GET    /api/users/getByEmail, byUserId, {email}, byUserId/{userId}
DELETE /api/users/{email}, byUserId/{userId}
GET    /api/users/getFields
POST   /api/events/trackBulk, track            many events, one
GET    /api/events/{email}
GET    /api/channels, /api/lists, /api/lists/getUsers, /api/lists/{id}/size
POST   /api/lists, /api/lists/subscribe, /api/lists/unsubscribe
GET    /api/catalogs, …/{name}/fieldMappings, …/{name}/items/{id}
POST   /api/catalogs/{name}, …/{name}/items    DELETE …/{name}/items

Its words and limits are those of https://api.iterable.com/api/docs (1.8).
"""

from __future__ import annotations

from dagster_retl.testing.fake_access import TokenBucket
from dagster_retl.testing.fake_api import Call, FakeApi
from dagster_retl.testing.fake_iterable_catalogs import Catalogs
from dagster_retl.testing.fake_iterable_events import Events
from dagster_retl.testing.fake_iterable_lists import Lists
from dagster_retl.testing.fake_iterable_rules import IterableRules, answer, mismatch, objection_to_key, refused
from dagster_retl.testing.fake_iterable_users import Failure, User, Users, bulk_answer
from dagster_retl.testing.messages import Received, Reply

__all__ = ["FakeIterable", "IterableRules", "User"]


class FakeIterable(FakeApi):
    """See the module. `users`, `events`, `lists` and `catalogs` hold what there is."""

    def __init__(self, rules: IterableRules | None = None, *, latency: float = 0.0, port: int = 0) -> None:
        super().__init__(latency=latency, port=port)
        self.users = Users(rules or IterableRules({"key": "server"}))
        self.events = Events(self.users)
        self.lists = Lists(self.users)
        self.catalogs = Catalogs()
        self.channels = [{"id": 41002, "name": "Push", "channelType": "Marketing", "messageMedium": "Push"}]
        self.channels += [{"id": 41001, "name": "News", "channelType": "Marketing", "messageMedium": "Email"}]
        self.refused_by_rate = 0
        self._buckets: dict[str, TokenBucket] = {}
        self._route_users()
        self._route_others()

    @property
    def rules(self) -> IterableRules:
        """What it insists on; others may be set at any time."""
        return self.users.rules

    @rules.setter
    def rules(self, rules: IterableRules) -> None:
        self.users.rules = rules

    def _route_users(self) -> None:
        self.route("POST", "/api/users/bulkUpdate", self._update_many)
        self.route("POST", "/api/users/update", self._update_one)
        self.route("GET", "/api/users/getFields", lambda call: Reply.json({"fields": self.users.fields.types}))
        self.route("GET", "/api/users/getByEmail", lambda call: self._get("email", call.query.get("email", "")))
        self.route("GET", "/api/users/byUserId", lambda call: self._get("userId", call.query.get("userId", "")))
        self.route("GET", "/api/users/byUserId/{name}", lambda call: self._get("userId", call.parts["name"]))
        self.route("GET", "/api/users/{name}", lambda call: self._get("email", call.parts["name"]))
        self.route("DELETE", "/api/users/byUserId/{name}", lambda call: self._delete("userId", call.parts["name"]))
        self.route("DELETE", "/api/users/{name}", lambda call: self._delete("email", call.parts["name"]))

    def _route_others(self) -> None:
        self.route("POST", "/api/events/trackBulk", self.events.track_many)
        self.route("POST", "/api/events/track", self.events.track_one)
        self.route("GET", "/api/events/{email}", self.events.of_user)
        self.route("GET", "/api/channels", lambda call: Reply.json({"channels": self.channels}))
        self.route("GET", "/api/lists", self.lists.described)
        self.route("POST", "/api/lists", self.lists.create)
        self.route("POST", "/api/lists/subscribe", self.lists.subscribe)
        self.route("POST", "/api/lists/unsubscribe", self.lists.unsubscribe)
        self.route("GET", "/api/lists/getUsers", self.lists.members_as_text)
        self.route("GET", "/api/lists/{id}/size", self.lists.size)
        self.route("GET", "/api/catalogs", self.catalogs.names)
        self.route("POST", "/api/catalogs/{catalog}", self.catalogs.create)
        self.route("GET", "/api/catalogs/{catalog}/fieldMappings", self.catalogs.field_mappings)
        self.route("POST", "/api/catalogs/{catalog}/items", self.catalogs.put_items)
        self.route("DELETE", "/api/catalogs/{catalog}/items", self.catalogs.delete_items)
        self.route("GET", "/api/catalogs/{catalog}/items/{item}", self.catalogs.get_item)

    def admit(self, request: Received) -> Reply | None:
        rate = self.rules.rates.get(request.path)
        if rate is not None and not self._buckets.setdefault(request.path, TokenBucket(1)).take(rate, 1):
            self.refused_by_rate += 1
            return answer("RateLimitExceeded", "Rate limit exceeded", 429)
        objection = objection_to_key(self.rules, request)
        if objection is None and len(request.body) > self.rules.max_bytes:
            return answer("BatchTooLarge", "Request body is too large", 413)
        return objection or _objection_to_body(request)

    def lost(self, request: Received) -> Reply:
        return answer("NotFound", f"{request.method} {request.path}", 404)

    def _update_many(self, call: Call) -> Reply:
        body = call.json()
        failures, left_out = [], set()
        for user in body.get("users", []):
            became = self.users.put(user, new_fields=body.get("createNewFields"))
            if not isinstance(became, Failure):
                left_out |= became
            elif became.types and self.rules.mismatches == "request":
                raise mismatch(became.types, "user")
            else:
                failures.append(became)
        return Reply.json(bulk_answer(len(body.get("users", [])), failures, left_out, self.rules))

    def _update_one(self, call: Call) -> Reply:
        body = call.json()
        became = self.users.put(body, new_fields=body.get("createNewFields"))
        if isinstance(became, Failure):
            raise mismatch(became.types, "user") if became.types else _refusal(became)
        return answer("Success")

    def _get(self, field: str, name: str) -> Reply:
        if field == "email" and "@" not in name:
            raise refused("InvalidEmailAddressError", f"Invalid email: {name}")
        found = self.users.find(field, name)
        if not found:
            return Reply.json({})
        (user, *_) = found
        data = {**user.data, **user.names, "emailListIds": sorted(user.lists)}
        return Reply.json({"user": {"email": user.email, **user.names, "dataFields": data}})

    def _delete(self, field: str, name: str) -> Reply:
        if not self.users.delete(field, name):
            raise refused("UnknownEmailError" if field == "email" else "UnknownUserIdError", f"No user {name}")
        return answer("Success")


def _objection_to_body(request: Received) -> Reply | None:
    if not request.body:
        return None
    try:
        good = isinstance(request.json(), dict)
    except ValueError:
        good = False
    return None if good else answer("BadJsonBody", "The body is not a JSON object", 400)


def _refusal(failure: Failure) -> Exception:
    """How one user is refused, where many would be named in a list."""
    status = 409 if failure.kind in ("conflict", "forgotten") else 400
    email = failure.named_by == "email"
    code = {
        "invalid": "InvalidEmailAddressError" if email else "InvalidUserIdError",
        "conflict": "EmailAlreadyExists" if email else "UserIdAlreadyExists",
        "forgotten": "ForgottenUserError",
    }[failure.kind]
    return refused(code, f"{failure.kind} {failure.named_by}: {failure.value}", status)
