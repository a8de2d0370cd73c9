"""The definition of a sync: what is read, where it goes, how, and when.

These models are what `retl.yaml`, Python and the store agree on. Short forms are understood
here too (`schedule: "0 * * * *"`, `field_mappings: {Email: email}` with `key: Email`), so that
every door accepts the same text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.definition import Definition
from dagster_retl.model.ids import sync_id_of
from dagster_retl.model.mistakes import Mistake, did_you_mean, gather
from dagster_retl.model.partitions import Partition, Partitions
from dagster_retl.model.sync_settings import Checks, Guards, Schedule, Watermark

SLUG = re.compile(r"[A-Za-z0-9_]+")
"""What a slug looks like."""

NO_KEY = "no_key"
"""The kind of error that a sync has whose mode needs a key."""


def slugify(name: str) -> str:
    """A name in the alphabet that Dagster allows for ops and assets: `[a-z0-9_]`."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def reads_asset(source_query: object) -> bool:
    """Whether a `source_query` reads the DataFrame of a Dagster asset (`asset:key/path`), not a warehouse."""
    return isinstance(source_query, str) and source_query.strip().lower().startswith("asset:")


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
    """The field to write; a dotted one nests."""
    source: str | None = None
    """A column of the query, or a scalar SQL expression (DuckDB)."""
    value: Any = None
    """A constant, instead of a source."""
    default: Any = None
    """What is sent in place of a null."""
    on_null: Literal["send", "omit"] = "send"
    """Whether a null is sent or its field left out."""
    key: bool = False
    """Whether the field belongs to the row's key."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        # A null beside a source is what dumping a model leaves there, not a constant.
        has_value = "value" in self.model_fields_set and (self.value is not None or self.source is None)
        if (self.source is None) == (not has_value):
            raise ValueError(f"field {self.destination!r} needs exactly one of `source` and `value`")
        if self.key and has_value:
            raise ValueError(f"field {self.destination!r} is a key: it needs a `source`, not a constant")
        if self.key and self.on_null == "omit":
            raise ValueError(f"field {self.destination!r} is a key: `on_null: omit` cannot apply to it")
        return self


class Sync(Definition):
    """One sync. `slug` names its asset, op and schedule; `id` follows from project and slug."""

    project: str = "default"
    name: str = Field(min_length=1)
    """What people call the sync; one of a kind in the project."""
    slug: str = ""
    """Name of its asset, op and schedule; made from the name where nothing is said. Its id depends on it."""
    description: str | None = None
    """What it is for."""
    source_query: str = Field(min_length=1)
    """A SELECT, or `table:schema.name`, `dbt:model`, `file:sql/query.sql`, or `asset:key/path` (a DataFrame)."""
    warehouse: str = "default"
    """The warehouse that the query runs on."""
    destination_id: str
    """The destination that rows are written to."""
    object_name: str = Field(min_length=1)
    """The object at the destination."""
    field_mappings: tuple[FieldMapping, ...] = Field(min_length=1)
    """The fields to write and where their values come from."""
    sync_mode: SyncMode = Field(SyncMode.UPSERT, validate_default=True)
    """What a run writes."""
    schedule: Schedule = Schedule()
    """When it runs by itself; a cron expression will do."""
    enabled: bool = True
    """Whether it runs at all."""
    change_detection: Literal["snapshot", "none"] | Watermark = "snapshot"
    """How changed rows are told from unchanged ones."""
    guards: Guards = Guards()
    """When a run stops before it writes."""
    checks: Checks = Checks()
    """Asset checks beyond the two that every sync has."""
    max_attempts: int = Field(5, ge=1)
    """How often one version of a row may be refused before it is left alone."""
    on_missing: Literal["skip", "fail"] = "skip"
    """In mode update: what becomes of a row whose record does not exist."""
    owners: tuple[str, ...] = ()
    """Owners of the asset: e-mail addresses, or `team:name`."""
    group: str = "reverse_etl"
    """Group of the asset."""
    tags: Mapping[str, str] = {}
    """Tags of the asset."""
    after: tuple[str, ...] = ()
    """Syncs that run before this one where they are in one run; their names or slugs."""
    partitions: Partitions | None = None
    """Parts of the query that are read one by one: windows of time, or fixed keys (a list will do)."""
    renamed_from: str | None = Field(None, pattern=rf"^{SLUG.pattern}$")
    """The first slug that the sync had: it goes on with all that was delivered under it."""
    adopt: str | None = Field(None, pattern=r"^retl_sync_[0-9a-z]+$")
    """Id of a sync of the store that this one takes the place of, with all that was delivered."""

    @model_validator(mode="wrap")
    @classmethod
    def _short_forms(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping):
            return handler(value)
        data = dict(value)
        keys = data.pop("key", None)
        entries = _mapping_entries(data.get("field_mappings"))
        mistakes: list[Mistake] = []
        if entries is not None:
            data["field_mappings"], mistakes = _with_keys(entries, keys)
        if not data.get("slug") and isinstance(data.get("name"), str):
            data["slug"] = slugify(data["name"])
        return gather(cls.__name__, handler, data, mistakes, instead_of=frozenset({NO_KEY}))

    @field_validator("slug")
    @classmethod
    def _slug_alphabet(cls, value: str) -> str:
        if not SLUG.fullmatch(value):
            raise ValueError(f"slug {value!r} may hold letters, digits and underscores only, and needs one of them")
        return value

    @field_validator("field_mappings")
    @classmethod
    def _distinct_destinations(cls, mappings: tuple[FieldMapping, ...]) -> tuple[FieldMapping, ...]:
        names = [mapping.destination for mapping in mappings]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"field {twice[0]!r} is mapped twice; a destination field takes one mapping")
        return mappings

    @field_validator("sync_mode")
    @classmethod
    def _mode_has_key(cls, mode: SyncMode, info: ValidationInfo) -> SyncMode:
        mappings = info.data.get("field_mappings", ())
        if mappings and mode is not SyncMode.INSERT and not any(mapping.key for mapping in mappings):
            raise PydanticCustomError(
                NO_KEY, "mode '{mode}' needs a key: mark a field with `key: true`", {"mode": mode.value}
            )
        return mode

    @field_validator("change_detection", mode="before")
    @classmethod
    def _known_detection(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return Watermark.model_validate(value)
        if not isinstance(value, Watermark) and value not in ("snapshot", "none"):
            raise ValueError("expected `snapshot`, `none` or `{watermark: column, lookback: 1h}`")
        return value

    @field_validator("change_detection")
    @classmethod
    def _detection_fits_mode(cls, value: Any, info: ValidationInfo) -> Any:
        mode, mappings = info.data.get("sync_mode"), info.data.get("field_mappings", ())
        if value == "snapshot" or mode is None:
            return value
        if mode is SyncMode.MIRROR:
            raise ValueError(
                "mode 'mirror' needs `change_detection: snapshot`: it compares the whole result with what was delivered"
            )
        if value == "none" and mode is SyncMode.INSERT:
            raise ValueError("mode 'insert' would insert every row again in every run with `change_detection: none`")
        if value != "none" and mappings and not any(mapping.key for mapping in mappings):
            raise ValueError("a watermark needs a key: rows without one are told apart by counting the whole result")
        return value

    @field_validator("partitions")
    @classmethod
    def _detection_fits_partitions(cls, value: Partitions | None, info: ValidationInfo) -> Partitions | None:
        if value is not None and isinstance(info.data.get("change_detection"), Watermark):
            raise ValueError("partitions and a watermark both choose what is read: use one of them")
        return value

    @property
    def id(self) -> str:
        """The sync's id, the same wherever the file is read."""
        return self.adopt or sync_id_of(self.project, self.renamed_from or self.slug)

    def partition(self, key: str | None, now: datetime) -> Partition | None:
        """The partition with this key; None for a sync without partitions.

        Raises `ConfigurationError` where the sync has no such partition, or where it has some and none is named.
        """
        if self.partitions is None and key is None:
            return None
        if self.partitions is None:
            raise ConfigurationError(f"sync {self.name!r} has no partitions, so that {key!r} is none of them")
        if key is None:
            raise ConfigurationError(
                f"sync {self.name!r} is read in partitions, and nothing says which one",
                hint=f"Name one, such as {self.partitions.example().key}: with `--partition`, as `partition` in the "
                "API, or where the asset is materialized in Dagster.",
            )
        return self.partitions.partition(key, now)

    @property
    def key_fields(self) -> tuple[str, ...]:
        """Destination names of the key fields, in the order of the mappings."""
        return tuple(mapping.destination for mapping in self.field_mappings if mapping.key)


