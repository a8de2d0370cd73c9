"""What a fake Salesforce org answers below `/services/data/vNN.N/`: sObjects, Collections and queries.

GET sobjects, sobjects/{object}, sobjects/{object}/describe, limits, query, query/{locator}
POST sobjects/{object}; GET, PATCH and DELETE sobjects/{object}/{id} and sobjects/{object}/{field}/{value}
POST, PATCH and DELETE composite/sobjects; PATCH composite/sobjects/{object}/{field}
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote

from dagster_retl.testing.fake_salesforce_org import FakeOrg
from dagster_retl.testing.fake_salesforce_schema import FakeField, FakeObject
from dagster_retl.testing.fake_salesforce_soql import run_query
from dagster_retl.testing.fake_salesforce_values import MisfitError, RequestRefusedError, RowRefusedError
from dagster_retl.testing.messages import Received, Reply

MOST_ROWS = 200
_MOST_ADDRESS = 16_384


class FakeRest:
    """Answers requests; page_rows: records of a page of a query."""

    def __init__(self, org: FakeOrg, *, page_rows: int = 2_000) -> None:
        self._org = org
        self._page_rows = page_rows
        self._cursors: dict[str, list[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def answer(self, request: Received, version: str, path: Sequence[str]) -> Reply:
        """The answer to a request; `path` is what follows the version. Raises `RequestRefusedError`."""
        match [unquote(part) for part in path]:
            case ["sobjects", *which] if request.method == "GET" and (not which or which[1:] in ([], ["describe"])):
                return self._describe(which)
            case ["query", *locator] if request.method == "GET":
                return self._query(request, version, locator)
            case ["sobjects", name, *which] if len(which) <= 2:
                return self._single(request, self._org.object(name), which)
            case ["composite", "sobjects", *target]:
                return self._collection(request, target)
        raise RequestRefusedError(404, "NOT_FOUND", "The requested resource does not exist")

    def _describe(self, which: list[str]) -> Reply:
        if not which:
            return Reply.json({"sobjects": [kind.summary() for kind in self._org.schema.values()]})
        kind = self._org.object(which[0])
        if len(which) == 1:
            return Reply.json({"objectDescribe": kind.summary(), "recentItems": []})
        return Reply.json(kind.describe())

    def _query(self, request: Received, version: str, locator: list[str]) -> Reply:
        if len(request.path) + len(request.query) > _MOST_ADDRESS:
            return Reply(414, b"URI Too Long", {"Content-Type": "text/html"})
        cursor = locator[0] if locator else None
        records = self._cursors.pop(cursor) if cursor else run_query(self._org, parse_qs(request.query)["q"][0])
        page, rest = records[: self._page_rows], records[self._page_rows :]
        answer: dict[str, Any] = {"totalSize": len(records), "done": not rest, "records": page}
        if rest:
            cursor = f"01g{next(self._numbers):012}-{len(page)}"
            self._cursors[cursor] = rest
            answer["nextRecordsUrl"] = f"/services/data/{version}/query/{cursor}"
        return Reply.json(answer)

    # Collections

    def _collection(self, request: Received, target: list[str]) -> Reply:
        if request.method == "DELETE" and not target:
            return self._delete(request)
        rows = _rows_of(request)
        kinds = [self._org.object(str((row.get("attributes") or {}).get("type"))) for row in rows]
        for kind, row in zip(kinds, rows, strict=True):  # nothing is written of a request that cannot be read
            _in_request(partial(self._org.require_types, kind, row))
        if request.method == "PATCH" and len(target) == 2:
            return self._upsert(self._org.object(target[0]), target[1], kinds, rows)
        if target or request.method not in ("POST", "PATCH"):
            raise RequestRefusedError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed")
        write = self._org.insert if request.method == "POST" else self._update
        return Reply.json([_entry(_attempt(partial(write, kind, row))) for kind, row in zip(kinds, rows, strict=True)])

    def _update(self, kind: FakeObject, row: Mapping[str, Any]) -> str:
        named = {name.lower(): value for name, value in row.items()}
        if not named.get("id"):
            raise RowRefusedError("MISSING_ARGUMENT", "Id not specified in an update call")
        fields = {name: value for name, value in row.items() if name.lower() != "id"}
        return self._org.update(kind, str(named["id"]), fields)

    def _upsert(self, kind: FakeObject, name: str, kinds: list[FakeObject], rows: list[dict[str, Any]]) -> Reply:
        field = self._key(kind, name)
        if set(kinds) != {kind}:
            raise RequestRefusedError(400, "INVALID_TYPE", f"all records have to be of type {kind.name}")
        values = [_value_of(row, field) for row in rows]
        times = Counter(values)

        def write(row: Mapping[str, Any], value: str) -> tuple[str, bool]:
            if value and times[value] > 1:
                message = f"Duplicate external id specified: {value}"
                raise RowRefusedError("DUPLICATE_VALUE", message, (field.name,))
            return self._org.upsert(kind, field, row)

        pairs = zip(rows, values, strict=True)
        return Reply.json([_entry(_attempt(partial(write, row, value))) for row, value in pairs])

    def _delete(self, request: Received) -> Reply:
        ids = [each for each in parse_qs(request.query).get("ids", [""])[0].split(",") if each]
        _require_count(len(ids))
        return Reply.json([_entry(_attempt(partial(self._org.delete, each))) for each in ids])

    def _key(self, kind: FakeObject, name: str) -> FakeField:
        field = kind.field(name)
        if field is None or not field.identifies:
            message = f"Provided external ID field does not exist or is not accessible: {name}"
            raise RequestRefusedError(404, "NOT_FOUND", message)
        return field

    # one record

    def _single(self, request: Received, kind: FakeObject, which: list[str]) -> Reply:
        if request.method == "POST" and not which:
            made = _attempt(lambda: self._org.insert(kind, _json(request)))
            return _alone(made, lambda: Reply.json({"id": made, "success": True, "errors": []}, 201))
        if not which:
            raise RequestRefusedError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed")
        if request.method == "PATCH" and len(which) == 2:
            return self._upsert_one(kind, self._key(kind, which[0]), which[1], _json(request))
        record_id = self._id_of(kind, which)
        match request.method:
            case "GET":
                record = self._org.get(kind, record_id) or {}
                url = f"{request.path.partition('/sobjects')[0]}/sobjects/{kind.name}/{record_id}"
                return Reply.json({"attributes": {"type": kind.name, "url": url}, **self._org.show(kind, record)})
            case "PATCH":
                return _alone(_attempt(lambda: self._org.update(kind, record_id, _json(request))), lambda: Reply(204))
            case "DELETE":
                return _alone(_attempt(lambda: self._org.delete(record_id)), lambda: Reply(204))
        raise RequestRefusedError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed")

    def _id_of(self, kind: FakeObject, which: list[str]) -> str:
        if len(which) == 2:
            found = self._org.find(kind, self._key(kind, which[0]), which[1])
            if len(found) == 1:
                return str(found[0]["Id"])
        elif self._org.get(kind, which[0]) is not None:
            return which[0]
        elif which[0] in self._org.deleted:
            raise RequestRefusedError(404, "ENTITY_IS_DELETED", "entity is deleted")
        raise RequestRefusedError(404, "NOT_FOUND", "The requested resource does not exist")

    def _upsert_one(self, kind: FakeObject, field: FakeField, value: str, row: Mapping[str, Any]) -> Reply:
        found = self._org.find(kind, field, value)
        if len(found) > 1:
            urls = [f"/services/data/v62.0/sobjects/{kind.name}/{record['Id']}" for record in found]
            return Reply.json(urls, 300)
        outcome = _attempt(lambda: self._org.upsert(kind, field, {**row, field.name: value}))
        if isinstance(outcome, RowRefusedError):
            return _alone(outcome, Reply)
        record_id, created = outcome
        answer = {"id": record_id, "success": True, "errors": [], "created": created}
        return Reply.json(answer, 201 if created else 200)


def _attempt(write: Callable[[], Any]) -> Any:
    """What came of a row: what `write` returns, or its refusal."""
    try:
        return _in_request(write)
    except RowRefusedError as refusal:
        return refusal


def _in_request(write: Callable[[], Any]) -> Any:
    """What `write` returns; a value that is not of its field's type refuses the request."""
    try:
        return write()
    except MisfitError as misfit:
        kind = "START_ARRAY" if isinstance(misfit.value, list) else "VALUE_STRING"
        message = (
            f"Cannot deserialize instance of {misfit.field.kind} from {kind} value {misfit.value} "
            "or request may be missing a required field at [line:1, column:1]"
        )
        raise RequestRefusedError(400, "JSON_PARSER_ERROR", message) from misfit


