"""Settings of the `iterable` connector, as people write them under `config:`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from dagster_retl.connectors.base import ConnectorConfig
from dagster_retl.connectors.http_url import plain_address

Region = Literal["us", "eu"]
HOSTS: dict[Region, str] = {"us": "https://api.iterable.com", "eu": "https://api.eu.iterable.com"}
"""Data centers. A key works in that of its project only: https://support.iterable.com/hc/articles/360043464871."""


class IterableRates(BaseModel):
    """Requests a second that each endpoint takes, of all syncs that write to the project together."""

    # As published in https://api.iterable.com/api/docs; `limits` of the connector hands them to whoever was refused.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    users: float = Field(5, gt=0)
    """Users in bulk."""
    user: float = Field(500, gt=0)
    """Users one by one (`one_by_one`)."""
    deletes: float = Field(100, gt=0)
    """Deletes and lookups of users."""
    events: float = Field(10, gt=0)
    """Events in bulk."""
    lists: float = Field(10, gt=0)
    """Members of lists; Iterable publishes no limit."""
    catalogs: float = Field(100, gt=0)
    """Items of catalogs in bulk."""


class IterableConfig(ConnectorConfig):
    """A project in Iterable."""

    api_key: SecretStr
    """A server-side API key of the project."""
    region: Region = "us"
    """Data center of the project."""
    identify_by: Literal["email", "userId"] = "email"
    """How syncs of users, events and lists name a user: the key of users and lists has this field."""
    prefer_user_id: bool = True
    """In a project that identifies users by email: create users whose `userId` is unknown."""
    create_new_fields: bool = False
    """Let Iterable create fields that the project does not have; otherwise it leaves them out."""
    merge_nested_objects: bool = True
    """Merge objects (`address.city`) into those that a user has; otherwise they replace them."""
    update_existing_users_only: bool = False
    """Lists take users that exist already and create none; not in projects that identify users by email."""
    replace_uploaded_fields_only: bool = True
    """Leave the fields of a catalog's item that are not mapped as they are; otherwise the item is replaced."""
    one_by_one: bool = False
    """Write each user in a request of its own, which takes another queue than bulk updates."""
    rates: IterableRates = IterableRates()
    """Requests a second by endpoint."""

    @model_validator(mode="before")
    @classmethod
    def _host_of_region(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("base_url"):
            host = HOSTS.get(values.get("region", "us"))
            return {**values, "base_url": host} if host else values
        return values

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else plain_address(value)

    @field_validator("api_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("is not an API key: it must be one word of printable ASCII")
        return value

    @property
    def other_region(self) -> Region | None:
        """The data center that a key may belong to by mistake; None at an address that is no data center."""
        if self.base_url not in HOSTS.values():
            return None
        return "eu" if self.base_url == HOSTS["us"] else "us"
