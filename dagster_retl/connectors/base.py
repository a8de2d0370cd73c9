"""What a connector is: it declares what it can do, and converses with its vendor.

A connector never sleeps, retries, logs in loops or opens a client. A conversation is a generator
that yields requests and is sent responses, as `httpx.Auth.auth_flow` does; the engine owns time.

    class Connector          over HTTP: conversations
    class JobConnector       the same, with jobs of many rows (`connectors.jobs`)
    class DirectConnector    not over HTTP (a database, files): blocking calls in the engine's pool
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field

from dagster_retl.connectors.limits import LimitState, limits_of
from dagster_retl.connectors.statuses import code_of_status, refused_redirect
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import (
    Account,
    Batch,
    FieldInfo,
    KeyForm,
    ObjectInfo,
    Operation,
    RowResult,
    WireForm,
)

CONNECTOR_API = 1
"""The version of this interface that a connector is written against."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of a conversation. `url` may be relative to the connector's `base_url`.

    idempotent: it may be sent again when nobody knows whether it was applied (a timeout, a
    reset, a 5xx). It is always sent again where nothing can have been applied (429, refused
    connection).
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    idempotent: bool = True


Exchange = Generator[Request, httpx.Response, T]
"""A conversation that ends with a `T`."""


class ConnectorConfig(BaseModel):
    """Settings that every destination has. Those left out take the connector's own values."""

    # Secrets are `SecretStr`; what a setting means is written below it, and shown by `retl connectors NAME`.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    base_url: str | None = None
    """Address that relative ones start from."""
    rate_limit: float | None = Field(None, gt=0)
    """Requests a second, of all syncs that write to the account together."""
    burst: int | None = Field(None, ge=1)
    """Requests that may leave at once after a pause, where there is a rate limit."""
    concurrency: int | None = Field(None, ge=1, le=256)
    """Requests in flight."""
    batch_rows: int | None = Field(None, ge=1)
    """Rows of a request, at most."""
    batch_bytes: int | None = Field(None, ge=1)
    """Bytes of a request, at most."""
    timeout: float = Field(30.0, gt=0)
    """Seconds for one request."""
    settle: float = Field(900.0, ge=0)
    """Seconds that a request may still land after nobody waits for its answer any more."""
    proxy: str | None = Field(None, repr=False)  # its address may hold a password
    """Address of an HTTP proxy."""
    ca_file: str | None = None
    """File (PEM) of a private certificate authority."""


@dataclass(frozen=True, slots=True)
class ConnectorSpec:
    """What a kind of destination can do.

    modes: sync modes it supports. batch_rows, batch_bytes, rate_limit (requests a second), burst (of
    them at once after a pause), concurrency: its own limits. atomic_rejection: a refused batch changed
    nothing at the vendor. discoverable: `objects()` and `fields()` tell what exists. matching: how its answers are
    matched with rows, in a sentence. vendor_codes: what the vendor's own codes mean. documentation: the vendor's page.
    """

    name: str
    title: str
    modes: frozenset[str]
    batch_rows: int = 100
    batch_bytes: int = 1_000_000
    rate_limit: float | None = None
    burst: int = 1
    concurrency: int = 4
    atomic_rejection: bool = False
    discoverable: bool = False
    key_form: KeyForm = field(default_factory=KeyForm)
    wire_form: WireForm = field(default_factory=WireForm)
    matching: str = ""
    vendor_codes: Mapping[str, ErrorCode] = field(default_factory=dict)
    documentation: str = ""


