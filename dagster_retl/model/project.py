"""A project: what retl.yaml says, as values.

    Project ── warehouses   where rows come from        Warehouse
            ├─ destinations where they go               Destination
            ├─ syncs        what is sent, how and when  Sync
            ├─ alerts       who hears about it          AlertRule
            └─ retention, dead_letters, engine          Retention, DeadLetterSettings, EngineSettings

`Project.load("retl.yaml")` reads a file; `Project(warehouses=…, destinations=…, syncs=[Sync(…)])`
builds the same in Python. Secrets (URLs, connection arguments, destination settings) are in no `repr`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, SecretStr, field_validator, model_validator

from dagster_retl.errors import NotFoundError
from dagster_retl.model.definition import Definition
from dagster_retl.model.locations import (
    check_timezone,
    check_url,
    display_url,
    resolve_database_url,
    resolve_path,
)
from dagster_retl.model.mistakes import did_you_mean, gather
from dagster_retl.model.references import broken_references
from dagster_retl.model.sync import Sync
from dagster_retl.model.units import ByteSize, Duration, DurationOrZero, Seconds, Share

DEFAULT_STORE = "sqlite:///.retl/retl.db"
DEFAULT_STATE = ".retl/state"

_STORE_BACKENDS = frozenset({"sqlite", "postgresql"})
_LEAST_MEMORY = 32_000_000
_FERNET_BYTES = 32


class Warehouse(Definition):
    """A named source connection. `name` is its key in the project."""

    name: str = ""
    url: str = Field(repr=False)
    """SQLAlchemy URL; a relative DuckDB or SQLite file is relative to retl.yaml."""
    connect_args: Mapping[str, Any] = Field(default={}, repr=False)
    """Arguments for the driver."""
    timezone: str | None = None
    """IANA time zone of the session; unset: the warehouse's own."""
    statement_timeout: Seconds | None = None
    """Seconds (or `5m`) after which the warehouse gives up on a query."""
    query_tag: str | None = None
    """Text that marks our queries in the warehouse's query history."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        check_url(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str | None) -> str | None:
        return None if value is None else check_timezone(value)

    @property
    def display_url(self) -> str:
        """The URL without secrets."""
        return display_url(self.url)


class Destination(Definition):
    """A configured connection of one connector. `id` is its key in the project; `config` is the connector's own."""

    id: str = ""
    name: str = ""
    """What people call it; the id where nothing is said."""
    connector: str = Field(min_length=1)
    """Name of an installed connector."""
    config: Mapping[str, Any] = Field(default={}, repr=False)
    """Settings of the connector."""
    check_every: Duration | None = None
    """Ask it this often whether it answers (`15m`); unset: only while it is known to be down."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_id(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not value.get("name") and value.get("id"):
            return {**value, "name": value["id"]}
        return value


AlertEvent = Literal["run_failed", "destination_down", "guard_tripped", "dead_letters", "stale", "recovered"]


class DeadLetterThresholds(Definition):
    """When dead letters are worth a message."""

    new_codes: bool = True
    """A code that this destination has not failed with before."""
    open: int | None = Field(None, ge=1)
    """This many open entries."""
    rate: Share | None = None
    """This share of a run's rows."""
    age: Duration | None = None
    """An entry that has been open for this long."""


class AlertRule(Definition):
    """Who is told about what, and how often."""

    notify: tuple[str, ...] = Field(min_length=1, repr=False)
    """Apprise URLs."""
    on: tuple[AlertEvent, ...] = Field(
        ("run_failed", "destination_down", "guard_tripped", "dead_letters", "recovered"), min_length=1
    )
    """The events to tell about."""
    dead_letters: DeadLetterThresholds = DeadLetterThresholds()
    """When dead letters are worth a message."""
    repeat_after: Duration = timedelta(hours=24)
    """The same (destination, code) is told again after this time."""