def _mapping_entries(mappings: Any) -> list[Any] | None:
    """Field mappings as the list that the API uses; `{Email: email}` is the short form. None: neither."""
    if isinstance(mappings, Mapping):
        return [_entry(name, spec) for name, spec in mappings.items()]
    if isinstance(mappings, (list, tuple)):
        return list(mappings)
    return None


def _entry(name: Any, spec: Any) -> dict[str, Any]:
    origin = dict(spec) if isinstance(spec, Mapping) else {"source": spec}
    return {"destination": name, **origin}


def _with_keys(entries: list[Any], keys: Any) -> tuple[list[Any], list[Mistake]]:
    """Mark the entries that `key: A` or `key: [A, B]` names; a name among no entry is a mistake."""
    wanted = list(keys) if isinstance(keys, (list, tuple)) else [keys] if keys is not None else []
    known = [_destination(entry) for entry in entries]
    mistakes = [
        Mistake(
            ("key", index) if isinstance(keys, (list, tuple)) else ("key",),
            f"key {key!r} is not among the mapped fields",
            did_you_mean(str(key), [name for name in known if isinstance(name, str)]),
        )
        for index, key in enumerate(wanted)
        if key not in known
    ]
    return [_marked(entry) if name in wanted else entry for entry, name in zip(entries, known, strict=True)], mistakes


def _destination(entry: Any) -> Any:
    return entry.get("destination") if isinstance(entry, Mapping) else getattr(entry, "destination", None)


def _marked(entry: Any) -> Any:
    """The entry with `key: true`; what is neither a mapping nor a `FieldMapping` is left for the model to refuse."""
    if isinstance(entry, FieldMapping):
        return FieldMapping.model_validate(entry.model_dump(exclude_unset=True) | {"key": True})
    return {**entry, "key": True} if isinstance(entry, Mapping) else entry