class AnyConnector(ABC):
    """What the engine needs to know of any connector, whatever it speaks."""

    spec: ClassVar[ConnectorSpec]
    Config: ClassVar[type[ConnectorConfig]]

    connector_api: ClassVar[int] = CONNECTOR_API
    """The version of this interface that the class was written against; those of other packages write it down."""
    reads_values: ClassVar[bool] = False
    """Whether `write` reads `row.values` exactly; without it they are what `row.json` says."""

    def __init__(self, config: ConnectorConfig) -> None:
        self.config: Any = config

    @property
    def batch_rows(self) -> int:
        return int(self.config.batch_rows or self.spec.batch_rows)

    @property
    def batch_bytes(self) -> int:
        return int(self.config.batch_bytes or self.spec.batch_bytes)

    def batch_rows_for(self, operation: Operation) -> int:
        """How many rows a batch of this operation may hold, where it differs from `batch_rows`."""
        return self.batch_rows

    @property
    def frame_bytes(self) -> int:
        """The bytes of a request body that are not rows; each row takes its JSON and one separator."""
        return 2

    @property
    def atomic_rejection(self) -> bool:
        """Whether a refused batch changed nothing at the destination."""
        return self.spec.atomic_rejection

    @property
    def concurrency(self) -> int:
        return int(self.config.concurrency or self.spec.concurrency)

    @property
    def rate_limit(self) -> float | None:
        return self.config.rate_limit or self.spec.rate_limit

    @property
    def burst(self) -> int:
        """The vendor's burst goes with the vendor's rate."""
        return int(self.config.burst or (1 if self.config.rate_limit else self.spec.burst))

    def supports(self, mode: str) -> str | None:
        """Why this destination, as it is configured, cannot take a sync mode; None where it can."""
        if mode in self.spec.modes:
            return None
        return f"connector {self.spec.name!r} has no mode {mode!r}; it has {', '.join(sorted(self.spec.modes))}"

    def identity(self) -> str:
        """The configured account without secrets (a host, a database), for the sync's epoch."""
        return self.config.base_url or self.spec.name

    def record_url(self, object_name: str, record_id: str) -> str | None:
        """Where people see a record in the vendor's own interface; None where there is no such page."""
        return None

    def key_form(self, object_name: str) -> KeyForm:
        """How this object's keys are compared."""
        return self.spec.key_form

    def idempotent(self, operation: Operation) -> bool:
        """Whether sending the same rows twice leaves the destination as once."""
        return operation is not Operation.INSERT

    def close(self) -> None:  # noqa: B027  # a hook that most connectors need not fill
        """Let go of connections."""


class Connector(AnyConnector):
    """A destination over HTTP."""

    def auth(self) -> httpx.Auth | None:
        """How requests are authorised; called once, shared by all clients, safe for threads."""
        return None

    def ssl_context(self) -> ssl.SSLContext | bool:
        """TLS is always verified; `ca_file` adds a private authority."""
        return ssl.create_default_context(cafile=self.config.ca_file) if self.config.ca_file else True

    def allow(self, url: httpx.URL) -> None:
        """Called by the transport before every request, those of `auth()` included.

        Raises `DestinationError` (`CONFIGURATION`) for an address that must not be contacted.
        """

    @abstractmethod
    def check(self) -> Exchange[Account]:
        """Who the credentials reach; raises `DestinationError` saying what is wrong with them."""

    @abstractmethod
    def objects(self) -> Exchange[list[ObjectInfo]]:
        """The objects that can be written to."""

    @abstractmethod
    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        """The fields of an object; empty where the vendor cannot tell."""

    @abstractmethod
    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        """Write a batch. Every row has one result (or `AllAccepted`); one without becomes an unknown outcome.

        Raises `DestinationError` for a fault of the whole batch; its code says what the engine
        does (`errors.ACTIONS`).
        """

    def can_read(self, object_name: str) -> bool:
        """Whether `read` tells what records of an object hold."""
        return False

    def read(self, batch: Batch, fields: Sequence[str]) -> Exchange[Mapping[str, Mapping[str, Any]]]:
        """What the destination holds now for the rows of a batch: row key → field → value, as JSON has it.

        A key without a record is left out. `fields` are destination fields, as mapped. At most `batch_rows` rows.
        """
        raise NotImplementedError(f"connector {self.spec.name!r} does not read")

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        """The vendor's code and message in an error response."""
        return None, f"HTTP {response.status_code} {response.reason_phrase}: {response.text[:500]}".strip()

    def not_applied(self, response: httpx.Response) -> bool:
        """Whether an error response states that nothing was written, so that sending again is safe for inserts too."""
        return response.status_code == 429

    def limits(self, response: httpx.Response) -> LimitState | None:
        """What any response says of the account's rate limit; None where it says nothing.

        The usual headers are known; a vendor that says it otherwise has its connector read that.
        """
        return limits_of(response.headers)

    def require_success(self, response: httpx.Response) -> httpx.Response:
        """Return a 2xx response; raise the `DestinationError` that its status stands for otherwise."""
        if response.is_success:
            return response
        if response.is_redirect:
            raise refused_redirect(response)
        vendor_code, message = self.explain(response)
        raise DestinationError(
            message,
            code=code_of_status(response.status_code),
            vendor_code=vendor_code,
            ambiguous=response.status_code >= 500 or response.status_code == 408,
        )


class DirectConnector(AnyConnector):
    """A destination that is not reached over HTTP: blocking, in the engine's pool."""

    reads_values = True

    @abstractmethod
    def check(self) -> Account: ...

    @abstractmethod
    def objects(self) -> list[ObjectInfo]: ...

    @abstractmethod
    def fields(self, object_name: str) -> list[FieldInfo]: ...

    @abstractmethod
    def write(self, batch: Batch) -> Sequence[RowResult]: ...
