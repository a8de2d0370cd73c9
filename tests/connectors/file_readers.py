"""Files as others read them: without the connector's own code."""

from __future__ import annotations

import csv
import gzip
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dagster_retl.connectors.files import FilesConnector
from dagster_retl.connectors.files_config import FilesConfig

Rows = list[dict[str, Any]]


def make_connector(url: object, **settings: Any) -> FilesConnector:
    return FilesConnector(FilesConfig.model_validate({"url": str(url), **settings}))


def parts(folder: Path) -> list[Path]:
    """All files that are no leftovers, in the order in which they were written."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def only_part(folder: Path) -> Path:
    (path,) = parts(folder)
    return path


def read(path: Path) -> Rows:
    """The rows of a file; those of CSV are text."""
    if path.suffix == ".parquet":
        return read_parquet(path)
    return read_jsonl(path) if ".jsonl" in path.suffixes else read_csv_by_duckdb(path)


def read_csv(path: Path, delimiter: str = ",") -> Rows:
    """By Python's reader, for which a null and an empty text are the same."""
    text = io.StringIO(plain(path).decode(), newline="")
    return list(csv.DictReader(text, delimiter=delimiter, strict=True))


def read_csv_by_duckdb(path: Path, delimiter: str = ",", null_text: str = "") -> Rows:
    with duckdb.connect() as connection:
        found = connection.execute(
            """SELECT * FROM read_csv(?, header = true, all_varchar = true, auto_detect = false, columns = ?,
                delim = ?, quote = '"', escape = '"', nullstr = ?, allow_quoted_nulls = false,
                hive_partitioning = false, max_line_size = 50000000)""",
            [str(path), dict.fromkeys(_header(path, delimiter), "VARCHAR"), delimiter, null_text],
        )
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _header(path: Path, delimiter: str) -> list[str]:
    return next(csv.reader(io.StringIO(plain(path).decode(), newline=""), delimiter=delimiter))


def read_jsonl(path: Path) -> Rows:
    return [json.loads(line, parse_float=Decimal) for line in plain(path).decode().split("\n")[:-1]]


def read_parquet(path: Path) -> Rows:
    rows: Rows = pq.ParquetFile(path).read().to_pylist()
    return rows


def plain(path: Path) -> bytes:
    """A file without its compression."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            return bytes(stream.read())
    return path.read_bytes()
