"""Driver: dlt with a custom destination, tuned as its documentation says: Arrow backend, Parquet files, many load jobs.

It runs in an environment of its own. Settings: folder, warehouse (libpq URL), destination (URL), batch_rows,
concurrency, rows; optional: one_by_one.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
os.environ["DLT_DATA_DIR"] = json.loads(sys.argv[1])["folder"]

import dlt
import orjson
import requests
from dlt.sources.sql_database import sql_table
from measure import drive


def configure(settings: Mapping[str, Any], file_rows: int) -> None:
    """Side by side: as many files, and as many workers, as requests may be in flight."""
    os.environ["LOAD__WORKERS"] = str(settings["concurrency"])
    os.environ["DATA_WRITER__FILE_MAX_ITEMS"] = str(file_rows)
    os.environ["NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS"] = str(file_rows)


def service_of(settings: Mapping[str, Any]) -> Any:
    """A destination that posts the rows of each batch; a thread keeps its connection."""
    local = threading.local()
    address = f"{settings['destination']}/v1/people"
    one_by_one = bool(settings.get("one_by_one"))
    size = 1 if one_by_one else settings["batch_rows"]

    @dlt.destination(batch_size=size, loader_file_format="parquet", name="service", skip_dlt_columns_and_tables=True)
    def service(items: Any, table: Any) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        rows = items.to_pylist()
        content = orjson.dumps(rows[0] if one_by_one else rows, default=float)
        answer = local.session.post(address, data=content, headers={"Content-Type": "application/json"}, timeout=30)
        answer.raise_for_status()

    return service


def run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run; what it says it did."""
    file_rows = max(1, settings["rows"] // settings["concurrency"])
    configure(settings, file_rows)
    pipeline = dlt.pipeline(
        "people", destination=service_of(settings), dataset_name="people", pipelines_dir=settings["folder"]
    )
    table = sql_table(
        credentials=settings["warehouse"].replace("postgresql://", "postgresql+psycopg2://", 1),
        table="people",
        backend="pyarrow",
        chunk_size=min(50_000, file_rows),
    )
    pipeline.run(table).raise_on_failed_jobs()
    return {"written": pipeline.last_trace.last_normalize_info.row_counts["people"]}


if __name__ == "__main__":
    drive(run)
