"""Settings of the `salesforce` connector, as people write them under `config:`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from dagster_retl.connectors.base import ConnectorConfig

LOGIN = "https://login.salesforce.com"
MOST_JOB_BYTES = 100_000_000
"""A file of 150 MB in base64 is the most that a job takes, which are 100 MB before that.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""


def origin_of(text: str) -> httpx.URL:
    """The origin of an address. Raises `ValueError` for one that credentials must not be sent to."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"this is not a web address: {error}") from error
    if not url.host or url.userinfo:
        raise ValueError("an address is https:// and a host, without user and password")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
        raise ValueError("credentials go over https:// only")
    return url.copy_with(raw_path=b"/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class ClientCredentials(_Part):
    """OAuth client credentials: the app's own user. `login_url` has to be the org's My Domain."""

    type: Literal["client_credentials"]
    client_id: str
    """Consumer key of the app."""
    client_secret: SecretStr
    """Consumer secret of the app."""


class JwtBearer(_Part):
    """OAuth JWT bearer: a user, by a key whose certificate the app has. Needs the extra `salesforce`."""

    type: Literal["jwt_bearer"]
    client_id: str
    """Consumer key of the app."""
    username: str
    """The user to act as."""
    private_key: SecretStr | None = None
    """The private RSA key, as PEM; `\\n` may stand for its line breaks."""
    private_key_file: str | None = None
    """File (PEM) of that key, beside retl.yaml."""
    audience: str | None = None
    """Audience of the assertion; unset: https://test.salesforce.com for sandboxes, else https://login.salesforce.com."""

    @field_validator("private_key_file")
    @classmethod
    def _beside_project(cls, value: str | None, info: ValidationInfo) -> str | None:
        base = (info.context or {}).get("base")
        return value if value is None or base is None else str(Path(base) / Path(value).expanduser())

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        if (self.private_key is None) == (self.private_key_file is None):
            raise ValueError("give the key either as `private_key` or as `private_key_file`")
        return self


class RefreshToken(_Part):
    """OAuth refresh token: a user who once allowed the app. Rotation of refresh tokens has to be off."""

    type: Literal["refresh_token"]
    client_id: str
    """Consumer key of the app."""
    refresh_token: SecretStr
    """The refresh token."""
    client_secret: SecretStr | None = None
    """Consumer secret of the app, where it asks for one."""


AuthSettings = Annotated[ClientCredentials | JwtBearer | RefreshToken, Field(discriminator="type")]


class SalesforceConfig(ConnectorConfig):
    """A Salesforce org."""

    auth: AuthSettings
    """How the connector logs in."""
    login_url: str = LOGIN
    """Where it logs in: the org's My Domain (`https://acme.my.salesforce.com`), or login or test.salesforce.com."""
    api_version: str = Field("62.0", pattern=r"^\d{2,3}\.0$")
    """Version of the REST API, 46.0 or later."""
    api: Literal["auto", "collections", "bulk"] = "auto"
    """What rows are sent with: sObject Collections, Bulk API 2.0, or (auto) Bulk from `bulk_rows` rows on."""
    bulk_rows: int = Field(2_000, ge=1)
    """With `api: auto`: how many rows a run must have to write for Bulk API 2.0."""
    job_rows: int = Field(50_000, ge=1, le=150_000_000)
    """Rows of a Bulk job, at most."""
    job_bytes: int = Field(20_000_000, ge=1, le=MOST_JOB_BYTES)
    """Bytes of a Bulk job, at most."""
    stop_at_usage: float = Field(0.95, gt=0, le=1)
    """Share of the org's daily API requests at which a run stops, so that others have the rest."""
    case_sensitive_keys: bool = False
    """Whether keys that differ in case are different records: external ids that are unique and case-sensitive."""

    @field_validator("login_url")
    @classmethod
    def _safe_address(cls, value: str) -> str:
        return str(origin_of(value)).rstrip("/")

    @field_validator("base_url")
    @classmethod
    def _not_used(cls, value: object) -> None:
        if value is not None:
            raise ValueError("Salesforce itself says where the org is; use `login_url`")

    @field_validator("api_version")
    @classmethod
    def _has_collections(cls, value: str) -> str:
        if float(value) < 46:
            raise ValueError("the oldest version with all that is needed is 46.0")
        return value

    @field_validator("batch_rows")
    @classmethod
    def _few_enough(cls, value: int | None) -> int | None:
        if value is not None and value > 200:
            raise ValueError("sObject Collections take 200 rows a request")
        return value


def secrets_of(auth: AuthSettings) -> Iterator[str]:
    """What no message may show of the settings."""
    for value in (getattr(auth, name) for name in type(auth).model_fields):
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
