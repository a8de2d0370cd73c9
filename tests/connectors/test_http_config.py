"""Settings of the `http` connector: what is accepted, what is refused, what is shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig

URL = "https://api.example/v1/{object}"
SECRETS = ["tok-1234", "client-sec", "sig-5678", "hdr-9012", "url-3456"]


def config(**settings: Any) -> HttpConfig:
    return HttpConfig.model_validate({"url": URL, **settings})


def test_the_whole_documented_configuration_is_accepted() -> None:
    whole = config(
        method={"upsert": "PUT", "insert": "POST", "update": "PATCH"},
        headers={"X-Team": "data"},
        auth={"type": "bearer", "token": "t"},
        body="envelope",
        envelope_key="records",
        batch_rows=200,
        batch_bytes=1_000_000,
        rate_limit=20,
        concurrency=8,
        timeout=30,
        results={
            "errors_path": "errors",
            "index_field": "index",
            "key_field": "id",
            "code_field": "code",
            "message_field": "message",
        },
        delete={"method": "DELETE", "url": URL + "/{id}"},
        idempotency_header="Idempotency-Key",
        signing_secret="s",
        fields=[],
    )
    connector = HttpConnector(whole)
    assert [connector.supports(mode) for mode in ("upsert", "insert", "update", "delete", "mirror")] == [None] * 5
    assert (connector.batch_rows, connector.rate_limit, connector.concurrency) == (200, 20, 8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "api.example/{object}"}, "https://"),
        ({"url": "ftp://api.example/x"}, "https://"),
        ({"url": "file:///etc/passwd"}, "https://"),
        ({"url": "https://{id}.example/v1"}, "not in its host"),
        ({"url": "https://api.example{id}/v1"}, "not in its host"),
        ({"url": "{object}"}, "not in its host"),
        ({"url": "https://api.example/{object!r}"}, "name in braces"),
        ({"url": "https://api.example/{}"}, "name in braces"),
        ({"url": "https://api.example/{object"}, "'}'"),
        ({"url": "https://u:p@api.example/"}, "no user and password"),
        ({"url": URL + "/{id}"}, "`body: object`"),
        ({"body": "object", "batch_rows": 10}, "`batch_rows`"),
        ({"body": "envelope"}, "`envelope_key`"),
        ({"envelope_key": "x"}, "`body: envelope`"),
        ({"delete": {"url": URL}}, "name the record"),
        ({"delete": {"url": URL + "/{id}", "body": "array"}}, "names one record"),
        ({"method": "GET"}, "POST"),
        ({"headers": {"Bad Name": "x"}}, "not a header name"),
        ({"headers": {"X-A": "x\r\nX-B: y"}}, "printable ASCII"),
        ({"headers": {"Content-Length": "3"}}, "set by the transport"),
        ({"results": {"codes": {"X": "AUTH"}}}, "no fault of a single row"),
        ({"check_url": URL}, "takes no placeholders"),
        (
            {"auth": {"type": "oauth2", "token_url": URL, "client_id": "c", "client_secret": "s"}},
            "takes no placeholders",
        ),
        ({"auth": {"type": "digest"}}, "bearer"),
        ({"signing_key": "x"}, "signing_key"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    assert words in str(caught.value)


def test_an_operation_without_a_method_is_not_supported() -> None:
    connector = HttpConnector(config(method={"upsert": "PUT"}, delete={"url": URL + "/{id}"}))
    assert connector.supports("mirror") is None
    assert "`method` has no entry for 'insert'" in (connector.supports("insert") or "")


def _with_secrets() -> dict[str, Any]:
    return {
        "url": URL + "?key=url-3456",
        "auth": {
            "type": "oauth2",
            "token_url": "https://id.example/token?x=tok-1234",
            "client_id": "me",
            "client_secret": "client-sec",
        },
        "headers": {"X-Key": "hdr-9012"},
        "signing_secret": "sig-5678",
        "check_url": "https://api.example/ping?key=url-3456",
        "delete": {"url": URL + "/{id}?key=url-3456"},
    }


def test_nothing_secret_is_shown() -> None:
    connector = HttpConnector(config(**_with_secrets()))
    shown = f"{connector!r} {connector} {connector.config!r} {connector.config} {connector.identity()}"
    assert not [secret for secret in SECRETS if secret in shown]
    assert connector.config.model_dump_json().count("**********") == 3


def test_nothing_secret_is_in_complaints() -> None:
    with pytest.raises(ValidationError) as caught:
        config(**_with_secrets(), envelope_key="x", typo="y")
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
