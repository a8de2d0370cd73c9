"""What the `http` connector sends."""

from __future__ import annotations

import hashlib
import hmac
from decimal import Decimal
from typing import Any, ClassVar

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Operation
from dagster_retl.testing import converse, make_batch, make_row

URL = "https://api.example/v1/{object}"
ROWS = [{"id": "a", "name": "Ada"}, {"id": "b", "name": "Bob"}]
OK = httpx.Response(204)


def connector(**settings: Any) -> HttpConnector:
    return HttpConnector(HttpConfig.model_validate({"url": URL, **settings}))


def sent(operation: str = "upsert", rows: Any = ROWS, key: Any = "id", **settings: Any) -> list[Request]:
    count = len(rows) if settings.get("body") == "object" or operation == "delete" else 1
    batch = make_batch(rows, operation=operation, key=key, idempotency_key="batch-key")
    return converse(connector(**settings).write(batch), *[OK] * count)[0]


@pytest.mark.parametrize(
    ("settings", "body", "content_type"),
    [
        ({}, b'[{"id":"a","name":"Ada"},{"id":"b","name":"Bob"}]', "application/json"),
        ({"body": "ndjson"}, b'{"id":"a","name":"Ada"}\n{"id":"b","name":"Bob"}\n', "application/x-ndjson"),
        (
            {"body": "envelope", "envelope_key": "records"},
            b'{"records":[{"id":"a","name":"Ada"},{"id":"b","name":"Bob"}]}',
            "application/json",
        ),
    ],
)
def test_bodies_of_many_rows(settings: dict[str, Any], body: bytes, content_type: str) -> None:
    (request,) = sent(**settings)
    assert (request.method, request.url) == ("POST", "https://api.example/v1/contacts")
    assert request.content == body
    assert request.headers["content-type"] == content_type


def test_an_object_body_makes_each_row_its_own_request() -> None:
    requests = sent(body="object")
    assert [request.content for request in requests] == [b'{"id":"a","name":"Ada"}', b'{"id":"b","name":"Bob"}']
    assert connector(body="object").batch_rows == 1


def test_rows_are_embedded_as_they_are() -> None:
    row = make_row({"id": "a"})
    raw = b'{"id":"a","amount":12345678901234567.8900,"big":18446744073709551616}'
    made = type(row)(row.key, row.key_values, row.values, orjson.Fragment(raw))
    requests, _ = converse(connector().write(make_batch([made])), OK)
    assert requests[0].content == b"[" + raw + b"]"


def test_dotted_destinations_nest() -> None:
    (request,) = sent(rows=[{"id": 1, "address.city": "Rome", "address.zip": "00100"}])
    assert orjson.loads(request.content or b"") == [{"id": 1, "address": {"city": "Rome", "zip": "00100"}}]


def test_a_method_per_operation() -> None:
    methods = {"upsert": "put", "insert": "POST", "update": "PATCH"}
    assert [sent(operation, method=methods)[0].method for operation in methods] == ["PUT", "POST", "PATCH"]


def test_configured_headers_win() -> None:
    (request,) = sent(headers={"X-Team": "data", "content-type": "application/vnd.acme+json"})
    headers = httpx.Headers(request.headers)
    assert (headers["X-Team"], headers["Content-Type"]) == ("data", "application/vnd.acme+json")


def test_the_signature_covers_the_bytes_sent() -> None:
    (request,) = sent(signing_secret="s3cret", signature_header="X-Acme-Signature")
    expected = hmac.new(b"s3cret", request.content or b"", hashlib.sha256).hexdigest()
    assert httpx.Headers(request.headers)["X-Acme-Signature"] == expected


def test_idempotency_keys_are_of_the_row_or_of_the_request() -> None:
    header = {"idempotency_header": "Idempotency-Key"}
    assert sent(**header)[0].headers["idempotency-key"] == "batch-key"
    rows = [make_row(row, idempotency_key=f"row-{row['id']}") for row in ROWS]
    keys = [request.headers["idempotency-key"] for request in sent(rows=rows, body="object", **header)]
    assert keys == ["row-a", "row-b"]


@pytest.mark.parametrize("operation", ["upsert", "insert", "update"])
@pytest.mark.parametrize("header", [None, "Idempotency-Key"])
def test_only_an_insert_without_a_key_may_not_be_repeated(operation: str, header: str | None) -> None:
    (request,) = sent(operation, idempotency_header=header)
    expected = operation != "insert" or header is not None
    assert request.idempotent is expected
    single = connector(idempotency_header=header, body="object")
    assert single.idempotent(Operation(operation)) is expected
    assert connector(idempotency_header=header).idempotent(Operation(operation)) is (operation != "insert")


