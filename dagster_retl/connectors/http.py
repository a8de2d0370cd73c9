"""Custom HTTP destinations: a service of one's own that takes JSON.

The API is whatever the settings describe (`http_config.HttpConfig`); limits are the defaults of
`spec` unless configured. How an answer matches rows: 2xx without errors in the body means all
written; errors at `results.errors_path` fail just the rows they name, by index or by key; one
that names no row, and any 4xx about the request as a whole, refuses the batch, which the engine
bisects down to the row. Where each row has an entry at `results.rows_path`, one without has no
answer. A 2xx that cannot be read is never taken for success.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import httpx

from dagster_retl.connectors.base import Connector, ConnectorConfig, ConnectorSpec, Exchange
from dagster_retl.connectors.http_addresses import AddressGuard
from dagster_retl.connectors.http_auth import build_auth, secrets_of
from dagster_retl.connectors.http_body import encode
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.connectors.http_requests import RequestBuilder
from dagster_retl.connectors.http_results import read_results
from dagster_retl.connectors.http_words import Wording, vendor_words
from dagster_retl.connectors.refusals import result_of_only_row
from dagster_retl.errors import DestinationError
from dagster_retl.model.rows import Account, Batch, FieldInfo, ObjectInfo, Operation, RowResult

_SENSITIVE_NAMES = ("auth", "cookie", "key", "password", "secret", "signature", "token")


class HttpConnector(Connector):
    """A service of one's own over HTTP."""

    spec: ClassVar[ConnectorSpec] = ConnectorSpec(
        name="http",
        title="Custom HTTP service",
        modes=frozenset({"upsert", "insert", "update", "delete", "mirror"}),
        batch_rows=100,
        batch_bytes=1_000_000,
        concurrency=8,
        discoverable=True,
        matching="By number, key or position, as `results` says; without it, a status of 2xx speaks for all rows.",
    )
    Config: ClassVar[type[ConnectorConfig]] = HttpConfig
    config: HttpConfig

    def __init__(self, config: HttpConfig) -> None:
        super().__init__(config)
        self._guard = AddressGuard()
        self._auth = build_auth(config.auth, self.allow)
        self._requests = RequestBuilder(config, self.spec)
        self._wording = Wording(self._secrets)

    @property
    def batch_rows(self) -> int:
        return 1 if self.config.one_by_one else super().batch_rows

    def batch_rows_for(self, operation: Operation) -> int:
        return 1 if self._requests.one_by_one(operation) else super().batch_rows

    @property
    def frame_bytes(self) -> int:
        return len(encode("envelope", [], self.config.envelope_key)) if self.config.envelope_key else 2

    @property
    def atomic_rejection(self) -> bool:
        return self.config.atomic_rejection

    def supports(self, mode: str) -> str | None:
        if mode not in self.spec.modes:
            return super().supports(mode)
        operations = ("upsert", "delete") if mode == "mirror" else (mode,)
        return next(filter(None, (self._requests.objection(Operation(name)) for name in operations)), None)

    def identity(self) -> str:
        return self.config.template.origin.netloc.decode()

    def idempotent(self, operation: Operation) -> bool:
        """An idempotency key of many rows says nothing of them once they are cut into other requests."""
        keyed = self.config.idempotency_header is not None and self._requests.one_by_one(operation)
        return operation is not Operation.INSERT or keyed

    def auth(self) -> httpx.Auth | None:
        return self._auth

    def allow(self, url: httpx.URL) -> None:
        self._guard.require_allowed(url)

    def check(self) -> Exchange[Account]:
        """The host; with `check_url`, after it accepted the credentials."""
        if self.config.check_url:
            response = yield self._requests.get(self.config.check_url)
            self.require_success(response)
        return Account(self.identity(), self.identity())

    def objects(self) -> Exchange[list[ObjectInfo]]:
        """The configured objects; empty means that nobody can tell."""
        yield from ()
        return [ObjectInfo(name, name, supports_upsert=self.supports("upsert") is None) for name in self.config.objects]

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        """The configured catalogue, the same for every object; empty means that nobody can tell."""
        yield from ()
        return [field.info() for field in self.config.fields]

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        return vendor_words(response, self._wording)

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        if batch.rows and not self._requests.one_by_one(batch.operation):
            return (yield from self._exchange(batch))
        results: list[RowResult] = []
        for row in batch.rows:
            results += yield from self._exchange(replace(batch, rows=[row], idempotency_key=row.idempotency_key))
        return results

    def _exchange(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        try:
            response = yield self._requests.build(batch)
            results = self.config.results if self._requests.has_body(batch.operation) else None
            return read_results(batch, self.require_success(response), results, self._wording)
        except DestinationError as error:
            return [result_of_only_row(batch, error)]

    def _secrets(self) -> Iterator[str]:
        """What no message may show: credentials, and what addresses carry in their query."""
        yield from secrets_of(self.config.auth, self._auth)
        if self.config.signing_secret:
            yield self.config.signing_secret.get_secret_value()
        for name, value in self.config.headers.items():
            if any(word in name.lower() for word in _SENSITIVE_NAMES):
                yield value.get_secret_value()
        for address in (self.config.url, self.config.check_url, self.config.delete and self.config.delete.url):
            yield from (value for value in httpx.URL(address or "").params.values() if len(value) >= 8)
