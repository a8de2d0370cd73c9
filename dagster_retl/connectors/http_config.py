"""Settings of the `http` connector, as people write them under `config:`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from dagster_retl.connectors.base import ConnectorConfig
from dagster_retl.connectors.http_url import UrlTemplate, plain_address, text_of
from dagster_retl.errors import ACTIONS, Action, ErrorCode
from dagster_retl.model.rows import FieldInfo

Method = Annotated[
    Literal["POST", "PUT", "PATCH", "DELETE"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
BodyKind = Literal["array", "object", "ndjson", "envelope"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    return name


HeaderName = Annotated[str, BeforeValidator(_header_name)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class BearerAuth(_Part):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"]
    token: SecretStr
    """The token."""


class BasicAuth(_Part):
    """HTTP Basic authentication."""

    type: Literal["basic"]
    username: str
    """The user."""
    password: SecretStr
    """The password."""


class HeaderAuth(_Part):
    """A secret in a header of its own, such as `X-Api-Key`."""

    type: Literal["header"]
    name: HeaderName
    """Name of the header."""
    value: SecretStr
    """Its value."""


class OAuth2Auth(_Part):
    """OAuth 2.0 client credentials: https://www.rfc-editor.org/rfc/rfc6749#section-4.4."""

    type: Literal["oauth2"]
    token_url: str = Field(repr=False)
    """Address of the token endpoint."""
    client_id: str
    """Id of the client."""
    client_secret: SecretStr
    """Secret of the client."""
    scope: str | None = None
    """Scopes, separated by spaces."""
    audience: str | None = None
    """Audience, where the token endpoint wants one."""
    client_auth: Literal["basic", "body"] = "basic"
    """How the token endpoint gets id and secret: by HTTP Basic, or in its body."""

    @field_validator("token_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return plain_address(value)


AuthSettings = Annotated[BearerAuth | BasicAuth | HeaderAuth | OAuth2Auth, Field(discriminator="type")]


class MethodByOperation(_Part):
    """A method for each operation; one that is left out is not supported."""

    upsert: Method | None = None
    """Method of an upsert."""
    insert: Method | None = None
    """Method of an insert."""
    update: Method | None = None
    """Method of an update."""


class Results(_Part):
    """Where an answer says what became of each row. Paths are dotted; an empty one is the body itself."""

    errors_path: str = "errors"
    """Path of the list of errors."""
    rows_path: str | None = None
    """Path of a list with an entry for each row; a row that has neither entry nor error has no answer."""
    success_field: str | None = None
    """Where such an entry says whether its row was written; unset: every entry is a row that was written."""
    success_values: tuple[str, ...] = ("true",)
    """What stands there for a row that was written, compared as text in lower case."""
    index_field: str | None = "index"
    """Where an error or entry names its row by number, from 0, in the order sent."""
    key_field: str | None = None
    """Where an error or entry names its row by its key, compared as text."""
    code_field: str | None = "code"
    """Where an error or entry has its code."""
    message_field: str = "message"
    """Where an error or entry has its message."""
    codes: Mapping[str, ErrorCode] = {}
    """The service's codes → error codes of this program; others are DESTINATION_VALIDATION."""
    id_path: str | None = None
    """Path of the objects that hold the ids of written records; unset: that of `rows_path`, else the body itself."""
    id_field: str | None = None
    """Where such an object has the record's id; objects match rows by number, by key or by position."""

    @field_validator("success_values", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return [text_of(each).lower() for each in value] if isinstance(value, list | tuple) else value

    @field_validator("codes")
    @classmethod
    def _codes_of_rows(cls, value: Mapping[str, ErrorCode]) -> Mapping[str, ErrorCode]:
        for vendor_code, code in value.items():
            if ACTIONS[code] not in (Action.RETRY, Action.REJECT):
                raise ValueError(f"{vendor_code!r} maps to {code.value}, which is no fault of a single row")
        return value

    @model_validator(mode="after")
    def _says_what_success_is(self) -> Self:
        if self.success_field is not None and self.rows_path is None:
            raise ValueError("`success_field` is about the entries at `rows_path`: name that too")
        return self


class Delete(_Part):
    """How rows are deleted: one request a row where the address names key fields, else a body of keys."""

    method: Method = "DELETE"
    """Method of the request."""
    url: str = Field(repr=False)
    """Address; may name `{object}` and key fields, percent-encoded."""
    body: BodyKind | None = None
    """Form of the body, which holds the key fields of each row; unset: no body."""

    @cached_property
    def template(self) -> UrlTemplate:
        """The address of a record, or of the request that lists keys."""
        return UrlTemplate.parse(self.url)

    @model_validator(mode="after")
    def _names_its_rows(self) -> Self:
        if not self.template.fields and self.body is None:
            raise ValueError("name the record: a key field in `url`, such as {id}, or a `body`")
        if self.template.fields and self.body not in (None, "object"):
            raise ValueError("a `url` that names one record goes without a `body`, or with `body: object`")
        return self

    @property
    def one_by_one(self) -> bool:
        """Whether each row is a request of its own."""
        return bool(self.template.fields) or self.body == "object"


class CatalogueField(_Part):
    """A field that the destination has; a bare name is a writable field of unknown type."""

    name: str
    """Name of the field."""
    label: str = ""
    """What people call it; unset: its name."""
    data_type: str = "unknown"
    """Its type, for people."""
    required: bool = False
    """A new record needs it."""
    createable: bool = True
    """A new record can be given it."""
    updateable: bool = True
    """It can be changed."""
    external_id: bool = False
    """It identifies a record."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def info(self) -> FieldInfo:
        return FieldInfo(**(self.model_dump() | {"label": self.label or self.name}))


class HttpConfig(ConnectorConfig):
    """A service of one's own."""

    url: str = Field(repr=False)
    """Address that rows are written to; may name `{object}` and, with `body: object`, key fields."""
    method: Method | MethodByOperation = "POST"
    """Method of the requests, or one for each operation."""
    headers: Mapping[HeaderName, SecretStr] = {}
    """Headers of each request."""
    auth: AuthSettings | None = None
    """How requests are authorized."""
    body: BodyKind = "array"
    """Form of the body: a JSON array, one object a request, a line each, or an array inside an object."""
    envelope_key: str | None = None
    """With `body: envelope`: the key of the array."""
    results: Results | None = None
    """Where answers say what became of each row; unset: a status of 2xx speaks for all of them."""
    delete: Delete | None = None
    """How rows are deleted; modes `delete` and `mirror` need it."""
    idempotency_header: HeaderName | None = None
    """Header for a key that stays the same whenever the same write is sent again."""
    signing_secret: SecretStr | None = None
    """Secret of an HMAC-SHA256 over the bytes of the body, in hexadecimal."""
    signature_header: HeaderName = "X-Signature"
    """Header for that signature."""
    atomic_rejection: bool = False
    """A request that is refused as a whole has changed nothing, so that even inserts may be sent again in halves."""
    check_url: str | None = Field(None, repr=False)
    """Address whose GET answers 2xx when the credentials are good."""
    objects: tuple[str, ...] = ()
    """Names of the objects that exist, for discovery."""
    fields: tuple[CatalogueField, ...] = ()
    """Fields that every object has; mappings are checked against them before a run writes."""

    @cached_property
    def template(self) -> UrlTemplate:
        """The address that rows are written to."""
        return UrlTemplate.parse(self.url)

    @property
    def one_by_one(self) -> bool:
        """Whether each written row is a request of its own."""
        return self.body == "object"

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
        for name, text in value.items():
            if name.lower() in _FRAMING_HEADERS:
                raise ValueError(f"header {name!r} is set by the transport")
            if not _HEADER_VALUE.fullmatch(text.get_secret_value()):
                raise ValueError(f"the value of header {name!r} must be printable ASCII on one line")
        return value

    @field_validator("check_url")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        return None if value is None else plain_address(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.template.fields and not self.one_by_one:
            raise ValueError(f"`url` names {', '.join(sorted(self.template.fields))}: that needs `body: object`")
        if self.one_by_one and self.batch_rows not in (None, 1):
            raise ValueError("`body: object` sends one row a request: leave `batch_rows` out")
        envelopes = "envelope" in (self.body, self.delete.body if self.delete else None)
        if envelopes != (self.envelope_key is not None):
            raise ValueError("`body: envelope` and `envelope_key` go together")
        return self
