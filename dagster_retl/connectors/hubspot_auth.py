"""How the `hubspot` connector authorises its requests: a fixed token, or one that a refresh token gives.

https://developers.hubspot.com/docs/api-reference/auth-oauth-v1/guide
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import orjson

from dagster_retl.connectors.http_auth import StaticHeaderAuth
from dagster_retl.connectors.hubspot_config import HubSpotConfig, OAuthApp
from dagster_retl.connectors.hubspot_errors import complaint_in
from dagster_retl.connectors.hubspot_paths import TOKEN
from dagster_retl.connectors.statuses import code_of_status
from dagster_retl.connectors.token_auth import TokenAuth
from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode
from dagster_retl.model.redactor import Redactor


class RefreshTokenAuth(TokenAuth):
    """A bearer token that a refresh token gives. Raises `DestinationError`: `AUTH` where HubSpot gives none."""

    margin = 60.0

    def __init__(self, app: OAuthApp, base_url: str) -> None:
        super().__init__()
        self._app = app
        self._url = app.token_url or f"{base_url.rstrip('/')}/{TOKEN}"
        self._refresh_token = app.refresh_token.get_secret_value()

    def secrets(self) -> Iterator[str]:
        """Everything that must not be read in a message."""
        yield self._app.client_secret.get_secret_value()
        yield self._app.refresh_token.get_secret_value()
        yield self._refresh_token
        if self.token:
            yield self.token

    def token_request(self) -> httpx.Request:
        form = {
            "grant_type": "refresh_token",
            "client_id": self._app.client_id,
            "client_secret": self._app.client_secret.get_secret_value(),
            "refresh_token": self._refresh_token,
        }
        return httpx.Request("POST", self._url, headers={"Accept": "application/json"}, data=form)

    def _checked(self, response: httpx.Response) -> httpx.Response:
        """A successful answer. An outage stays an outage; every other refusal is about these credentials."""
        if response.is_success:
            return response
        code = code_of_status(response.status_code)
        code = code if ACTIONS[code] is Action.RETRY else ErrorCode.AUTH
        complaint = complaint_in(response)
        raise DestinationError(
            f"HubSpot gives no access token: {Redactor(self.secrets())(complaint.message)}",
            code=code,
            vendor_code=complaint.vendor_code,
            hint="Check client_id, client_secret and refresh_token, and that the app is still installed."
            if code is ErrorCode.AUTH
            else None,
        )

    def read_token(self, response: httpx.Response) -> tuple[str, float]:
        try:
            body = orjson.loads(self._checked(response).content)
            token, lifetime = str(body["access_token"]), float(body.get("expires_in") or 1800)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise DestinationError(
                "HubSpot's token endpoint answered without an access token", code=ErrorCode.DESTINATION_UNAVAILABLE
            ) from error
        self._refresh_token = str(body.get("refresh_token") or self._refresh_token)
        return token, lifetime


def build_auth(config: HubSpotConfig) -> StaticHeaderAuth | RefreshTokenAuth:
    """The authorisation that the settings describe."""
    if config.oauth is not None:
        return RefreshTokenAuth(config.oauth, config.base_url or "")
    return StaticHeaderAuth("Authorization", f"Bearer {config.token.get_secret_value() if config.token else ''}")


def secrets_of(config: HubSpotConfig, auth: StaticHeaderAuth | RefreshTokenAuth) -> Iterator[str]:
    """What must never be read in a message."""
    if config.token is not None:
        yield config.token.get_secret_value()
    if isinstance(auth, RefreshTokenAuth):
        yield from auth.secrets()