def _entry(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, RowRefusedError):
        return outcome.entry()
    if isinstance(outcome, tuple):
        return {"id": outcome[0], "success": True, "errors": [], "created": outcome[1]}
    return {"id": outcome, "success": True, "errors": []}


def _alone(outcome: Any, reply: Callable[[], Reply]) -> Reply:
    """The answer about one record: there, a refusal is one of the request."""
    if not isinstance(outcome, RowRefusedError):
        return reply()
    error = {"message": outcome.message, "errorCode": outcome.code, "fields": list(outcome.fields)}
    return Reply.json([error], 400)


def _json(request: Received) -> Any:
    try:
        return json.loads(request.body, parse_float=Decimal)
    except ValueError as error:
        raise RequestRefusedError(400, "JSON_PARSER_ERROR", "Unexpected character") from error


def _rows_of(request: Received) -> list[dict[str, Any]]:
    body = _json(request)
    rows = body.get("records") if isinstance(body, dict) else None
    if not isinstance(rows, list) or body.get("allOrNone") not in (None, False):
        raise RequestRefusedError(400, "JSON_PARSER_ERROR", "this fake takes records with allOrNone=false")
    _require_count(len(rows))
    return rows


def _require_count(rows: int) -> None:
    if rows == 0:
        raise RequestRefusedError(400, "REQUIRED_FIELD_MISSING", "At least 1 record is required")
    if rows > MOST_ROWS:
        message = f"record limit reached. cannot submit more than {MOST_ROWS} records into this call"
        raise RequestRefusedError(400, "EXCEEDED_ID_LIMIT", message)


def _value_of(row: Mapping[str, Any], field: FakeField) -> str:
    """A row's external id in the form in which it is unique."""
    value = next((value for name, value in row.items() if name.lower() == field.name.lower()), None)
    text = "" if value is None else str(value)
    return text if field.case_sensitive else text.casefold()
