"""Who may come in to a fake HubSpot, and how often."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Mapping
from urllib.parse import parse_qs

from dagster_retl.testing.fake_hubspot_rules import HubSpotProblemError, HubSpotRules
from dagster_retl.testing.messages import Received, Reply


class HubSpotAccess:
    """The door of the account. Not safe for threads: the service holds its lock."""

    def __init__(self, rules: HubSpotRules) -> None:
        self.rules = rules
        self._tokens: dict[str, float] = {}
        self._times: deque[float] = deque()
        self._today = 0
        self.refused_by_rate = 0

    def objection(self, request: Received, service: str) -> Reply | None:
        """Why a request may not come in."""
        if not self._authorised(request):
            message = "Authentication credentials not found. This API supports OAuth 2.0 authentication"
            return HubSpotProblemError(401, message, "INVALID_AUTHENTICATION").reply()
        if service in self.rules.without_scopes:
            message = "One or more of the following scopes are required."
            context = {"requiredGranularScopes": [f"crm.objects.{service}.write"]}
            return HubSpotProblemError(403, message, "MISSING_SCOPES", context=context).reply()
        return self._throttle(service)

    def revoke_tokens(self) -> None:
        """Let all tokens that were handed out expire at once."""
        self._tokens.clear()

    def hand_out_token(self, request: Received) -> Reply:
        """An access token for a refresh token."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        given = (form.get("client_id"), form.get("client_secret"), form.get("refresh_token"))
        if form.get("grant_type") != "refresh_token" or given != self.rules.app:
            body = {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"}
            return Reply.json(body, 400)
        token = secrets.token_urlsafe(24)
        self._tokens[token] = math.inf if self.rules.token_requests is None else self.rules.token_requests
        answer = {"token_type": "bearer", "refresh_token": given[2], "access_token": token, "expires_in": 1800}
        return Reply.json(answer)

    def limits(self, service: str) -> Mapping[str, str]:
        """What an answer says of the limits; that of a search says nothing."""
        if not self.rules.shows_limits or service == "search":
            return {}
        prefix = "X-HubSpot-RateLimit"
        headers = {}
        if self.rules.daily is not None:
            headers[f"{prefix}-Daily"] = str(self.rules.daily)
            headers[f"{prefix}-Daily-Remaining"] = str(max(0, self.rules.daily - self._today))
        if self.rules.limit is not None:
            most, seconds, _ = self.rules.limit
            headers[f"{prefix}-Interval-Milliseconds"] = str(int(seconds * 1000))
            headers[f"{prefix}-Max"] = str(most)
            headers[f"{prefix}-Remaining"] = str(max(0, most - len(self._times)))
        return headers

    def _throttle(self, service: str) -> Reply | None:
        if self.rules.daily is not None and self._today >= self.rules.daily:
            return self._refuse("You have reached your daily limit.", "DAILY")
        if self.rules.limit is not None:
            most, seconds, policy = self.rules.limit
            now = time.monotonic()
            while self._times and self._times[0] <= now - seconds:
                self._times.popleft()
            if len(self._times) >= most:
                return self._refuse(f"You have reached your {policy.lower()} limit.", policy)
            self._times.append(now)
        self._today += 1
        return None

    def _refuse(self, message: str, policy: str) -> Reply:
        """Without `Retry-After`, as HubSpot does."""
        self.refused_by_rate += 1
        body = {"status": "error", "message": message, "errorType": "RATE_LIMIT", "policyName": policy}
        return Reply.json({**body, "groupName": "publicapi:private-apps:api-calls"}, 429)

    def _authorised(self, request: Received) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            return False
        if token == self.rules.token:
            return True
        left = self._tokens.get(token, 0)
        self._tokens[token] = left - 1
        return left > 0