class Retention(Definition):
    """How long the store keeps what nothing needs any more."""

    runs: Duration = timedelta(days=90)
    """Ended runs."""
    row_history: DurationOrZero = timedelta(days=14)
    """What became of single rows; 0: it is not written down."""
    resolved_dead_letters: Duration = timedelta(days=30)
    """Resolved dead letters."""
    generations: int = Field(2, ge=2)
    """Snapshot generations of a sync."""


class DeadLetterSettings(Definition):
    """What is kept about rows that could not be written."""

    payloads: bool = False
    """Keep the JSON document that was refused, encrypted."""
    payload_key: SecretStr | None = None
    """Fernet keys, separated by commas: the first encrypts, all decrypt."""

    @field_validator("payload_key")
    @classmethod
    def _fernet_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(map(_is_fernet_key, value.get_secret_value().split(","))):
            raise ValueError(
                "expected a Fernet key (`Fernet.generate_key()` of cryptography makes one), or several with commas"
            )
        return value

    @model_validator(mode="after")
    def _key_for_payloads(self) -> Self:
        if self.payloads and self.payload_key is None:
            raise ValueError("`payloads: on` needs a `payload_key`: payloads are never kept in the clear")
        return self


def _is_fernet_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text.strip())) == _FERNET_BYTES
    except ValueError:
        return False


class EngineSettings(Definition):
    """What a run may use of this machine."""

    memory: ByteSize | None = None
    """Bytes of memory for the embedded compute engine; unset: an eighth of what there is, 96MB at most."""
    threads: int | None = Field(None, ge=1, le=256)
    """Threads of the embedded compute engine; unset: as many as there are processors."""
    spill: str | None = None
    """Folder for what does not fit into memory, relative to retl.yaml; unset: the system's temporary folder."""

    @field_validator("memory")
    @classmethod
    def _enough_memory(cls, value: int | None) -> int | None:
        if value is not None and value < _LEAST_MEMORY:
            raise ValueError("less than 32MB is not enough to work with; a number without a unit is bytes")
        return value