class TestDeletes:
    BY_ADDRESS: ClassVar[dict[str, Any]] = {"url": URL + "/{id}"}

    def test_each_row_has_its_address(self) -> None:
        requests = sent("delete", delete=self.BY_ADDRESS)
        assert [(request.method, request.url, request.content) for request in requests] == [
            ("DELETE", "https://api.example/v1/contacts/a", None),
            ("DELETE", "https://api.example/v1/contacts/b", None),
        ]
        assert connector(delete=self.BY_ADDRESS).batch_rows_for(Operation.DELETE) == 1

    def test_keys_travel_in_a_body(self) -> None:
        delete = {"method": "POST", "url": URL + "/delete", "body": "array"}
        rows = [{"id": Decimal("12.50"), "owner.id": 7, "name": "not sent"}]
        (request,) = sent("delete", rows, ("id", "owner.id"), delete=delete)
        assert (request.method, request.content) == ("POST", b'[{"id":12.50,"owner":{"id":7}}]')
        assert connector(delete=delete, batch_rows=40).batch_rows_for(Operation.DELETE) == 40

    def test_without_settings_the_modes_say_why(self) -> None:
        assert "`delete`" in (connector().supports("delete") or "")
        assert "`delete`" in (connector().supports("mirror") or "")
        assert connector(delete=self.BY_ADDRESS).supports("mirror") is None

    def test_a_delete_without_settings_is_not_sent(self) -> None:
        with pytest.raises(DestinationError) as caught:
            next(connector().write(make_batch(ROWS, operation="delete")))
        assert caught.value.code is ErrorCode.CONFIGURATION

    @pytest.mark.parametrize("key", ["", ".", "..", None])
    def test_a_key_that_addresses_the_collection_is_not_sent(self, key: str | None) -> None:
        batch = make_batch([{"id": key}], operation="delete")
        requests, (result,) = converse(connector(delete=self.BY_ADDRESS).write(batch))
        assert requests == []
        assert result.fault
        assert result.fault.code is ErrorCode.MISSING_KEY

    def test_a_name_that_is_no_key_is_a_mistake_of_the_settings(self) -> None:
        with pytest.raises(DestinationError, match=r"\{email\}.*no key field") as caught:
            next(connector(delete={"url": URL + "/{email}"}).write(make_batch(ROWS, operation="delete")))
        assert caught.value.code is ErrorCode.CONFIGURATION

    @given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
    def test_no_key_leaves_its_segment(self, key: str) -> None:
        try:
            key.encode()
        except UnicodeEncodeError:
            return
        (request,) = sent("delete", [{"id": key}], delete=self.BY_ADDRESS)
        url = httpx.URL(request.url)
        assert (url.host, url.query, url.fragment) == ("api.example", b"", "")
        assert url.raw_path.count(b"/") == 3
        assert httpx.URL(request.url).raw_path.startswith(b"/v1/contacts/")


def test_the_address_of_a_record_may_be_written_to() -> None:
    requests = sent("update", method="PATCH", url=URL + "/{id}", body="object")
    assert [request.url for request in requests] == [f"https://api.example/v1/contacts/{key}" for key in "ab"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(42, "42"), (42.0, "42"), (Decimal("42.00"), "42"), (Decimal("1E+2"), "100"), (1.5, "1.5"), (True, "true")],
)
def test_keys_in_addresses_are_written_by_value(value: Any, text: str) -> None:
    (request,) = sent("delete", [{"id": value}], delete={"url": "https://api.example/{id}"})
    assert request.url == f"https://api.example/{text}"


def test_a_batch_that_is_too_large_is_split_before_it_is_sent() -> None:
    with pytest.raises(DestinationError) as caught:
        next(connector(batch_bytes=40).write(make_batch(ROWS)))
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    requests, (result,) = converse(connector(batch_bytes=20).write(make_batch(ROWS[:1])))
    assert requests == []
    assert result.fault
    assert result.fault.code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize("settings", [{}, {"body": "envelope", "envelope_key": "the records"}, {"body": "ndjson"}])
def test_frame_bytes_bound_the_body(settings: dict[str, Any]) -> None:
    (request,) = sent(**settings)
    rows = sum(len(orjson.dumps(row)) + 1 for row in ROWS)
    assert len(request.content or b"") <= rows + connector(**settings).frame_bytes


class TestDiscovery:
    def test_the_account_is_the_host(self) -> None:
        requests, account = converse(connector(url="http://localhost:8080/{object}?key=abcdefgh12").check())
        assert requests == []
        assert (account.id, account.name) == ("localhost:8080", "localhost:8080")

    def test_a_check_address_is_asked(self) -> None:
        asking = connector(check_url="https://api.example/ping")
        requests, _ = converse(asking.check(), OK)
        assert (requests[0].method, requests[0].url) == ("GET", "https://api.example/ping")
        with pytest.raises(DestinationError):
            converse(asking.check(), httpx.Response(403))

    def test_the_catalogue(self) -> None:
        catalogue = ["name", {"name": "id", "data_type": "string", "required": True, "external_id": True}]
        _, fields = converse(connector(fields=catalogue).fields("contacts"))
        assert [(field.name, field.label, field.required, field.external_id) for field in fields] == [
            ("name", "name", False, False),
            ("id", "id", True, True),
        ]
        assert converse(connector().fields("contacts")) == ([], [])

    def test_the_objects(self) -> None:
        _, objects = converse(connector(objects=["contacts"]).objects())
        assert [(found.api_name, found.supports_upsert) for found in objects] == [("contacts", True)]
        assert converse(connector().objects()) == ([], [])
