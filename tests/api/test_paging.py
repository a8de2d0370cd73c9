"""Pages: every entry once, newest first, whatever is added between two of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from api_desk import Desk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from dagster_retl import Service
from dagster_retl.api.paging import decode, encode
from dagster_retl.api.problems import ApiError
from dagster_retl.errors import ErrorCode
from dagster_retl.model.ids import SYNC_PREFIX, new_id
from dagster_retl.model.rows import Operation
from dagster_retl.store.clock import to_text
from dagster_retl.store.dead_letters import Failure
from dagster_retl.store.schema import dead_letters, runs
from dagster_retl.store.schema_syncs import syncs
from dagster_retl.store.stored_syncs import StoredSync

SYNC_ID = "retl_sync_0123456789abcdefghjkmnpqrs"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

Add = Callable[[Service, int], list[str]]


def add_runs(service: Service, count: int) -> list[str]:
    return [service.store.runs.create(SYNC_ID, "paged").id for _ in range(count)]


def add_letters(service: Service, count: int) -> list[str]:
    before = {letter.id for letter in service.store.dead_letters.list(SYNC_ID, limit=10_000)}
    keys = [new_id("k") for _ in range(count)]
    common = {"record_keys": '{"id": 1}', "message": "x", "operation": Operation.UPSERT, "rejection": True}
    failures = [Failure(key=key, code=ErrorCode.UNKNOWN, **common) for key in keys]
    with service.store.begin() as conn:
        service.store.dead_letters.fail(conn, SYNC_ID, "e", "retl_run_x", failures)
    return [each.id for each in service.store.dead_letters.list(SYNC_ID, limit=10_000) if each.id not in before]


def add_syncs(service: Service, count: int) -> list[str]:
    definition = {
        "source_query": "SELECT 1 AS id",
        "destination_id": "conn_nowhere",
        "object_name": "x",
        "field_mappings": [{"source": "id", "destination": "id", "key": True}],
    }
    made = []
    for _ in range(count):
        name = new_id("s")
        stored = StoredSync(new_id(SYNC_PREFIX), "default", name, name, definition, 1, LONG_AGO, LONG_AGO)
        made.append(service.store.syncs.create(stored, "test").id)
    return made


LISTS: dict[str, tuple[Add, Any, Any, dict[str, Any]]] = {
    "/runs": (add_runs, runs, runs.c.created_at, {"sync_id": SYNC_ID}),
    "/dlq": (add_letters, dead_letters, dead_letters.c.first_seen_at, {"sync_id": SYNC_ID}),
    "/syncs": (add_syncs, syncs, syncs.c.created_at, {"destination_id": "conn_nowhere"}),
}


@pytest.mark.parametrize("path", LISTS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.integers(0, 3), max_size=12),
    limit=st.integers(1, 5),
    between=st.lists(st.integers(0, 3), max_size=12),
)
def test_pages_hold_every_entry_once(
    api: httpx.Client, desk: Desk, path: str, ages: list[int], limit: int, between: list[int]
) -> None:
    add, table, column, filters = LISTS[path]
    with Service.open(desk.project()) as service:
        with service.store.begin() as conn:
            conn.execute(table.delete())
        made = add(service, len(ages))
        add_runs(service, 1)  # so that the sync was heard of
        with service.store.begin() as conn:
            for entry_id, age in zip(made, ages, strict=True):  # many at the same time
                moment = {column.name: to_text(LONG_AGO - timedelta(seconds=age))}
                conn.execute(update(table).where(table.c.id == entry_id).values(moment))
        expected = [entry_id for _, entry_id in sorted(zip([-age for age in ages], made, strict=True), reverse=True)]
        seen: list[str] = []
        cursor, waves = None, iter(between)
        while True:
            page = api.get(path, params={**filters, "limit": limit} | ({"cursor": cursor} if cursor else {})).json()
            assert len(page["data"]) <= limit
            seen += [entry["id"] for entry in page["data"]]
            cursor = page["meta"]["page"]["cursor"]
            if cursor is None:
                break
            add(service, next(waves, 0))
        assert [entry_id for entry_id in seen if entry_id in set(made)] == expected
        assert len(set(seen)) == len(seen)


@given(
    st.datetimes(timezones=st.just(UTC)), st.from_regex(r"\A[a-z0-9_]{1,40}\Z"), st.dictionaries(st.text(), st.text())
)
def test_a_cursor_comes_back_as_it_was(moment: datetime, entry_id: str, filters: dict[str, str]) -> None:
    cursor = encode((moment, entry_id), filters)
    assert decode(cursor, filters) == (moment, entry_id)
    with pytest.raises(ApiError) as caught:
        decode(cursor, {**filters, "one more": "filter"})
    assert caught.value.status == 400


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_anything_else_is_a_malformed_cursor(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode(text, {})
    assert (caught.value.status, caught.value.code) == (400, "MALFORMED_CURSOR")
