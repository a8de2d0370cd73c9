"""How the `http` connector authorises its requests."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator
from urllib.parse import quote_plus

import httpx
import orjson

from dagster_retl.connectors.http_config import AuthSettings, BasicAuth, BearerAuth, HeaderAuth, OAuth2Auth
from dagster_retl.connectors.statuses import code_of_status
from dagster_retl.connectors.token_auth import TokenAuth
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode

# The errors of https://www.rfc-editor.org/rfc/rfc6749#section-5.2; any other text could repeat the credentials.
_TOKEN_ERRORS = (
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_request",
    "unauthorized_client",
    "unsupported_grant_type",
)


class StaticHeaderAuth(httpx.Auth):
    """The same header on each request."""

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._name] = self._value
        yield request


class ClientCredentialsAuth(TokenAuth):
    """A bearer token by OAuth 2.0 client credentials.

    allow: raises for a token address that must not be contacted.
    """

    def __init__(self, settings: OAuth2Auth, allow: Callable[[httpx.URL], None]) -> None:
        super().__init__()
        self._settings = settings
        self._allow = allow

    def token_request(self) -> httpx.Request:
        settings = self._settings
        form = {"grant_type": "client_credentials", "scope": settings.scope, "audience": settings.audience}
        headers = {"Accept": "application/json"}
        if settings.client_auth == "body":
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret.get_secret_value()}
        else:
            headers["Authorization"] = _client_basic(settings)
        data = {name: value for name, value in form.items() if value}
        request = httpx.Request("POST", settings.token_url, headers=headers, data=data)
        self._allow(request.url)
        return request

    def read_token(self, response: httpx.Response) -> tuple[str, float]:
        return _read_token(response)


def _client_basic(settings: OAuth2Auth) -> str:
    """Id and secret, each form-encoded first: https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1."""
    pair = f"{quote_plus(settings.client_id)}:{quote_plus(settings.client_secret.get_secret_value())}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _read_token(response: httpx.Response) -> tuple[str, float]:
    host = response.request.url.host
    if not response.is_success:
        raise _refused_token(response, host)
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise DestinationError(
            f"the token endpoint of {host} did not answer with JSON", code=ErrorCode.DESTINATION_UNAVAILABLE
        ) from error
    token = body.get("access_token") if isinstance(body, dict) else None
    if not isinstance(token, str) or not token:
        raise DestinationError(f"the token endpoint of {host} answered without an access_token", code=ErrorCode.AUTH)
    lifetime = body.get("expires_in")
    return token, float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else 3600.0


def _refused_token(response: httpx.Response, host: str) -> DestinationError:
    """An outage stays an outage; every other refusal is about these credentials."""
    code = code_of_status(response.status_code)
    if ACTIONS[code] is not Action.RETRY:
        code = ErrorCode.AUTH
    reason = next((text for text in _TOKEN_ERRORS if text in response.text), None)
    return DestinationError(
        f"the token endpoint of {host} answered {response.status_code}" + (f": {reason}" if reason else ""),
        code=code,
        vendor_code=reason,
        hint="Check token_url, client_id and client_secret." if code is ErrorCode.AUTH else None,
    )


def build_auth(settings: AuthSettings | None, allow: Callable[[httpx.URL], None]) -> httpx.Auth | None:
    """The authorisation that the settings describe; `allow` is asked about addresses that it contacts itself."""
    match settings:
        case BearerAuth():
            return StaticHeaderAuth("Authorization", f"Bearer {settings.token.get_secret_value()}")
        case BasicAuth():
            return httpx.BasicAuth(settings.username, settings.password.get_secret_value())
        case HeaderAuth():
            return StaticHeaderAuth(settings.name, settings.value.get_secret_value())
        case OAuth2Auth():
            return ClientCredentialsAuth(settings, allow)
        case None:
            return None


def secrets_of(settings: AuthSettings | None, auth: httpx.Auth | None) -> Iterator[str]:
    """What must never be read in a message: the secrets as written, as sent, and the token in use."""
    match settings:
        case BearerAuth():
            yield settings.token.get_secret_value()
        case BasicAuth():
            password = settings.password.get_secret_value()
            yield password
            yield base64.b64encode(f"{settings.username}:{password}".encode()).decode()
        case HeaderAuth():
            yield settings.value.get_secret_value()
        case OAuth2Auth():
            yield settings.client_secret.get_secret_value()
            yield _client_basic(settings).removeprefix("Basic ")
    if isinstance(auth, ClientCredentialsAuth) and auth.token:
        yield auth.token
