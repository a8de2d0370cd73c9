"""The definition of a sync: what is read, where it goes, how, and when.

These models are what `retl.yaml`, Python and the store agree on. Short forms are understood
here too (`schedule: "0 * * * *"`, `field_mappings: {Email: email}` with `key: Email`), so that
every door accepts the same text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dagster_retl.model.ids import sync_id_of

_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


def parse_share(value: object) -> object:
    """`10%` and `0.1` are the same share."""
    if isinstance(value, str) and (match := _PERCENT.match(value)):
        return float(match.group(1)) / 100
    return value


def slugify(name: str) -> str:
    """A name in the alphabet that Dagster allows for ops and assets: `[a-z0-9_]`."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


class Definition(BaseModel):
    """Base of everything that people write: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SyncMode(StrEnum):
    """What a run writes."""

    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    MIRROR = "mirror"


class FieldMapping(Definition):
    """One destination field and where its value comes from.

    `source` is a column of the query (ignoring case, if unambiguous) or else a scalar SQL
    expression in DuckDB's dialect; `value` is a constant. `default` replaces a null.
    """

    destination: str = Field(min_length=1)
    source: str | None = None
    value: Any = None
    default: Any = None
    on_null: Literal["send", "omit"] = "send"
    key: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        has_value = "value" in self.model_fields_set
        if (self.source is None) == (not has_value):
            raise ValueError(f"field {self.destination!r} needs exactly one of `source` and `value`")
        if self.key and has_value:
            raise ValueError(f"field {self.destination!r} is a key: it needs a `source`, not a constant")
        if self.key and self.on_null == "omit":
            raise ValueError(f"field {self.destination!r} is a key: `on_null: omit` cannot apply to it")
        return self


class Schedule(Definition):
    """When a sync runs by itself: `cron` with an expression and an IANA time zone, `manual`, or `on_upstream`."""

    type: Literal["cron", "manual", "on_upstream"] = "manual"
    expression: str | None = None
    timezone: str = "UTC"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value in ("manual", "on_upstream"):
                return {"type": value}
            return {"type": "cron", "expression": value}
        return value

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if (self.type == "cron") != (self.expression is not None):
            raise ValueError("a cron schedule needs an `expression`; other schedules have none")
        if self.expression is not None:
            if len(self.expression.split()) != 5 or not croniter.is_valid(self.expression):
                raise ValueError(f"{self.expression!r} is not a cron expression of five fields, such as '15 */4 * * *'")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{self.timezone!r} is not an IANA time zone, such as 'Europe/Paris'") from error
        return self


class Guards(Definition):
    """Shares (0 to 1) above which a run stops before it writes.

    deletes: keys removed, of those in the snapshot (and more than 10 of them; all of them always).
    shrink: rows fewer than in the last run, where removals are computed. failures: refused rows,
    above which the failure-rate check is an error.
    """

    deletes: float = Field(0.10, ge=0, le=1)
    shrink: float = Field(0.50, ge=0, le=1)
    failures: float = Field(0.05, ge=0, le=1)

    _share = field_validator("deletes", "shrink", "failures", mode="before")(parse_share)


class Watermark(Definition):
    """Change detection by a column that only grows."""

    watermark: str
    lookback: str = "0s"


class Sync(Definition):
    """One sync. `slug` names its asset, op and schedule; `id` follows from project and slug."""

    project: str = "default"
    name: str = Field(min_length=1)
    slug: str = ""
    description: str | None = None
    source_query: str = Field(min_length=1)
    warehouse: str = "default"
    destination_id: str
    object_name: str = Field(min_length=1)
    field_mappings: tuple[FieldMapping, ...] = Field(min_length=1)
    sync_mode: SyncMode = SyncMode.UPSERT
    schedule: Schedule = Schedule()
    enabled: bool = True
    change_detection: Literal["snapshot", "none"] | Watermark = "snapshot"
    guards: Guards = Guards()
    max_attempts: int = Field(5, ge=1)
    on_missing: Literal["skip", "fail"] = "skip"
    owners: tuple[str, ...] = ()
    group: str = "reverse_etl"
    tags: Mapping[str, str] = {}
    after: tuple[str, ...] = ()
    partitions: Any = None
    renamed_from: str | None = None
    adopt: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        data = dict(value)
        keys = data.pop("key", None)
        if keys is not None or isinstance(data.get("field_mappings"), Mapping):
            data["field_mappings"] = _expand_mappings(data.get("field_mappings"), keys)
        if not data.get("slug") and isinstance(data.get("name"), str):
            data["slug"] = slugify(data["name"])
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.slug):
            raise ValueError(f"slug {self.slug!r} may hold letters, digits and underscores only")
        names = [mapping.destination for mapping in self.field_mappings]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"field {twice[0]!r} is mapped twice; a destination field takes one mapping")
        if self.sync_mode is not SyncMode.INSERT and not self.key_fields:
            raise ValueError(f"mode {self.sync_mode.value!r} needs a key: mark a field with `key: true`")
        return self

    @property
    def id(self) -> str:
        """The sync's id, the same wherever the file is read."""
        return self.adopt or sync_id_of(self.project, self.slug)

    @property
    def key_fields(self) -> tuple[str, ...]:
        """Destination names of the key fields, in the order of the mappings."""
        return tuple(mapping.destination for mapping in self.field_mappings if mapping.key)


def _expand_mappings(mappings: Any, keys: Any) -> Any:
    """`{Email: email}` with `key: Email` as the list that the API uses."""
    wanted = [keys] if isinstance(keys, str) else list(keys or ())
    if isinstance(mappings, Mapping):
        entries = [
            {"destination": name} | (spec if isinstance(spec, Mapping) else {"source": spec})
            for name, spec in mappings.items()
        ]
    elif isinstance(mappings, (list, tuple)):
        entries = [dict(entry) if isinstance(entry, Mapping) else entry for entry in mappings]
    else:
        return mappings
    known = {entry.get("destination") for entry in entries if isinstance(entry, dict)}
    for key in wanted:
        if key not in known:
            raise ValueError(f"key {key!r} is not among the mapped fields: {', '.join(sorted(map(str, known)))}")
    return [
        entry | {"key": True} if isinstance(entry, dict) and entry.get("destination") in wanted else entry
        for entry in entries
    ]