class Project(Definition):
    """Warehouses, destinations and syncs that belong together; the owner of these syncs in a shared store.

    path: the file it came from. base: the folder that relative paths start at. elsewhere: syncs of the
    project that are defined elsewhere, which `after` may name.

    Raises `pydantic.ValidationError` with every mistake at once when it is built in Python, and
    `ProjectFileError` with their positions from `load`.
    """

    version: Literal[1] = 1
    """Version of this format."""
    project: str = Field("default", min_length=1)
    """Owner of these syncs in a shared store; their ids depend on it."""
    store: str = Field(DEFAULT_STORE, repr=False)
    """SQLite or Postgres URL of the store: runs, dead letters, leases."""
    state: str = Field(DEFAULT_STATE, repr=False)
    """Folder or URL (s3://, gs://, abfs://) of the snapshots."""
    writes: bool = True
    """off: every run is a plan, and no schedule or sensor starts by itself."""
    warehouses: Mapping[str, Warehouse]
    """Source connections by name."""
    destinations: Mapping[str, Destination]
    """Destinations by id."""
    syncs: tuple[Sync, ...]
    """What is sent, where, how and when."""
    alerts: tuple[AlertRule, ...] = ()
    """Who is told about failures."""
    retention: Retention = Retention()
    """How long the store keeps what nothing needs any more."""
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    """What is kept about rows that could not be written."""
    engine: EngineSettings = EngineSettings()
    """What a run may use of this machine."""
    path: Path | None = None
    base: Path = Field(default_factory=Path.cwd)
    elsewhere: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None) -> Project:
        """Read a project file.

        path: defaults to `RETL_PROJECT`, then to `retl.yaml`. environ: defaults to the process's
        environment; `RETL_STORE`, `RETL_STATE` and `RETL_WRITES` there replace what the file says.
        Raises `ProjectFileError` with every mistake of the file and the files it includes.
        """
        from dagster_retl.model.project_file import load_project  # noqa: PLC0415 - it builds on these nouns

        variables = os.environ if environ is None else environ
        return load_project(Path(path or variables.get("RETL_PROJECT") or "retl.yaml"), variables)

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping):
            return handler(value)
        data = _named(value)
        return gather(cls.__name__, handler, data, broken_references(_plain(data)))

    @field_validator("store")
    @classmethod
    def _store_backend(cls, value: str) -> str:
        if check_url(value).get_backend_name() not in _STORE_BACKENDS:
            raise ValueError(
                "the store is SQLite (sqlite:///path) or Postgres (postgresql+psycopg://user@host/database)"
            )
        return value

    @field_validator("base")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.absolute()

    @property
    def store_url(self) -> str:
        """The store's URL, a SQLite file's path made absolute. It may hold a password."""
        return resolve_database_url(self.store, self.base)

    @property
    def state_url(self) -> str:
        """An absolute path, or a URL such as `s3://bucket/folder`."""
        return resolve_path(self.state, self.base)

    @property
    def spill_folder(self) -> str | None:
        """The absolute path of `engine.spill`; None: the system's temporary folder."""
        return None if self.engine.spill is None else resolve_path(self.engine.spill, self.base)

    @property
    def display_store_url(self) -> str:
        """The store's URL without secrets."""
        return display_url(self.store_url)

    def sync(self, name: str) -> Sync:
        """The sync of that id, slug or name. Raises `NotFoundError`."""
        for attribute in ("id", "slug", "name"):
            for sync in self.syncs:
                if getattr(sync, attribute) == name:
                    return sync
        raise _not_found("sync", name, [sync.slug for sync in self.syncs])

    def destination(self, destination_id: str) -> Destination:
        """The destination of that id. Raises `NotFoundError`."""
        if destination_id not in self.destinations:
            raise _not_found("destination", destination_id, self.destinations)
        return self.destinations[destination_id]

    def warehouse(self, name: str = "default") -> Warehouse:
        """The warehouse of that name. Raises `NotFoundError`."""
        if name not in self.warehouses:
            raise _not_found("warehouse", name, self.warehouses)
        return self.warehouses[name]


def _not_found(kind: str, name: str, known: Iterable[str]) -> NotFoundError:
    names = list(known)
    hint = did_you_mean(name, names) if names else f"The project defines no {kind}."
    return NotFoundError(f"there is no {kind} {name!r} in the project", hint=hint)


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    """The project's data with keys as names: of warehouses and destinations, and the project's in its syncs."""
    data = dict(value)
    for section, field in (("warehouses", "name"), ("destinations", "id")):
        if section in data:
            data[section] = _keyed(data[section], field)
    if isinstance(data.get("syncs"), (list, tuple)):
        project = data.get("project", "default")
        data["syncs"] = [_owned(sync, project) for sync in data["syncs"]]
    return data


def _keyed(section: Any, field: str) -> Any:
    """A mapping of name → item with the names put into the items; a list of named items likewise."""
    if isinstance(section, (list, tuple)) and all(isinstance(item, Definition) for item in section):
        section = {getattr(item, field): item for item in section}
    if not isinstance(section, Mapping):
        return section
    return {key: _with_default(item, field, key) for key, item in section.items()}


def _owned(sync: Any, project: Any) -> Any:
    return _with_default(sync, "project", project)


def _with_default(item: Any, field: str, value: Any) -> Any:
    """The item (plain data or a model) with this field, unless it says one itself."""
    if isinstance(item, Definition) and field not in item.model_fields_set:
        return type(item).model_validate(item.model_dump(exclude_unset=True) | {field: value})
    if isinstance(item, Mapping):
        return {field: value, **item}
    return item


def _plain(value: Any) -> Any:
    """Models, wherever they are in the data, as the mappings that a file would hold."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
