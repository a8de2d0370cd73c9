"""Columns, constants and defaults: what goes in, what comes out, and in which type."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dagster_retl.errors import ConfigurationError, ErrorCode, SourceError
from dagster_retl.mapping.compile import CompiledMapping, compile_mapping
from dagster_retl.model.sync import FieldMapping

JSON = pa.json_(pa.string())


def source(expression: str, **more: Any) -> FieldMapping:
    return FieldMapping(destination="x", source=expression, **more)


def mapped(columns: dict[str, Any], *mappings: FieldMapping) -> tuple[CompiledMapping, pa.Table]:
    block = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with compile_mapping(mappings, block.schema) as mapping:
        return mapping, mapping.apply(block)


def values(columns: dict[str, Any], mapping: FieldMapping) -> list[Any]:
    return list(mapped(columns, mapping)[1].column("x").to_pylist())


def extension(kind: Any, storage: list[Any]) -> Any:
    return pa.ExtensionArray.from_storage(kind, pa.array(storage, kind.storage_type))


MOMENT = datetime(2025, 3, 27, 17, 0, 0, 120_000, tzinfo=UTC)
NAIVE = MOMENT.replace(tzinfo=None)
TEXTS = pa.array(["a", None])
KINDS: list[tuple[Any, Any, Any]] = [
    (pa.array([2**63 - 1, None]), pa.int64(), 2**63 - 1),
    (pa.array([2**64 - 1, None], pa.uint64()), pa.uint64(), 2**64 - 1),
    (pa.array([1.5, None], pa.float16()), pa.float32(), 1.5),
    (pa.array([0.1, None]), pa.float64(), 0.1),
    (pa.array([True, None]), pa.bool_(), True),
    (pa.array([Decimal("1.50"), None], pa.decimal32(5, 2)), pa.decimal128(5, 2), Decimal("1.50")),
    (pa.array([Decimal("1.5"), None], pa.decimal256(38, 1)), pa.decimal128(38, 1), Decimal("1.5")),
    (pa.array([Decimal("1E-38"), None], pa.decimal256(76, 38)), pa.string(), "0." + "0" * 37 + "1"),
    (TEXTS.cast(pa.large_string()), pa.string(), "a"),
    (TEXTS.cast(pa.string_view()), pa.string(), "a"),
    (TEXTS.dictionary_encode(), pa.string(), "a"),
    (pa.RunEndEncodedArray.from_arrays([1, 2], TEXTS), pa.string(), "a"),
    (pa.array([None, None]), pa.string(), None),
    (pa.array([b"ab", None], pa.binary(2)), pa.binary(), b"ab"),
    (pa.array([b"ab", None], pa.binary_view()), pa.binary(), b"ab"),
    (pa.array([date(2025, 3, 27), None], pa.date64()), pa.date32(), date(2025, 3, 27)),
    (pa.array([time(1, 2, 3), None], pa.time32("s")), pa.time64("us"), time(1, 2, 3)),
    (pa.array([NAIVE, None], pa.timestamp("ms")), pa.timestamp("us"), NAIVE),
    (pa.array([MOMENT, None], pa.timestamp("us", "Asia/Tokyo")), pa.timestamp("us", "UTC"), MOMENT),
    (pa.array([MOMENT, None], pa.timestamp("ms", "Asia/Tokyo")), pa.timestamp("us", "UTC"), MOMENT),
    (pa.array([timedelta(hours=25), None]), pa.string(), "25:00:00"),
    (pa.array([["a"], None], pa.list_(pa.large_string())), pa.list_(pa.field("l", pa.string())), ["a"]),
    (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.list_(pa.field("l", pa.int8())), [1, 2]),
    (pa.array([{"a": 1}, None]), pa.struct([("a", pa.int64())]), {"a": 1}),
    (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), pa.map_(pa.string(), pa.int8()), [("k", 1)]),
    (extension(pa.uuid(), [uuid.UUID(int=5).bytes, None]), pa.string(), str(uuid.UUID(int=5))),
    (extension(JSON, ['{"a":1}', None]), JSON, '{"a":1}'),
    (extension(pa.opaque(pa.string(), "numeric", "PostgreSQL"), ["1.5", None]), pa.string(), "1.5"),
    (extension(pa.bool8(), [1, None]), pa.bool_(), True),
]


@pytest.mark.parametrize(("column", "kind", "value"), KINDS, ids=[str(column.type) for column, _, _ in KINDS])
def test_a_column_keeps_its_values(column: Any, kind: Any, value: Any, tmp_path: Path) -> None:
    mapping, table = mapped({"c": column}, source("c"))
    assert mapping.fields[0].arrow_type == table.schema.field("x").type == kind
    assert table.column("x").to_pylist() == [value, None]
    assert table.column_names == ["x", "_error_field", "_error"]
    assert table.column("_error_field").to_pylist() == [None, None]
    with duckdb.connect() as connection:
        connection.register("mapped", table)
        connection.execute(f"COPY mapped TO '{tmp_path}/rows.parquet'")
        before, after = (
            connection.sql(f"SELECT x::VARCHAR, typeof(x) FROM {each}").fetchall()
            for each in ("mapped", f"'{tmp_path}/rows.parquet'")
        )
    assert before == after


def test_nanoseconds_are_kept() -> None:
    column = pa.array([1, None], pa.int64()).cast(pa.timestamp("ns", "Europe/Paris"))
    _, table = mapped({"c": column}, source("c"))
    assert table.column("x").type == pa.timestamp("ns", "UTC")
    assert table.column("x").cast(pa.int64()).to_pylist() == [1, None]


def test_names_of_columns() -> None:
    columns = {"ID": pa.array([1]), "id": pa.array([2]), "E-mail (work)": pa.array(["x"]), "a + b": pa.array(["sum"])}
    assert values(columns, source("ID")) == [1]
    assert values(columns, source("id")) == [2]
    assert values(columns, source("e-MAIL (WORK)")) == ["x"]
    assert values(columns, source("a + b")) == ["sum"]
    assert values(columns, source('"ID" * 10 + "id"')) == [12]
    assert values({"Straße": pa.array([1])}, source("STRASSE")) == [1]


def test_an_ambiguous_column() -> None:
    columns = {"ID": pa.array([1]), "id": pa.array([2]), "n": pa.array([3]), "n ": pa.array([4])}
    for expression in ("Id", "Id + n"):
        with pytest.raises(ConfigurationError, match="'Id' could be any of the columns 'ID', 'id'"):
            mapped(columns, source(expression))
    block = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    with pytest.raises(ConfigurationError, match="'id' could be any of the columns 'id', 'id'"):
        compile_mapping([source("id")], block.schema)


@pytest.mark.parametrize("expression", ["emial", "upper(emial)", "emial.domain"])
def test_a_missing_column(expression: str) -> None:
    with pytest.raises(SourceError, match="no column 'emial'") as caught:
        mapped({"email": pa.array(["x"]), "name": pa.array(["y"])}, source(expression))
    assert caught.value.code is ErrorCode.SOURCE_COLUMN_MISSING
    assert caught.value.hint == "Did you mean 'email'? Columns: email, name."


def test_lineage_and_policies() -> None:
    mappings = [
        FieldMapping(destination="Id", source="ID", key=True),
        FieldMapping(destination="Name", source="last || ', ' || First", on_null="omit"),
        FieldMapping(destination="Tag", value="x"),
    ]
    mapping, _ = mapped({"id": pa.array([1]), "first": pa.array(["a"]), "last": pa.array(["b"])}, *mappings)
    assert mapping.sources == {"Id": ("id",), "Name": ("last", "first"), "Tag": ()}
    assert [(each.name, each.key, each.omit_null) for each in mapping.fields] == [
        ("Id", True, False),
        ("Name", False, True),
        ("Tag", False, False),
    ]


CONSTANTS: list[tuple[Any, Any, Any]] = [
    (None, pa.string(), None),
    (True, pa.bool_(), True),
    (5, pa.int64(), 5),
    (2**64, pa.decimal128(38, 0), Decimal(2**64)),
    (1.5, pa.float64(), 1.5),
    ("1.50", pa.string(), "1.50"),
    (Decimal("1.50"), pa.decimal128(3, 2), Decimal("1.50")),
    (date(2025, 3, 27), pa.date32(), date(2025, 3, 27)),
    (MOMENT, pa.timestamp("us", "UTC"), MOMENT),
    (NAIVE, pa.timestamp("us"), NAIVE),
    ([1, None, "é"], JSON, '[1, null, "é"]'),
    ({"b": {"c": True}, "a": []}, JSON, '{"a": [], "b": {"c": true}}'),
]


@pytest.mark.parametrize(("constant", "kind", "value"), CONSTANTS)
def test_constants(constant: Any, kind: Any, value: Any) -> None:
    mapping, table = mapped({"c": pa.array([1, 2])}, FieldMapping(destination="x", value=constant))
    assert mapping.fields[0].arrow_type == table.column("x").type == kind
    assert table.column("x").to_pylist() == [value, value]


@pytest.mark.parametrize(
    "constant", [float("nan"), [float("inf")], {1, 2}, pytest.param(object(), id="object"), 10**39], ids=repr
)
def test_a_constant_that_cannot_be_sent(constant: Any) -> None:
    with pytest.raises(ConfigurationError, match="field 'x': its constant cannot be sent"):
        mapped({"c": pa.array([1])}, FieldMapping(destination="x", value=constant))


DEFAULTS: list[tuple[str, Any, Any]] = [
    ("n", 0, 0),
    ("n", 2.0, 2),
    ("n", "7", 7),
    ("s", "none", "none"),
    ("s", 5, "5"),
    ("n::DECIMAL(10,2)", "1.5", Decimal("1.50")),
    ("n::DOUBLE", 1.5, 1.5),
    ("n = 1", False, False),
    ("s::DATE", date(2025, 3, 27), date(2025, 3, 27)),
    ("s::DATE", "2025-03-27", date(2025, 3, 27)),
    ("s::TIMESTAMP", "2025-03-27T17:00:00.12", NAIVE),
    ("s::TIMESTAMPTZ", "2025-03-27T18:00:00.12+01:00", MOMENT),
    ("s::TIMESTAMPTZ", NAIVE, MOMENT),
    ("s::TIME", "12:30:00", time(12, 30)),
    ("CASE WHEN n = 1 THEN [s] END", ["a"], ["a"]),
    ("s::JSON", {"a": 1}, '{"a": 1}'),
    ("e", "none", "none"),
]
ROWS = {"n": pa.array([None], pa.int64()), "s": pa.array([None], pa.string()), "e": pa.array([None])}


@pytest.mark.parametrize(("expression", "default", "value"), DEFAULTS)
def test_a_default_replaces_a_null(expression: str, default: Any, value: Any) -> None:
    assert values(ROWS, source(expression, default=default)) == [value]


@pytest.mark.parametrize(
    ("expression", "default"),
    [
        ("n", "abc"),
        ("n", 1.5),
        ("n", True),
        ("s::DATE", "2025-13-01"),
        ("n::DECIMAL(4,2)", "1.234"),
        ("s", ["a"]),
        ("n::TINYINT", 300),
        ("s::TIMESTAMPTZ", "soon"),
        ("s::TIME", "noon"),
        ("[n]", "abc"),
    ],
)
def test_a_default_of_another_type(expression: str, default: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"field 'x': its default .* is not a value of its type"):
        mapped(ROWS, source(expression, default=default))


def test_a_default_leaves_other_values_alone() -> None:
    assert values({"n": pa.array([1, None, 3])}, source("n", default=2)) == [1, 2, 3]
    column = extension(JSON, ['{"a":1}', None])
    assert values({"j": column}, source("j", default=[])) == ['{"a":1}', "[]"]


@pytest.mark.parametrize("names", [["_error"], ["_error_field"], ["Email", "email"]])
def test_names_that_fields_cannot_have(names: list[str]) -> None:
    mappings = [FieldMapping(destination=name, value=1) for name in names]
    with pytest.raises(ConfigurationError, match="field"):
        compile_mapping(mappings, pa.schema([("c", pa.int8())]))


def test_a_block_of_other_columns_is_refused() -> None:
    first, second = (pa.RecordBatch.from_pydict({"c": pa.array([1], kind)}) for kind in (pa.int64(), pa.float64()))
    with compile_mapping([source("c + 1")], first.schema) as mapping:
        assert mapping.apply(first).num_rows == 1
        with pytest.raises(SourceError, match=r"\['c int64'\] became \['c double'\]"):
            mapping.apply(second)


def test_an_empty_block_has_the_types_of_a_full_one() -> None:
    full = pa.RecordBatch.from_pydict({"c": pa.array([1, 2, 3])})
    mappings = [FieldMapping(destination=f"f{number}", source=text) for number, text in enumerate(["c", "c + 1", "1"])]
    mappings.append(FieldMapping(destination="v", value=[1]))
    with compile_mapping(mappings, full.schema) as mapping:
        assert mapping.apply(full.slice(0, 0)).schema == mapping.apply(full).schema
        assert mapping.apply(full).column("f2").to_pylist() == [1, 1, 1]
