"""Logging in to Salesforce: one token for all threads, and requests that go to the org it belongs to.

A token comes without a lifetime: it is used until an answer says 401, then a new one is fetched, once.
Which host an org has is said with its token, so requests are written without one and addressed here.

https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_flows.htm
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from dagster_retl.connectors.http_words import Wording, find_words
from dagster_retl.connectors.salesforce_config import origin_of
from dagster_retl.connectors.salesforce_grants import HINTS, LOGIN_HINT, Grant
from dagster_retl.connectors.statuses import code_of_status, refused_redirect
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode

TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 an address


@dataclass(frozen=True, slots=True)
class Session:
    """A login: the token, and the origin of the org that takes it."""

    token: str = field(repr=False)
    instance: httpx.URL


class SalesforceAuth(httpx.Auth):
    """Addresses requests to the org, with a bearer token that all threads share.

    One thread fetches it while the others wait; a 401 makes for one new token and one more try.
    """

    requires_response_body = True

    def __init__(self, login_url: str, grant: Grant, wording: Wording) -> None:
        self._login = httpx.URL(login_url)
        self._grant = grant
        self._wording = wording
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def session(self) -> Session | None:
        """The login in use."""
        return self._session

    def allows(self, url: httpx.URL) -> bool:
        """Whether a request may go there: to where the connector logs in, or to the org that this led to."""
        session = self._session
        return _same_origin(url, self._login) or (session is not None and _same_origin(url, session.instance))

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if request.url.host:
            raise DestinationError(
                f"a request to {request.url.host} is refused: its token is for the org that the login names",
                code=ErrorCode.CONFIGURATION,
            )
        session = yield from self._current(refused=None)
        _address(request, session)
        response = yield request
        if response.status_code == 401:
            session = yield from self._current(refused=session.token)
            _address(request, session)
            yield request

    def _current(self, refused: str | None) -> Generator[httpx.Request, httpx.Response, Session]:
        with self._lock:
            session = self._session
            if session is None or session.token == refused:
                answer = yield self._token_request()
                session = self._session = self._read(answer)
            return session

    def _token_request(self) -> httpx.Request:
        url = self._login.copy_with(raw_path=TOKEN_PATH.encode())
        return httpx.Request("POST", url, headers={"Accept": "application/json"}, data=dict(self._grant()))

    def _read(self, response: httpx.Response) -> Session:
        if response.is_redirect:
            raise refused_redirect(response)
        body = _json_of(response)
        if not response.is_success:
            raise self._refused(response, body)
        token, instance = body.get("access_token"), body.get("instance_url")
        if not (isinstance(token, str) and token and isinstance(instance, str)):
            raise DestinationError(
                f"{self._login.host} answered without access_token and instance_url: it is no login of Salesforce",
                code=ErrorCode.AUTH,
                hint=LOGIN_HINT,
            )
        try:
            return Session(token, origin_of(instance))
        except ValueError as error:
            raise DestinationError(
                f"{self._login.host} names an org that is not trusted with a token: {error}", code=ErrorCode.AUTH
            ) from error

    def _refused(self, response: httpx.Response, body: dict[str, Any]) -> DestinationError:
        """An outage stays an outage; every other refusal is about these credentials."""
        code = code_of_status(response.status_code)
        if ACTIONS[code] is not Action.RETRY:
            code = ErrorCode.AUTH
        vendor_code, words = find_words(body)
        said = self._wording.clean(words or "", 200)
        name = self._wording.clean(str(body.get("error") or vendor_code or ""), 80)
        hint = next((hint for part, hint in HINTS.items() if part in said), LOGIN_HINT)
        return DestinationError(
            f"the login at {self._login.host} answered {response.status_code}"
            + "".join(f": {text}" for text in dict.fromkeys([name, said]) if text),
            code=code,
            vendor_code=name or None,
            hint=hint if code is ErrorCode.AUTH else None,
        )


def _address(request: httpx.Request, session: Session) -> None:
    request.url = session.instance.copy_with(raw_path=request.url.raw_path)
    request.headers["Host"] = session.instance.netloc.decode("ascii")
    request.headers["Authorization"] = f"Bearer {session.token}"


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _json_of(response: httpx.Response) -> dict[str, Any]:
    """The body, where it is a JSON object; a success has to be one."""
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        if not response.is_success:
            return {}
        host = response.request.url.host
        raise DestinationError(
            f"the login at {host} did not answer with JSON", code=ErrorCode.DESTINATION_UNAVAILABLE
        ) from error
    return body if isinstance(body, dict) else {}
