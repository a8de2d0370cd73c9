"""Who may come in to a fake Salesforce org: OAuth by client credentials, JWT bearer and refresh token."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from dagster_retl.testing.messages import Received, Reply

_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class FakeApp:
    """An app that may log in, and how.

    client_id, client_secret: of the app. refresh_token: one that a user gave it. username, public_key (PEM),
    audience: of the user that it may vouch for, the key that it does it with, and whom for. api_scope: whether
    its tokens are good for the REST API. runs_as_user: whether client credentials have a user to act as.
    """

    client_id: str = "3MVG9.fake"
    client_secret: str = "s3cr3t+/%"  # noqa: S105 a fake's
    refresh_token: str = "5Aep861.fake-refresh"  # noqa: S105 a fake's
    username: str = "integration@acme.example"
    public_key: str | None = None
    audience: str = "https://login.salesforce.com"
    api_scope: bool = True
    runs_as_user: bool = True


class FakeLogin:
    """Hands out tokens. token_requests: how many requests each is good for; None: as many as there are."""

    def __init__(self, app: FakeApp) -> None:
        self.app = app
        self.token_requests: int | None = None
        self.handed_out: list[str] = []
        self._tokens: dict[str, int | None] = {}

    def expire_tokens(self) -> None:
        """Let all tokens that were handed out expire at once."""
        self._tokens.clear()

    def token(self, request: Received, instance_url: str, org_id: str) -> Reply:
        """The answer of the token endpoint; it says nothing of how long a token lives."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        refusal = self._objection(_with_basic(form, request.headers))
        if refusal:
            return Reply.json({"error": refusal[0], "error_description": refusal[1]}, 400)
        token = f"00D!{secrets.token_urlsafe(24)}"
        self.handed_out.append(token)
        self._tokens[token] = self.token_requests
        answer = {
            "access_token": token,
            "instance_url": instance_url,
            "id": f"{instance_url}/id/{org_id}/005000000000001AAA",
            "token_type": "Bearer",
            "issued_at": "1732000000000",
            "signature": "c2lnbmF0dXJl",
            "scope": "api" if self.app.api_scope else "openid",
        }
        return Reply.json(answer)

    def objection(self, request: Received) -> Reply | None:
        """Why a request for data may not come in."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        left = self._tokens.get(token, 0) if scheme in ("Bearer", "OAuth") else 0
        if left is not None and left <= 0:
            return _invalid_session("Session expired or invalid")
        self._tokens[token] = None if left is None else left - 1
        if not self.app.api_scope:
            return _invalid_session("This session is not valid for use with the REST API")
        return None

    def _objection(self, form: Mapping[str, str]) -> tuple[str, str] | None:
        match form.get("grant_type"):
            case "client_credentials":
                return self._objection_to_client(form)
            case "refresh_token":
                return self._objection_to_user(form)
            case grant if grant == _JWT_GRANT:
                return self._objection_to_assertion(form.get("assertion", ""))
        return "unsupported_grant_type", "grant type not supported"

    def _objection_to_client(self, form: Mapping[str, str]) -> tuple[str, str] | None:
        if form.get("client_id") != self.app.client_id:
            return "invalid_client_id", "client identifier invalid"
        if form.get("client_secret") != self.app.client_secret:
            return "invalid_client", "invalid client credentials"
        return None if self.app.runs_as_user else ("invalid_grant", "no client credentials user enabled")

    def _objection_to_user(self, form: Mapping[str, str]) -> tuple[str, str] | None:
        if form.get("client_id") != self.app.client_id or form.get("client_secret") not in (
            None,
            self.app.client_secret,
        ):
            return "invalid_client", "invalid client credentials"
        known = form.get("refresh_token") == self.app.refresh_token
        return None if known else ("invalid_grant", "expired access/refresh token")

    def _objection_to_assertion(self, assertion: str) -> tuple[str, str] | None:
        import jwt  # noqa: PLC0415 only where there is an assertion

        try:
            claims = jwt.decode(
                assertion,
                self.app.public_key or "",
                algorithms=["RS256"],
                audience=self.app.audience,
                issuer=self.app.client_id,
                options={"require": ["exp"]},
            )
        except jwt.InvalidAudienceError:
            return "invalid_grant", "audience is invalid"
        except (jwt.PyJWTError, ValueError):
            return "invalid_grant", "invalid assertion"
        known = claims.get("sub") == self.app.username
        return None if known else ("invalid_grant", "user hasn't approved this consumer")


def _with_basic(form: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, str]:
    """Id and secret may come in the form, or by HTTP Basic."""
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme != "Basic":
        return form
    client_id, _, secret = base64.b64decode(encoded).decode().partition(":")
    return {**form, "client_id": client_id, "client_secret": secret}


def _invalid_session(message: str) -> Reply:
    return Reply.json([{"message": message, "errorCode": "INVALID_SESSION_ID"}], 401)
