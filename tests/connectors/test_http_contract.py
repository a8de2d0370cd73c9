"""The contract of connectors, for `http` in each of its shapes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.http_config import HttpConfig
from dagster_retl.testing import FakeHttpService, Rules
from dagster_retl.testing.contract import HttpConnectorContract

TOKEN = "tok-7f3a91c2"
SIGNING = "sign/0d1f+secret="


def _refuse(record: Mapping[str, Any]) -> str | None:
    return "the name is poison" if record.get("name") == "poison" else None


class _OfTheFake(HttpConnectorContract):
    connector_type = HttpConnector
    secrets = (TOKEN, SIGNING)
    rules: ClassVar[Mapping[str, Any]] = {}
    config: ClassVar[Mapping[str, Any]] = {}

    def destination(self) -> AbstractContextManager[FakeHttpService]:
        return FakeHttpService(Rules(token=TOKEN, signing_secret=SIGNING, refuse=_refuse, **self.rules))

    def connector(self, destination: FakeHttpService) -> HttpConnector:
        return self._with_token(destination, TOKEN)

    def unauthorised(self, destination: FakeHttpService) -> HttpConnector:
        return self._with_token(destination, "expired")

    def _with_token(self, destination: FakeHttpService, token: str) -> HttpConnector:
        settings = {
            "url": f"{destination.url}/v1/{{object}}",
            "auth": {"type": "bearer", "token": token},
            "signing_secret": SIGNING,
            "check_url": f"{destination.url}/v1/ping",
            "results": {},
            **self.config,
        }
        return HttpConnector(HttpConfig.model_validate(settings))

    def stored(self, destination: FakeHttpService) -> Mapping[str, Mapping[str, Any]]:
        return destination.records.get(self.object_name, {})

    def poisoned(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**values, "name": "poison"}


class TestArrayWithRowErrors(_OfTheFake):
    config: ClassVar[Mapping[str, Any]] = {"batch_rows": 5}


class TestArrayWithRowErrorsByKey(_OfTheFake):
    config: ClassVar[Mapping[str, Any]] = {"results": {"index_field": None, "key_field": "id"}}
    rules: ClassVar[Mapping[str, Any]] = {"partial_status": 207}


class TestArrayRefusedWhole(_OfTheFake):
    rules: ClassVar[Mapping[str, Any]] = {"refusals": "whole"}


class TestOneRowARequest(_OfTheFake):
    config: ClassVar[Mapping[str, Any]] = {"body": "object"}
    examples = 10


class TestNdjson(_OfTheFake):
    config: ClassVar[Mapping[str, Any]] = {"body": "ndjson", "batch_rows": 4}
    examples = 10


class TestEnvelope(_OfTheFake):
    config: ClassVar[Mapping[str, Any]] = {"body": "envelope", "envelope_key": "records"}
    examples = 10
