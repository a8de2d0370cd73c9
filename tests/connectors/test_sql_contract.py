"""The contract of connectors, for `sql` on databases that need no server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from sql_databases import DuckPlace, EnginePlace, Place, make_connector, new_file

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.connectors.sql import SqlConnector
from dagster_retl.testing.contract import ConnectorContract

TABLE = """CREATE TABLE contacts (
    id VARCHAR(20) PRIMARY KEY, name VARCHAR(40) CHECK (name <> 'poison'), text VARCHAR(200), amount {amount},
    big BIGINT, "nothing" INTEGER, flag BOOLEAN, "address.city" VARCHAR(40)
)"""


class _OfAFile(ConnectorContract):
    connector_type = SqlConnector
    dialect: ClassVar[str]
    amount: ClassVar[str]
    kind: ClassVar[type[Place]]
    examples = 5

    def destination(self) -> AbstractContextManager[Place]:
        return self._file()

    @contextmanager
    def _file(self) -> Iterator[Place]:
        with TemporaryDirectory() as folder, self.kind(new_file(self.dialect, Path(folder))) as place:
            place.run(TABLE.format(amount=self.amount))
            yield place

    def connector(self, destination: Place) -> AnyConnector:
        return make_connector(destination.url)

    def stored(self, destination: Place) -> Mapping[str, Mapping[str, Any]]:
        names = [name for (name,) in destination.ask("SELECT name FROM pragma_table_info('contacts')")]
        return {row[0]: self._record(names, row) for row in destination.ask("SELECT * FROM contacts")}

    def _record(self, names: list[str], row: tuple[Any, ...]) -> dict[str, Any]:
        """The fields that a test wrote: those of the sample, or the two of an ordinary row."""
        written = self.sample() if row[0] == "sample" else self.values(0)
        return {name: self._read(name, value) for name, value in zip(names, row, strict=True) if name in written}

    def _read(self, name: str, value: Any) -> Any:
        return value

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "name": "poison"}


class TestDuckdb(_OfAFile):
    dialect = "duckdb"
    amount = "DECIMAL(20, 2)"
    kind = DuckPlace


class TestSqlite(_OfAFile):
    """Decimals go to a column of text, the only one of SQLite that keeps all their digits."""

    dialect = "sqlite"
    amount = "TEXT"
    kind = EnginePlace

    def _read(self, name: str, value: Any) -> Any:
        return bool(value) if name == "flag" else value

    def expected(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: str(value) if name == "amount" else value for name, value in values.items()}
