"""From a batch and the settings of a custom destination to the request that is sent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import httpx

from dagster_retl.connectors.base import ConnectorSpec, Request
from dagster_retl.connectors.http_body import CONTENT_TYPES, encode, key_document, signature
from dagster_retl.connectors.http_config import BodyKind, Delete, HttpConfig
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation


class RequestBuilder:
    """Builds requests; `batch_bytes` is the most that a body may hold."""

    def __init__(self, config: HttpConfig, spec: ConnectorSpec) -> None:
        self._config = config
        self._batch_bytes = config.batch_bytes or spec.batch_bytes
        self._common_headers = cache(self._common_headers_of)  # the same for thousands of requests

    def objection(self, operation: Operation) -> str | None:
        """Why the settings do not say how to do this; None when they do."""
        if operation is Operation.DELETE:
            return None if self._config.delete else "rows are deleted, and this destination has no `delete` setting"
        return None if self._method(operation) else f"`method` has no entry for {operation.value!r}"

    def one_by_one(self, operation: Operation) -> bool:
        """Whether each row is a request of its own."""
        if operation is Operation.DELETE and self._config.delete:
            return self._config.delete.one_by_one
        return self._config.one_by_one

    def has_body(self, operation: Operation) -> bool:
        """Whether rows travel in a body, so that answers speak of them; a bare DELETE says all in its status."""
        return operation is not Operation.DELETE or bool(self._config.delete and self._config.delete.body)

    def get(self, url: str) -> Request:
        """A request that changes nothing."""
        return Request("GET", url, {**self._common_headers(None), **self._signature(b"")})

    def build(self, batch: Batch) -> Request:
        """The request for a batch that is not empty.

        Raises `DestinationError`: `CONFIGURATION` for an operation without settings, `MISSING_KEY`
        for a key that addresses no record, `PAYLOAD_TOO_LARGE` for a body over `batch_bytes`.
        """
        reason = self.objection(batch.operation)
        if reason:
            raise DestinationError(reason, code=ErrorCode.CONFIGURATION)
        delete = self._config.delete if batch.operation is Operation.DELETE else None
        template = delete.template if delete else self._config.template
        content = self._content(delete, batch)
        return Request(
            method=delete.method if delete else self._method(batch.operation) or "",
            url=template.expand(batch.object_name, batch.rows[0].key_values),
            headers=self._headers_of(batch, delete.body if delete else self._config.body, content or b""),
            content=content,
            idempotent=batch.operation is not Operation.INSERT or self._config.idempotency_header is not None,
        )

    def _method(self, operation: Operation) -> str | None:
        methods = self._config.method
        if isinstance(methods, str):
            return methods
        method: str | None = getattr(methods, operation.value)
        return method

    def _content(self, delete: Delete | None, batch: Batch) -> bytes | None:
        if delete:
            if delete.body is None:
                return None
            content = encode(delete.body, [key_document(row) for row in batch.rows], self._config.envelope_key)
        else:
            content = encode(self._config.body, batch.documents, self._config.envelope_key)
        if len(content) > self._batch_bytes:
            raise DestinationError(
                f"the request would hold {len(content)} bytes; batch_bytes is {self._batch_bytes}",
                code=ErrorCode.PAYLOAD_TOO_LARGE,
            )
        return content

    def _headers_of(self, batch: Batch, kind: BodyKind | None, content: bytes) -> dict[str, str]:
        headers = dict(self._common_headers(kind))
        if self._config.idempotency_header and batch.idempotency_key:
            headers[self._config.idempotency_header.lower()] = batch.idempotency_key
        return headers | self._signature(content)

    def _signature(self, content: bytes) -> dict[str, str]:
        secret = self._config.signing_secret
        if secret is None:
            return {}
        return {self._config.signature_header: signature(secret.get_secret_value(), content)}

    def _common_headers_of(self, kind: BodyKind | None) -> Mapping[str, str]:
        """The headers of every request with such a body, their names in small letters; configured ones win."""
        headers = httpx.Headers(
            {"Accept": "application/json"} | ({"Content-Type": CONTENT_TYPES[kind]} if kind else {})
        )
        headers.update({name: value.get_secret_value() for name, value in self._config.headers.items()})
        return dict(headers)
