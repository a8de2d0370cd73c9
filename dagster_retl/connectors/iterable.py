"""Iterable: users, custom events, members of lists and items of catalogs of a project.

API: https://api.iterable.com/api/docs (1.8), with a server-side key in `Api-Key`. Users are updated in bulk (4 MB,
5 requests a second for the project), deleted and looked up one by one (100 a second); events are tracked in bulk
(10 a second), items of catalogs put in bulk (1,000 items of 30 KB, 100 a second). Iterable states no number of rows
for the others; 1,000 are in use. It says nothing of its limits in its answers: they are those of `rates`.

How answers match rows: a bulk answer of 2xx counts users or events that failed and names them in lists, by e-mail
address or user id, without an order; each list has its code (`iterable_words`). Where the counts do not fit the rows
that are named, the request is halved, down to the row. So is a request that is refused as a whole, for a field of
another type for example. Catalogs answer before they look at the items: these are unconfirmed. Fields that Iterable
left out, because the project does not have them, are a warning of each row that has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx

from dagster_retl.connectors.base import Connector, ConnectorConfig, ConnectorSpec, Exchange
from dagster_retl.connectors.http_auth import StaticHeaderAuth
from dagster_retl.connectors.http_words import Wording, vendor_words
from dagster_retl.connectors.iterable_check import find_account
from dagster_retl.connectors.iterable_config import IterableConfig
from dagster_retl.connectors.iterable_fields import find_fields, find_objects
from dagster_retl.connectors.iterable_objects import Kind, target_of
from dagster_retl.connectors.iterable_reading import chosen, read_record
from dagster_retl.connectors.iterable_requests import rate_of
from dagster_retl.connectors.iterable_words import VENDOR_CODES, meaning
from dagster_retl.connectors.iterable_writing import Writer
from dagster_retl.connectors.limits import LimitState
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Account, Batch, FieldInfo, KeyForm, ObjectInfo, Operation, RowResult, WireForm

_ROWS_ONE_BY_ONE = 100
"""Rows of a batch whose rows are a request each: what is sent again when the connection breaks in between."""
_FRAME = 100
"""Bytes around the fields of a row."""


class IterableConnector(Connector):
    """A project in Iterable."""

    spec: ClassVar[ConnectorSpec] = ConnectorSpec(
        name="iterable",
        title="Iterable",
        modes=frozenset({"upsert", "insert", "update", "delete", "mirror"}),
        batch_rows=1000,
        batch_bytes=4_000_000,
        concurrency=4,
        discoverable=True,
        wire_form=WireForm(timestamp="spaced"),
        matching="By e-mail address or user id: answers name the users that failed, in a list for each reason.",
        vendor_codes=VENDOR_CODES,
        documentation="https://api.iterable.com/api/docs",
    )
    Config: ClassVar[type[ConnectorConfig]] = IterableConfig
    config: IterableConfig

    def __init__(self, config: IterableConfig) -> None:
        super().__init__(config)
        self._wording = Wording(lambda: [config.api_key.get_secret_value()])
        self._writer = Writer(config, self.require_success, self.batch_bytes)

    @property
    def batch_rows(self) -> int:
        return min(super().batch_rows, _ROWS_ONE_BY_ONE) if self.config.one_by_one else super().batch_rows

    def batch_rows_for(self, operation: Operation) -> int:
        """Users are deleted, and looked up before an update, in a request each."""
        one_by_one = operation in (Operation.DELETE, Operation.UPDATE)
        return min(self.batch_rows, _ROWS_ONE_BY_ONE) if one_by_one else self.batch_rows

    @property
    def frame_bytes(self) -> int:
        return min(_FRAME * self.batch_rows, self.batch_bytes // 10)

    def identity(self) -> str:
        return httpx.URL(self.config.base_url or "").netloc.decode()

    def key_form(self, object_name: str) -> KeyForm:
        """E-mail addresses are compared without case; user ids, event ids and ids of items with it."""
        return KeyForm(ignore_case=target_of(object_name).holds_users and self.config.identify_by == "email")

    def idempotent(self, operation: Operation) -> bool:
        """Users, members and items are put; an event that has an id already is that event."""
        return True

    def auth(self) -> httpx.Auth:
        return StaticHeaderAuth("Api-Key", self.config.api_key.get_secret_value())

    def check(self) -> Exchange[Account]:
        return (yield from find_account(self.config, self.require_success))

    def objects(self) -> Exchange[list[ObjectInfo]]:
        return (yield from find_objects(self.require_success))

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        return (yield from find_fields(target_of(object_name), self.config.identify_by, self.require_success))

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        return (yield from self._writer.write(batch)) if batch.rows else []

    def can_read(self, object_name: str) -> bool:
        """Iterable tells no single events."""
        return object_name != Kind.EVENTS

    def read(self, batch: Batch, fields: Sequence[str]) -> Exchange[Mapping[str, Mapping[str, Any]]]:
        target = target_of(batch.object_name)
        found: dict[str, Mapping[str, Any]] = {}
        for row in batch.rows:
            record = yield from read_record(row, target, self.config, self.require_success)
            if record is not None:
                found[row.key] = chosen(record, fields)
        return found

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        return vendor_words(response, self._wording)

    def limits(self, response: httpx.Response) -> LimitState | None:
        """Iterable publishes a rate for each endpoint, and does not repeat it in its answers."""
        request = response.request
        rate = rate_of(request.method, request.url.path, self.config.rates)
        published = None if rate is None else LimitState(limit=max(1, round(rate * 60)), window=60.0)
        return super().limits(response) or published

    def require_success(self, response: httpx.Response) -> httpx.Response:
        try:
            return super().require_success(response)
        except DestinationError as error:
            code = meaning(response.status_code, error.vendor_code, error.code)
            ambiguous = error.ambiguous or code is ErrorCode.DESTINATION_UNAVAILABLE
            raise DestinationError(
                error.message, code=code, vendor_code=error.vendor_code, ambiguous=ambiguous, hint=error.hint
            ) from error
