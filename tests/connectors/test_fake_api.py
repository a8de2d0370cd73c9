"""The base of fakes: routes, the door, refusals, and answers that come late."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from dagster_retl.testing import Call, FakeApi, Received, RefusedError, Reply, faults


class Shelf(FakeApi):
    """Things by name."""

    def __init__(self) -> None:
        super().__init__()
        self.things: dict[str, Any] = {}
        self.route("GET", "/things/all", lambda call: Reply.json(list(self.things)))
        self.route("GET", "/things/{name}", self._get)
        self.route("PUT", "/things/{name}", self._put)

    def admit(self, request: Received) -> Reply | None:
        return None if request.headers.get("x-key") == "open" else Reply(401)

    def lost(self, request: Received) -> Reply:
        return Reply.json({"nothing": f"{request.method} {request.path}"}, 404)

    def _get(self, call: Call) -> Reply:
        if call.parts["name"] not in self.things:
            raise RefusedError(Reply.json({"missing": call.parts["name"]}, 410))
        return Reply.json({"value": self.things[call.parts["name"]], "asked": call.query})

    def _put(self, call: Call) -> Reply:
        self.things[call.parts["name"]] = call.json()
        return Reply(204)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with Shelf() as shelf:
        yield shelf


@pytest.fixture
def client(shelf: Shelf) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shelf.url, headers={"X-Key": "open"}) as client:
        yield client


def test_names_in_an_address_are_decoded(shelf: Shelf, client: httpx.Client) -> None:
    assert client.put("/things/a%2Fb%20c", content=b"1.50").status_code == 204
    assert shelf.things == {"a/b c": Decimal("1.50")}
    answer = client.get("/things/a%2Fb%20c", params={"q": "x y", "empty": ""})
    assert answer.content == b'{"value":1.50,"asked":{"q":"x y","empty":""}}'


def test_the_first_route_that_fits_answers(client: httpx.Client) -> None:
    assert client.get("/things/all").json() == []
    assert client.get("/things/other").json() == {"missing": "other"}


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/things/a"), ("GET", "/things"), ("GET", "/things/a/b")])
def test_what_no_route_fits_is_lost(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (404, {"nothing": f"{method} {path}"})


def test_nobody_comes_in_without_the_key(shelf: Shelf) -> None:
    assert httpx.put(f"{shelf.url}/things/a", content=b"1").status_code == 401
    assert shelf.things == {}


def test_a_late_request_is_applied_later(shelf: Shelf, client: httpx.Client) -> None:
    shelf.disturb(faults.late_unavailable(), times=2)
    assert client.put("/things/a", content=b"1").status_code == 503
    assert httpx.put(f"{shelf.url}/things/b", content=b"1").status_code == 503
    assert shelf.things == {}
    shelf.land()
    assert shelf.things == {"a": 1}, "who was refused at the door is not applied"
