"""The `sql` connector: rows into tables of Postgres, MySQL, MariaDB, SQLite and DuckDB.

Objects are tables (`table` or `schema.table`), fields are columns. A batch is one transaction;
when the database refuses it, halves of it are tried, so that one bad row fails alone and every
row has an answer. Upserts rest on a unique index over the key fields.

SQLite and DuckDB have one writer at a time: one batch is written at a time. Their files must exist.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from sqlalchemy.engine import URL

from dagster_retl.connectors.base import ConnectorConfig, ConnectorSpec, DirectConnector
from dagster_retl.connectors.sql_database import Database
from dagster_retl.connectors.sql_duckdb import DuckDatabase
from dagster_retl.connectors.sql_engine import EngineDatabase
from dagster_retl.connectors.sql_tables import Table
from dagster_retl.connectors.sql_urls import FILE_DIALECTS, parse_url, public_identity, public_name
from dagster_retl.connectors.sql_writing import BatchWriter
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.locations import resolve_database_url
from dagster_retl.model.rows import Account, Batch, FieldInfo, KeyForm, ObjectInfo, Operation, RowResult, WireForm


class SqlConfig(ConnectorConfig):
    """A database. `timeout` is for connecting and for one statement; a held lock is given up after half of it."""

    url: SecretStr
    """`postgresql://`, `mysql://`, `mariadb://`, `sqlite:///file` or `duckdb:///file`."""
    default_schema: str | None = Field(None, alias="schema", min_length=1)
    """Where tables are that are named without a schema."""
    connect_args: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    """Arguments for the driver (psycopg, PyMySQL, sqlite3); for DuckDB its configuration."""

    @field_validator("base_url", "proxy", "ca_file")
    @classmethod
    def _of_http(cls, value: object, info: ValidationInfo) -> None:
        if value is not None:
            raise ValueError(f"{info.field_name!r} is for destinations over HTTP; use `url` and `connect_args`")

    @field_validator("url")
    @classmethod
    def _known(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        """A database file is looked for beside retl.yaml, the `base` of the validation's context."""
        parse_url(value.get_secret_value())
        base = (info.context or {}).get("base")
        return value if base is None else SecretStr(resolve_database_url(value.get_secret_value(), base))

    def parsed_url(self) -> URL:
        """The URL with its driver; it holds the password."""
        return parse_url(self.url.get_secret_value())


class SqlConnector(DirectConnector):
    """Rows into the tables of a database."""

    spec: ClassVar[ConnectorSpec] = ConnectorSpec(
        name="sql",
        title="SQL database",
        modes=frozenset({"upsert", "insert", "update", "delete", "mirror"}),
        batch_rows=500,
        batch_bytes=4_000_000,
        concurrency=4,
        atomic_rejection=True,
        discoverable=True,
        wire_form=WireForm(nest=False),
        matching="A batch is one transaction; when it is refused, halves of it are tried, down to single rows.",
        documentation="https://docs.sqlalchemy.org/en/latest/dialects/",
    )
    Config: ClassVar[type[ConnectorConfig]] = SqlConfig

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__(config)
        self._opened: Database | None = None
        self._opening = threading.Lock()

    @property
    def _database(self) -> Database:
        """Opened at the first use: a connector is made where nothing is to be contacted, too."""
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Database:
        url: URL = self.config.parsed_url()
        schema: str | None = self.config.default_schema
        if url.get_backend_name() == "duckdb":
            where = public_identity(url)
            return DuckDatabase(url.database or "", where=where, schema=schema, config=self.config.connect_args)
        return EngineDatabase(
            url,
            schema=schema,
            concurrency=self.concurrency,
            timeout=self.config.timeout,
            connect_args=self.config.connect_args,
        )

    @property
    def concurrency(self) -> int:
        """A file has one writer at a time, whatever is configured."""
        one_writer = self.config.parsed_url().get_backend_name() in FILE_DIALECTS
        return 1 if one_writer else super().concurrency

    def identity(self) -> str:
        where = public_identity(self.config.parsed_url())
        return f"{where}?schema={self.config.default_schema}" if self.config.default_schema else where

    def key_form(self, object_name: str) -> KeyForm:
        """How the unique keys of the table compare text: its collations say so."""
        return self._database.table(object_name).key_form

    def check(self) -> Account:
        """Connect. Raises `DestinationError` (`AUTH`, `DESTINATION_DOWN`, …) saying why that failed."""
        self._database.ping()
        return Account(id=self.identity(), name=public_name(self.config.parsed_url()))

    def objects(self) -> list[ObjectInfo]:
        """All tables; those of the default schema are named without it."""
        database = self._database
        return [table.object_info(database.object_name(table.name)) for table in database.tables()]

    def fields(self, object_name: str) -> list[FieldInfo]:
        """The columns of a table, read anew."""
        return self._database.table(object_name, fresh=True).field_infos()

    def write(self, batch: Batch) -> list[RowResult]:
        """Write a batch; see `Connector.write`. Nothing of it was applied when this raises, unless `ambiguous`."""
        try:
            table = self._database.table(batch.object_name)
            if batch.operation is Operation.UPSERT:
                self._require_upsertable(table, batch.key_fields)
            return BatchWriter(self._database, table, batch).write()
        except DestinationError as error:
            if error.code in (ErrorCode.SCHEMA_DRIFT, ErrorCode.CONFIGURATION):
                self._database.forget(batch.object_name)
            raise

    def _require_upsertable(self, table: Table, key_fields: tuple[str, ...]) -> None:
        obstacle = self._database.upsert_obstacle(table, [table.column(field).name for field in key_fields])
        if obstacle is not None:
            raise obstacle

    def close(self) -> None:
        with self._opening:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
