"""Settings of the `http` connector, as people write them under `config:`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from dagster_retl.connectors.base import ConnectorConfig
from dagster_retl.connectors.http_url import UrlTemplate, plain_address
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
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BearerAuth(_Part):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"]
    token: SecretStr


class BasicAuth(_Part):
    """HTTP Basic authentication."""

    type: Literal["basic"]
    username: str
    password: SecretStr


class HeaderAuth(_Part):
    """A secret in a header of its own, such as `X-Api-Key`."""

    type: Literal["header"]
    name: HeaderName
    value: SecretStr


class OAuth2Auth(_Part):
    """OAuth 2.0 client credentials: https://www.rfc-editor.org/rfc/rfc6749#section-4.4.

    client_auth: whether the token endpoint gets id and secret by HTTP Basic or in its body.
    """

    type: Literal["oauth2"]
    token_url: str = Field(repr=False)
    client_id: str
    client_secret: SecretStr
    scope: str | None = None
    audience: str | None = None
    client_auth: Literal["basic", "body"] = "basic"

    @field_validator("token_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return plain_address(value)


AuthSettings = Annotated[BearerAuth | BasicAuth | HeaderAuth | OAuth2Auth, Field(discriminator="type")]


class MethodByOperation(_Part):
    """A method for each operation; one that is left out is not supported."""

    upsert: Method | None = None
    insert: Method | None = None
    update: Method | None = None


class Results(_Part):
    """Where an answer says what became of each row. Paths are dotted; an empty one is the body itself.

    errors_path: the list of errors. An error names its row by `index_field` (from 0, in the order
    sent) or by `key_field` (compared as text). codes: vendor code → error code. id_field: the
    record's id, in the objects at `id_path` (matched by index, key or position).
    """

    errors_path: str = "errors"
    index_field: str | None = "index"
    key_field: str | None = None
    code_field: str | None = "code"
    message_field: str = "message"
    codes: Mapping[str, ErrorCode] = {}
    id_path: str = ""
    id_field: str | None = None

    @field_validator("codes")
    @classmethod
    def _codes_of_rows(cls, value: Mapping[str, ErrorCode]) -> Mapping[str, ErrorCode]:
        for vendor_code, code in value.items():
            if ACTIONS[code] not in (Action.RETRY, Action.REJECT):
                raise ValueError(f"{vendor_code!r} maps to {code.value}, which is no fault of a single row")
        return value


class Delete(_Part):
    """How rows are deleted: one request a row where the address names key fields, else a body of keys."""

    method: Method = "DELETE"
    url: str = Field(repr=False)
    body: BodyKind | None = None

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
    label: str = ""
    data_type: str = "unknown"
    required: bool = False
    createable: bool = True
    updateable: bool = True
    external_id: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def info(self) -> FieldInfo:
        return FieldInfo(**(self.model_dump() | {"label": self.label or self.name}))


class HttpConfig(ConnectorConfig):
    """A service of one's own. `url` may name `{object}` and, with `body: object`, key fields.

    atomic_rejection: a request that is refused as a whole has changed nothing, so that even inserts
    may be sent again in halves. check_url: an address whose GET answers 2xx when the credentials
    are good. objects, fields: what exists, where people want it checked.
    """

    url: str = Field(repr=False)
    method: Method | MethodByOperation = "POST"
    headers: Mapping[HeaderName, SecretStr] = {}
    auth: AuthSettings | None = None
    body: BodyKind = "array"
    envelope_key: str | None = None
    results: Results | None = None
    delete: Delete | None = None
    idempotency_header: HeaderName | None = None
    signing_secret: SecretStr | None = None
    signature_header: HeaderName = "X-Signature"
    atomic_rejection: bool = False
    check_url: str | None = Field(None, repr=False)
    objects: tuple[str, ...] = ()
    fields: tuple[CatalogueField, ...] = ()

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
