"""Settings of the `hubspot` connector, as people write them under `config:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator

from dagster_retl.connectors.base import ConnectorConfig
from dagster_retl.connectors.http_url import plain_address

ASSOCIATION = "association."
"""What the destination fields begin with that link a record to a parent: `association.company`."""

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Property = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class OAuthApp(_Part):
    """A public app that was installed in the account, which HubSpot then gave a refresh token."""

    client_id: str
    """Id of the app."""
    client_secret: SecretStr
    """Secret of the app."""
    refresh_token: SecretStr
    """The refresh token of the installation."""
    token_url: str | None = Field(None, repr=False)
    """Address of the token endpoint; unset: `oauth/v1/token` of `base_url`."""


class Association(_Part):
    """A link from each written record to the one parent record that has a property of that value."""

    object: str
    """Object of the parent, such as `companies`."""
    by: _Property
    """Property of the parent whose value is mapped, such as `domain`; `hs_object_id` is its record id."""
    type: str | int | None = None
    """Label or id of the association type, such as `Primary`; unset: the one without a label."""


class HubSpotConfig(ConnectorConfig):
    """A HubSpot account (portal)."""

    base_url: str | None = "https://api.hubapi.com"
    """Address of the API."""
    token: SecretStr | None = None
    """Access token of a private app."""
    oauth: OAuthApp | None = None
    """A public app, instead of `token`."""
    api_version: Annotated[str, StringConstraints(pattern=r"^(v\d+|\d{4}-\d{2})$")] = "v3"
    """Version of the CRM API: `v3`, or a date such as `2026-03`."""
    associations: Mapping[_Name, Association] = {}
    """Links to parents, by the name that a mapping gives them: field `association.<name>`."""
    ignore_key_case: bool | None = None
    """Whether keys that differ in case alone are one record; unset: for contacts only, as with email addresses."""
    portal_id: str | None = None
    """Id of the account, for links to records where the account is not asked (`retl explain`)."""
    atomic_rejection: bool = True
    """A request that is refused as a whole has created nothing, so that even inserts may be sent again in halves."""

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else plain_address(value)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.token is None) == (self.oauth is None):
            raise ValueError("give either `token` (a private app) or `oauth` (a public app)")
        if self.batch_rows is not None and self.batch_rows > 100:
            raise ValueError("`batch_rows`: HubSpot takes at most 100 records a request")
        return self
