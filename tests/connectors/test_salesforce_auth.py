"""How the Salesforce connector logs in, and where its token goes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from salesforce_orgs import KEY, accounts, connector_to, held, key_pair

from dagster_retl.connectors.base import Request
from dagster_retl.connectors.salesforce import SalesforceConnector
from dagster_retl.connectors.salesforce_config import SalesforceConfig
from dagster_retl.connectors.salesforce_grants import audience_of
from dagster_retl.engine.destination import Discovery
from dagster_retl.errors import ConfigurationError, DestinationError, ErrorCode
from dagster_retl.testing import LoopbackServer, Reply, Trouble, converse, drive, open_client, write
from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_login import FakeApp

PRIVATE, PUBLIC = key_pair()


def _tokens(org: FakeSalesforce) -> int:
    return [request.path for request in org.requests].count("/services/oauth2/token")


def _refusal(connector: SalesforceConnector) -> DestinationError:
    with pytest.raises(DestinationError) as caught, Discovery(connector) as discovery:
        discovery.account()
    return caught.value


def _jwt(app: FakeApp, **changes: Any) -> dict[str, Any]:
    usual = {"type": "jwt_bearer", "client_id": app.client_id, "username": app.username, "private_key": PRIVATE}
    return {**usual, **changes}


class TestFlows:
    def test_client_credentials(self) -> None:
        with FakeSalesforce() as org, Discovery(connector_to(org)) as discovery:
            account = discovery.account()
            assert (account.id, account.name) == (org.org.org_id, "Acme")
            assert len(account.id) == 18

    @pytest.mark.parametrize("as_text", [PRIVATE, PRIVATE.replace("\n", "\\n")], ids=["lines", "escaped"])
    def test_jwt_bearer(self, as_text: str) -> None:
        app = FakeApp(public_key=PUBLIC)
        with FakeSalesforce(app=app) as org:
            connector = connector_to(org, auth=_jwt(app, private_key=as_text))
            with Discovery(connector) as discovery:
                assert discovery.account().id == org.org.org_id

    def test_a_key_in_a_file_beside_the_project(self, tmp_path: Path) -> None:
        (tmp_path / "key.pem").write_text(PRIVATE)
        app = FakeApp(public_key=PUBLIC)
        with FakeSalesforce(app=app) as org:
            auth = {"type": "jwt_bearer", "client_id": app.client_id, "username": app.username}
            settings = {"login_url": org.url, "auth": {**auth, "private_key_file": "key.pem"}}
            config = SalesforceConfig.model_validate(settings, context={"base": tmp_path})
            connector = SalesforceConnector(config)
            assert drive(connector, connector.check()).id == org.org.org_id

    @pytest.mark.parametrize("secret", [None, FakeApp().client_secret], ids=["public", "secret"])
    def test_refresh_token(self, secret: str | None) -> None:
        app = FakeApp()
        with FakeSalesforce(app=app) as org:
            auth = {"type": "refresh_token", "client_id": app.client_id, "refresh_token": app.refresh_token}
            connector = connector_to(org, auth={**auth, **({"client_secret": secret} if secret else {})})
            assert drive(connector, connector.check()).id == org.org.org_id

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"private_key": key_pair()[0]}, "invalid assertion"),
            ({"client_id": "other"}, "invalid assertion"),
            ({"username": "nobody@acme.example"}, "hasn't approved"),
            ({"audience": "https://test.salesforce.com"}, "audience is invalid"),
        ],
    )
    def test_a_wrong_assertion_says_why(self, changes: dict[str, Any], words: str) -> None:
        app = FakeApp(public_key=PUBLIC)
        with FakeSalesforce(app=app) as org:
            error = _refusal(connector_to(org, auth=_jwt(app, **changes)))
            assert (error.code, error.vendor_code) == (ErrorCode.AUTH, "invalid_grant")
            assert words in error.message
            assert error.hint

    def test_a_key_that_is_none_is_not_shown(self) -> None:
        app = FakeApp(public_key=PUBLIC)
        with FakeSalesforce(app=app) as org:
            connector = connector_to(org, auth=_jwt(app, private_key="not-a-pem-but-secret"))
            with pytest.raises(ConfigurationError, match="private key") as caught, Discovery(connector) as discovery:
                discovery.account()
            assert "not-a-pem-but-secret" not in str(caught.value)
            assert org.requests == []

    def test_a_key_file_that_is_missing_is_named(self) -> None:
        auth = _jwt(FakeApp(), private_key=None, private_key_file="/nowhere/key.pem")
        with FakeSalesforce() as org, pytest.raises(ConfigurationError, match=r"/nowhere/key\.pem"):
            drive(connector_to(org, auth=auth), connector_to(org, auth=auth).check())

    @pytest.mark.parametrize(
        ("host", "audience"),
        [
            ("https://login.salesforce.com", "https://login.salesforce.com"),
            ("https://acme.my.salesforce.com", "https://login.salesforce.com"),
            ("https://test.salesforce.com", "https://test.salesforce.com"),
            ("https://acme--uat.sandbox.my.salesforce.com", "https://test.salesforce.com"),
        ],
    )
    def test_the_audience_follows_from_the_host(self, host: str, audience: str) -> None:
        assert audience_of(host) == audience


class TestWithoutTheExtra:
    """`sys.modules[name] = None` is how Python itself says that a module cannot be imported."""

    def _run(self, auth: str) -> subprocess.CompletedProcess[str]:
        script = (
            "import sys\n"
            "sys.modules['jwt'] = None\n"
            "from dagster_retl.connectors.salesforce import SalesforceConnector\n"
            "from dagster_retl.connectors.salesforce_config import SalesforceConfig\n"
            f"SalesforceConnector(SalesforceConfig.model_validate({{'auth': {auth}}}))\n"
            "print('made')\n"
        )
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    def test_an_assertion_names_the_extra(self) -> None:
        done = self._run("{'type': 'jwt_bearer', 'client_id': 'a', 'username': 'b', 'private_key': 'c'}")
        assert "dagster-retl[salesforce]" in done.stderr
        assert "ConfigurationError" in done.stderr

    def test_client_credentials_need_nothing(self) -> None:
        assert "made" in self._run("{'type': 'client_credentials', 'client_id': 'a', 'client_secret': 'b'}").stdout


class TestTokens:
    def test_one_token_serves_all_threads(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)

            def send(number: int) -> None:
                write(connector, accounts({KEY: f"k{number}", "Name": "x"}))

            threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert _tokens(org) == 1
            assert len(held(org)) == 6

    def test_an_expired_token_is_renewed_once_and_the_rows_are_written_once(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            write(connector, accounts({KEY: "a", "Name": "x"}))
            org.login.expire_tokens()
            write(connector, accounts({KEY: "b", "Name": "x"}))
            assert _tokens(org) == 2
            assert [change.values[KEY] for change in org.org.changes] == ["a", "b"]

    def test_a_new_token_that_is_refused_is_the_end(self) -> None:
        with FakeSalesforce() as org:
            org.login.token_requests = 0
            error = _refusal(connector_to(org))
            assert (error.code, error.vendor_code) == (ErrorCode.AUTH, "INVALID_SESSION_ID")
            assert _tokens(org) == 2

    def test_a_missing_scope_says_which(self) -> None:
        with FakeSalesforce(app=FakeApp(api_scope=False)) as org:
            error = _refusal(connector_to(org))
            assert error.code is ErrorCode.AUTH
            assert "not valid for use with the REST API" in error.message
            assert "scope `api`" in str(error.hint)

    @pytest.mark.parametrize(
        ("app", "auth", "vendor_code", "words"),
        [
            (FakeApp(), {"client_secret": "nope-nope"}, "invalid_client", "invalid client credentials"),
            (FakeApp(), {"client_id": "nobody"}, "invalid_client_id", "client identifier invalid"),
            (FakeApp(runs_as_user=False), {}, "invalid_grant", "no client credentials user enabled"),
        ],
    )
    def test_wrong_credentials_say_what_is_wrong(
        self, app: FakeApp, auth: dict[str, str], vendor_code: str, words: str
    ) -> None:
        usual = {"type": "client_credentials", "client_id": app.client_id, "client_secret": app.client_secret}
        with FakeSalesforce(app=app) as org:
            error = _refusal(connector_to(org, auth={**usual, **auth}))
            assert (error.code, error.vendor_code, error.ambiguous) == (ErrorCode.AUTH, vendor_code, False)
            assert words in error.message
            assert error.hint
            assert "nope-nope" not in str(error)

    def test_a_revoked_refresh_token_says_so(self) -> None:
        with FakeSalesforce() as org:
            auth = {"type": "refresh_token", "client_id": org.login.app.client_id, "refresh_token": "revoked-one"}
            error = _refusal(connector_to(org, auth=auth))
            assert error.code is ErrorCode.AUTH
            assert "expired access/refresh token" in error.message

    @pytest.mark.parametrize(
        ("trouble", "code"),
        [
            (Trouble(status=503), ErrorCode.DESTINATION_UNAVAILABLE),
            (Trouble(body=b"<html>"), ErrorCode.DESTINATION_UNAVAILABLE),
            (Trouble(body=b"{}"), ErrorCode.AUTH),
            (Trouble(body=b'{"access_token": "t", "instance_url": "http://elsewhere.example"}'), ErrorCode.AUTH),
            (Trouble(status=302, headers={"Location": "https://elsewhere.example"}), ErrorCode.CONFIGURATION),
        ],
    )
    def test_a_login_that_answers_nonsense(self, trouble: Trouble, code: ErrorCode) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            org.disturb(trouble)
            with pytest.raises(DestinationError) as caught:
                drive(connector, connector.check())
            assert (caught.value.code, caught.value.ambiguous) == (code, False)
            assert drive(connector, connector.check()).name == "Acme", "the lock is free again"


class TestAddresses:
    def test_data_goes_to_the_org_and_tokens_come_from_the_login(self) -> None:
        with FakeSalesforce(instance_host="localhost") as org:
            connector = connector_to(org)
            with Discovery(connector) as discovery:
                assert discovery.account().name == "Acme"
            write(connector, accounts({KEY: "a", "Name": "x"}))
            assert set(held(org)) == {"a"}
            hosts = {request.path.split("/")[2]: request.headers["host"] for request in org.requests}
            port = org.url.rpartition(":")[2]
            assert hosts == {"oauth2": f"127.0.0.1:{port}", "data": f"localhost:{port}"}

    def test_an_org_that_moved_is_followed(self) -> None:
        with FakeSalesforce(instance_host="localhost") as org:
            connector = connector_to(org)
            drive(connector, connector.check())
            org.login.expire_tokens()
            drive(connector, connector.check())
            assert _tokens(org) == 2

    def test_no_request_names_a_host_of_its_own(self) -> None:
        with FakeSalesforce() as org, LoopbackServer(lambda request: Reply.json({})) as stranger:
            connector = connector_to(org)

            def stray() -> Any:
                yield Request("GET", f"{stranger.url}/services/data/")

            with pytest.raises(DestinationError, match="refused") as caught:
                drive(connector, stray())
            assert caught.value.code is ErrorCode.CONFIGURATION
            assert stranger.requests == []

    def test_only_login_and_org_are_allowed(self) -> None:
        with FakeSalesforce(instance_host="localhost") as org:
            connector = connector_to(org)
            with pytest.raises(DestinationError):
                connector.allow(httpx.URL(org.instance_url))
            drive(connector, connector.check())
            connector.allow(httpx.URL(org.instance_url))
            connector.allow(httpx.URL(org.url))
            for other in ("http://localhost:1/", "https://elsewhere.example/", "/relative"):
                with pytest.raises(DestinationError, match="refused"):
                    connector.allow(httpx.URL(other))

    def test_a_page_elsewhere_is_not_fetched(self) -> None:
        page = {"done": False, "records": [], "nextRecordsUrl": "https://elsewhere.example/services/data/"}
        with FakeSalesforce() as org, pytest.raises(DestinationError, match="no path"):
            converse(connector_to(org).check(), httpx.Response(200, json=page))

    def test_the_token_is_redacted(self) -> None:
        with FakeSalesforce() as org:
            connector = connector_to(org)
            with open_client(connector) as client:
                drive(connector, connector.check(), client)
                token = org.login.handed_out[0]
                assert token not in repr(connector.auth()) + repr(connector._auth.session)
                echo = httpx.Response(400, json=[{"errorCode": "X", "message": f"you said {token}"}])
                assert connector.explain(echo) == ("X", "you said ***")


class TestSettings:
    @pytest.mark.parametrize(
        "changes",
        [
            {"login_url": "http://acme.my.salesforce.com"},
            {"login_url": "https://user:pass@acme.my.salesforce.com"},
            {"login_url": "acme.my.salesforce.com"},
            {"base_url": "https://acme.my.salesforce.com"},
            {"api_version": "v62.0"},
            {"api_version": "45.0"},
            {"batch_rows": 201},
            {"job_bytes": 100_000_001},
            {"stop_at_usage": 1.5},
            {"auth": {"type": "jwt_bearer", "client_id": "a", "username": "b"}},
            {
                "auth": {
                    "type": "jwt_bearer",
                    "client_id": "a",
                    "username": "b",
                    "private_key": "c",
                    "private_key_file": "d",
                }
            },
        ],
    )
    def test_bad_settings_are_refused(self, changes: dict[str, Any]) -> None:
        good = {"auth": {"type": "client_credentials", "client_id": "a", "client_secret": "b"}}
        SalesforceConfig.model_validate(good)
        with pytest.raises(ValidationError):
            SalesforceConfig.model_validate({**good, **changes})

    def test_paths_of_the_login_are_left_out(self) -> None:
        auth = {"type": "client_credentials", "client_id": "a", "client_secret": "b"}
        config = SalesforceConfig.model_validate(
            {"login_url": "https://acme.my.salesforce.com/lightning", "auth": auth}
        )
        assert config.login_url == "https://acme.my.salesforce.com"
        assert SalesforceConnector(config).identity() == "acme.my.salesforce.com"
