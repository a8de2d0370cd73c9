"""The three ways to ask Salesforce for a token: what the form of each request holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import httpx

from dagster_retl.connectors.salesforce_config import (
    LOGIN,
    ClientCredentials,
    JwtBearer,
    RefreshToken,
    SalesforceConfig,
)
from dagster_retl.errors import ConfigurationError

Grant = Callable[[], Mapping[str, str]]
"""Makes the form of a token request."""

_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SANDBOX_LOGIN = "https://test.salesforce.com"
_ASSERTION_SECONDS = 180

HINTS: Mapping[str, str] = MappingProxyType(
    {
        "request not supported on this domain": "Client credentials need `login_url` to be the org's My Domain, "
        "such as https://acme.my.salesforce.com.",
        "no client credentials user enabled": "Set the user to run as in the app's client credentials flow.",
        "user hasn't approved this consumer": "Pre-authorize the app for the user's profile or permission set.",
        "invalid assertion": "Check `private_key`, `username` and `audience`, and the certificate of the app.",
        "audience is invalid": "Set `audience` to https://login.salesforce.com; for sandboxes, https://test.salesforce.com.",
        "expired access/refresh token": "The refresh token is no good any more: let the user allow the app again.",
    }
)
"""What to do about what the token endpoint says, by a part of its words."""
LOGIN_HINT = "Check `login_url`, `client_id` and the secret, key or token of `auth`."


def grant_of(config: SalesforceConfig) -> Grant:
    """How the settings ask for a token. Raises `ConfigurationError` where that needs a package that is missing."""
    match config.auth:
        case ClientCredentials() as auth:
            return partial(_of_client, auth)
        case RefreshToken() as auth:
            return partial(_of_user, auth)
        case JwtBearer() as auth:
            require_jwt()
            return partial(_of_key, auth, auth.audience or audience_of(config.login_url))


def _of_client(auth: ClientCredentials) -> Mapping[str, str]:
    return {
        "grant_type": "client_credentials",
        "client_id": auth.client_id,
        "client_secret": auth.client_secret.get_secret_value(),
    }


def _of_user(auth: RefreshToken) -> Mapping[str, str]:
    secret = {"client_secret": auth.client_secret.get_secret_value()} if auth.client_secret else {}
    return {
        "grant_type": "refresh_token",
        "client_id": auth.client_id,
        "refresh_token": auth.refresh_token.get_secret_value(),
        **secret,
    }


def _of_key(auth: JwtBearer, audience: str) -> Mapping[str, str]:
    return {"grant_type": _JWT_GRANT, "assertion": _assertion(auth, audience)}


def audience_of(login_url: str) -> str:
    """The audience of an assertion: sandboxes have one of their own, and their hosts say so."""
    host = httpx.URL(login_url).host
    return _SANDBOX_LOGIN if host == "test.salesforce.com" or ".sandbox." in host else LOGIN


def require_jwt() -> None:
    """Raise `ConfigurationError` unless assertions can be signed."""
    if find_spec("jwt") is None:
        raise ConfigurationError(
            "Salesforce's `auth: {type: jwt_bearer}` needs the package PyJWT, which is not installed",
            hint="Install it: pip install 'dagster-retl[salesforce]', or use `type: client_credentials`.",
        )


def _assertion(auth: JwtBearer, audience: str) -> str:
    import jwt  # noqa: PLC0415 an extra

    claims = {
        "iss": auth.client_id,
        "sub": auth.username,
        "aud": audience,
        "exp": int(time.time()) + _ASSERTION_SECONDS,
    }
    try:
        return jwt.encode(claims, private_key(auth), algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        raise ConfigurationError(
            f"the private key of the Salesforce app cannot be used: {type(error).__name__}",
            hint="It has to be an RSA key in PEM, without a passphrase.",
        ) from None


def private_key(auth: JwtBearer) -> str:
    """The key as PEM. Raises `ConfigurationError` where its file cannot be read."""
    if auth.private_key is not None:
        return auth.private_key.get_secret_value().replace("\\n", "\n")
    try:
        return Path(str(auth.private_key_file)).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"`private_key_file` {auth.private_key_file!r} cannot be read: {error}") from error
