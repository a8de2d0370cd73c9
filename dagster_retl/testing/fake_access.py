"""Who may come in to a fake service, and how often."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote_plus

from dagster_retl.testing.fake_rules import Refusal, Rules
from dagster_retl.testing.messages import Received, Reply, retry_after


class TokenBucket:
    """Fills at a rate, up to a burst; each request takes one token."""

    def __init__(self, burst: int) -> None:
        self._level = float(burst)
        self._counted_at = time.monotonic()

    def take(self, rate: float, burst: int) -> bool:
        """Take a token, if there is one."""
        self._fill(rate, burst)
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def seconds_to_next(self, rate: float) -> float:
        """How long there is no token; 0 while there is one."""
        return max(0.0, (1 - self._level) / rate)

    def headers(self, rate: float, burst: int, form: str) -> Mapping[str, str]:
        """What is left, and in how many seconds all of it is there again."""
        self._fill(rate, burst)
        left, full = int(self._level), math.ceil((burst - self._level) / rate)
        window = math.ceil(burst / rate)
        if form == "x":
            words = {"Limit": burst, "Remaining": left, "Reset": math.ceil(time.time() + full)}
            return {f"X-RateLimit-{name}": str(value) for name, value in words.items()}
        if form == "ietf-6":
            words = {"Limit": burst, "Remaining": left, "Reset": full}
            return {f"RateLimit-{name}": str(value) for name, value in words.items()}
        return {"RateLimit-Policy": f'"requests";q={burst};w={window}', "RateLimit": f'"requests";r={left};t={full}'}

    def _fill(self, rate: float, burst: int) -> None:
        now = time.monotonic()
        self._level = min(float(burst), self._level + (now - self._counted_at) * rate)
        self._counted_at = now


class Access:
    """The door of a service. Not safe for threads: the service holds its lock."""

    def __init__(self, rules: Rules) -> None:
        self._bucket = TokenBucket(rules.burst)
        self._tokens: dict[str, float] = {}
        self.refused_by_rate = 0

    def objection(self, rules: Rules, request: Received) -> Reply | None:
        """Why a request may not come in."""
        if rules.rate is not None and not self._bucket.take(rules.rate, rules.burst):
            self.refused_by_rate += 1
            wait = retry_after(self._bucket.seconds_to_next(rules.rate), rules.retry_after)
            return Refusal("RATE_LIMITED", "slow down", 429).reply(wait)
        if not self._authorised(rules, request):
            return Refusal("UNAUTHORIZED", "missing, unknown or expired token", 401).reply()
        if not _signed(rules, request):
            return Refusal("BAD_SIGNATURE", "the signature does not match the body", 401).reply()
        if len(request.body) > rules.max_bytes:
            return Refusal("TOO_LARGE", f"at most {rules.max_bytes} bytes", 413).reply()
        return None

    def limits(self, rules: Rules) -> Mapping[str, str]:
        """What an answer says of the rate limit."""
        if rules.rate is None or rules.rate_headers is None:
            return {}
        return self._bucket.headers(rules.rate, rules.burst, rules.rate_headers)

    def revoke_tokens(self) -> None:
        """Let all tokens that were handed out expire at once."""
        self._tokens.clear()

    def hand_out_token(self, rules: Rules, request: Received) -> Reply:
        """https://www.rfc-editor.org/rfc/rfc6749#section-4.4."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            given = tuple(unquote_plus(part) for part in base64.b64decode(encoded).decode().split(":", 1))
        else:
            given = (form.get("client_id", ""), form.get("client_secret", ""))
        if given != rules.client or form.get("grant_type") != "client_credentials":
            return Reply.json({"error": "invalid_client"}, 401)
        token = secrets.token_urlsafe(24)
        self._tokens[token] = math.inf if rules.token_requests is None else rules.token_requests
        return Reply.json({"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _authorised(self, rules: Rules, request: Received) -> bool:
        if rules.token is None and rules.client is None:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and (token == rules.token or self._use_token(token))

    def _use_token(self, token: str) -> bool:
        left = self._tokens.get(token, 0)
        self._tokens[token] = left - 1
        return left > 0


def _signed(rules: Rules, request: Received) -> bool:
    if rules.signing_secret is None:
        return True
    expected = hmac.new(rules.signing_secret.encode(), request.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, request.headers.get("x-signature", ""))
