"""What the tests of the `iterable` connector share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.iterable import IterableConnector
from dagster_retl.connectors.iterable_config import IterableConfig
from dagster_retl.model.rows import Batch, RowResult
from dagster_retl.testing import converse, make_batch
from dagster_retl.testing.fake_iterable import FakeIterable

KEY = "9f1c2d7ab04e4c21a7c4f2be1d6a5e33"
USERS: Sequence[Mapping[str, Any]] = [{"email": "ada@example.com"}, {"email": "Bob@Example.com"}]


def connector(place: FakeIterable | None = None, **settings: Any) -> IterableConnector:
    """A connector to a fake, or to nowhere."""
    base = {"base_url": place.url} if place else {}
    return IterableConnector(IterableConfig.model_validate({"api_key": KEY, **base, **settings}))


def batch(rows: Sequence[Mapping[str, Any]], object_name: str = "users", key: str = "email", **options: Any) -> Batch:
    """Rows as the engine hands them over."""
    wire = IterableConnector.spec.wire_form
    return make_batch(rows, object_name=object_name, key=key, wire=wire, **options)


def talk(
    rows: Sequence[Mapping[str, Any]], *answers: httpx.Response, settings: Mapping[str, Any] | None = None, **how: Any
) -> tuple[list[Request], Sequence[RowResult]]:
    """Write rows, with given answers."""
    return converse(connector(**(settings or {})).write(batch(rows, **how)), *answers)


def sent(request: Request) -> Any:
    """The body of a request."""
    return json.loads(request.content or b"null")


def counts(succeeded: int, failed: int = 0, **more: Any) -> httpx.Response:
    """The answer to a bulk request."""
    return httpx.Response(200, json={"successCount": succeeded, "failCount": failed, **more})


def faults(results: Sequence[RowResult]) -> dict[str, tuple[str, str | None]]:
    """Rows that failed: their codes, ours and the vendor's."""
    return {each.key: (each.fault.code.value, each.fault.vendor_code) for each in results if each.fault}


def shared(name: str) -> Path:
    """A file of the folder with vendors' contracts and recorded traffic; skips where there is none."""
    folder = Path(os.environ.get("RETL_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    if not (folder / name).exists():
        pytest.skip(f"there is no {name} in {folder} (set RETL_SHARED)")
    return folder / name
