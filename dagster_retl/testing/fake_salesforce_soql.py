"""The part of SOQL that finding records by a field needs, for a fake Salesforce org.

SELECT field, parent.field FROM object [WHERE field = literal | field IN (literal, …)] [AND …] [LIMIT n]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dagster_retl.testing.fake_salesforce_org import FakeOrg, Record
from dagster_retl.testing.fake_salesforce_schema import NUMBERS, TEXTS, FakeField, FakeObject
from dagster_retl.testing.fake_salesforce_values import RequestRefusedError, same, shown

_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<word>[\w.+:-]+)|(?P<mark>[,()=]))", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b"}


def run_query(org: FakeOrg, soql: str) -> list[dict[str, Any]]:
    """What a query finds, in the order in which records were made. Raises `RequestRefusedError`."""
    return _Query(org, soql).run()


class _Query:
    def __init__(self, org: FakeOrg, soql: str) -> None:
        self._org = org
        self._tokens = list(_tokens(soql))
        self._at = 0

    def run(self) -> list[dict[str, Any]]:
        self._expect("select")
        paths = list(self._list())
        self._expect("from")
        name = self._next()
        if name.lower() not in self._org.schema:
            message = f"\nFROM {name}\n^\nERROR at Row:1:Column:1\nsObject type '{name}' is not supported."
            raise RequestRefusedError(400, "INVALID_TYPE", message)
        kind = self._org.object(name)
        records = list(self._org.records[kind.name].values())
        if self._has("where"):
            records = self._filter(kind, records)
        most = int(self._next()) if self._has("limit") else len(records)
        if self._at < len(self._tokens):
            raise _malformed(self._tokens[self._at])
        return [self._select(kind, record, paths) for record in records[:most]]

    def _filter(self, kind: FakeObject, records: list[Record]) -> list[Record]:
        while True:
            field = _field(kind, self._next())
            if self._has("in"):
                self._expect("(")
                values = [_value(field, token) for token in self._list()]
                self._expect(")")
            else:
                self._expect("=")
                values = [_value(field, self._next())]
            records = [each for each in records if any(same(field, each.get(field.name), value) for value in values)]
            if not self._has("and"):
                return records

    def _select(self, kind: FakeObject, record: Record, paths: list[str]) -> dict[str, Any]:
        url = f"/services/data/v62.0/sobjects/{kind.name}/{record['Id']}"
        selected: dict[str, Any] = {"attributes": {"type": kind.name, "url": url}}
        for path in paths:
            relationship, dot, rest = path.rpartition(".")
            if not dot:
                field = _field(kind, path)
                selected[field.name] = shown(field, record.get(field.name))
                continue
            reference = kind.parent_field(relationship)
            if reference is None:
                raise _no_column(relationship, kind)
            parent_kind = self._org.object(str(reference.parent))
            parent = self._org.get(parent_kind, str(record.get(reference.name)))
            known = selected.get(str(reference.relationship)) or {}
            selected[str(reference.relationship)] = (
                None if parent is None else {**known, **self._select(parent_kind, parent, [rest])}
            )
        return selected

    def _list(self) -> Iterator[str]:
        yield self._next()
        while self._has(","):
            yield self._next()

    def _has(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at].lower() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._has(token):
            raise _malformed(self._tokens[self._at] if self._at < len(self._tokens) else "<EOF>")

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise _malformed("<EOF>")
        self._at += 1
        return self._tokens[self._at - 1]


def _tokens(soql: str) -> Iterator[str]:
    at = 0
    soql = soql.rstrip()
    while at < len(soql):
        match = _TOKEN.match(soql, at)
        if match is None:
            raise _malformed(soql[at])
        yield match["text"] or match["word"] or match["mark"]
        at = match.end()


def _field(kind: FakeObject, name: str) -> FakeField:
    field = kind.field(name)
    if field is None:
        raise _no_column(name, kind)
    return field


def _no_column(name: str, kind: FakeObject) -> RequestRefusedError:
    message = f"\nSELECT …\n^\nERROR at Row:1:Column:8\nNo such column '{name}' on entity '{kind.name}'."
    return RequestRefusedError(400, "INVALID_FIELD", message)


def _value(field: FakeField, token: str) -> Any:
    """A literal, of the field's type: text in quotation marks, everything else without."""
    quoted = token.startswith("'")
    if quoted != (field.kind in TEXTS):
        marks = "should be enclosed in quotes" if field.kind in TEXTS else "should not be enclosed in quotes"
        message = f"value of filter criterion for field '{field.name}' must be of type {field.kind} and {marks}"
        raise RequestRefusedError(400, "INVALID_FIELD", message)
    if not quoted:
        return token if field.kind in NUMBERS else {"true": True, "false": False}.get(token.lower(), token)
    text = _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), token[1:-1])
    if field.kind in ("id", "reference") and len(text) not in (15, 18):
        raise RequestRefusedError(400, "INVALID_QUERY_FILTER_OPERATOR", f"invalid ID field: {text}")
    return text


def _malformed(token: str) -> RequestRefusedError:
    return RequestRefusedError(400, "MALFORMED_QUERY", f"unexpected token: '{token}'")
