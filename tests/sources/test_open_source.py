"""From a URL to a source: which one, what is missing, and no secret in any message."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy.engine import make_url

from dagster_retl.errors import ConfigurationError, SourceError
from dagster_retl.model.redactor import Redactor
from dagster_retl.sources.connection_secrets import connection_secrets
from dagster_retl.sources.open import open_source
from dagster_retl.sources.rows_to_arrow import infer, to_array


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("duckdb:///x.duckdb", "duckdb"),
        ("sqlite:///x.db", "sqlite"),
        ("postgresql://host/db", "postgres"),
        ("postgresql+psycopg2://host/db", "postgres"),
        ("mysql+pymysql://host/db", "mysql"),
        ("mariadb+pymysql://host/db", "mysql"),
    ],
)
def test_the_url_decides(tmp_path: Path, url: str, dialect: str) -> None:
    with open_source(url, name="w", base=tmp_path) as source:
        assert source.dialect == dialect


def test_a_missing_driver_names_its_extra(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="warehouse 'w' needs the driver") as caught:
        open_source("bigquery://project/dataset", name="w", base=tmp_path)

    assert caught.value.hint == "Install it: pip install 'dagster-retl[bigquery]'"


def test_a_url_that_is_none_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="warehouse 'w': expected a database URL") as caught:
        open_source("ann:s3cret@host", name="w", base=tmp_path)

    assert "s3cret" not in str(caught.value)


def test_a_timeout_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`statement_timeout` is not supported for oracle"):
        open_source("oracle://host/db", name="w", base=tmp_path, statement_timeout=5)


def test_secrets_are_replaced_however_they_are_written() -> None:
    url = make_url("postgresql://ann:p%40ss%2Fword@host/db?sslpassword=tls%21")
    redact = Redactor(
        connection_secrets(url, {"private_key": "abc123", "options": {"auth_token": "t0ken"}, "warehouse": "WH"})
    )

    text = redact("p@ss/word p%40ss%2Fword tls! abc123 t0ken WH ann host")

    assert text == "*** *** *** *** *** WH ann host"


def test_importing_sources_imports_neither_pandas_nor_drivers() -> None:
    script = (
        "import sys, dagster_retl.sources.open, dagster_retl.sources.query; "
        "print([m for m in ('pandas', 'psycopg', 'adbc_driver_manager', 'pymysql', 'dagster') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2**63 - 1], pa.int64()),
        ([1, 2**63], pa.string()),
        ([True, None], pa.bool_()),
        ([True, 1], pa.string()),
        ([1, 0.5], pa.string()),
        ([0.5], pa.float64()),
        ([Decimal("1.50"), Decimal(-3)], pa.decimal128(38, 2)),
        ([Decimal("1E+3")], pa.decimal128(38, 0)),
        ([Decimal("NaN")], pa.string()),
        ([Decimal(10) ** 30, Decimal("1E-20")], pa.string()),
        ([date(2020, 1, 1)], pa.date32()),
        ([datetime(2020, 1, 1)], pa.timestamp("us")),  # noqa: DTZ001 a timestamp without zone
        ([datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2)))], pa.timestamp("us", "UTC")),
        ([b"x", bytearray(b"y")], pa.binary()),
        ([{"a": 1}], pa.string()),
        ([None, None], pa.string()),
        ([], pa.string()),
    ],
)
def test_the_first_block_decides_on_an_exact_type(values: list[Any], kind: pa.DataType) -> None:
    assert infer(values) == kind


def test_values_keep_their_meaning() -> None:
    moment = datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2)))

    assert to_array("a", [moment], pa.timestamp("us", "UTC"))[0].as_py().isoformat() == "2019-12-31T22:00:00+00:00"
    assert to_array("a", [{"a": Decimal("1.5")}, 1, None, "x"], pa.string()).to_pylist() == [
        '{"a":"1.5"}',
        "1",
        None,
        "x",
    ]
    assert to_array("a", [timedelta(hours=-25)], pa.string()).to_pylist() == ["-25:00:00"]
    assert to_array("a", [memoryview(b"x")], pa.binary()).to_pylist() == [b"x"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", pa.int64()),
        (2**63, pa.int64()),
        (2, pa.bool_()),
        (0.5, pa.int64()),
        (Decimal("0.5"), pa.int64()),
        (0.5, pa.decimal128(38, 2)),
        (datetime(2020, 1, 1, 10), pa.date32()),  # noqa: DTZ001 a timestamp without zone
        (datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=2))), pa.timestamp("us")),
        (time(1, tzinfo=timezone(timedelta(hours=2))), pa.time64("us")),
        (Decimal("1.234"), pa.decimal128(38, 2)),
        (Decimal("NaN"), pa.decimal128(38, 2)),
        ("0000-00-00", pa.date32()),
        (b"\xff", pa.string()),
        (2**53 + 1, pa.float64()),
    ],
)
def test_a_later_value_that_does_not_fit_fails_and_is_never_changed(value: Any, kind: pa.DataType) -> None:
    with pytest.raises(SourceError, match="column 'price' was taken for") as caught:
        to_array("price", [value], kind)

    assert "Cast the column" in (caught.value.hint or "")
