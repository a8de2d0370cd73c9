"""The fake Salesforce org is one for a client that others wrote: simple-salesforce, as it is, works against it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from salesforce_orgs import KEY, held, key_pair

from dagster_retl.testing.fake_salesforce import FakeSalesforce
from dagster_retl.testing.fake_salesforce_login import FakeApp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its parser for SOAP, which no test here uses
    from simple_salesforce import Salesforce
    from simple_salesforce.exceptions import (
        SalesforceAuthenticationFailed,
        SalesforceExpiredSession,
        SalesforceMalformedRequest,
        SalesforceMoreThanOneRecord,
        SalesforceOperationError,
        SalesforceRefusedRequest,
        SalesforceResourceNotFound,
    )

PRIVATE, PUBLIC = key_pair()


class _ToTheFake(HTTPAdapter):
    """The client speaks https:// to hosts of salesforce.com only: here they all lead to one loopback server."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        request.url = self._url + parts.path + (f"?{parts.query}" if parts.query else "")
        return super().send(request, *args, **kwargs)


def _session(org: FakeSalesforce) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", _ToTheFake(org.url))
    return session


@pytest.fixture
def org() -> Iterator[FakeSalesforce]:
    with FakeSalesforce(app=FakeApp(public_key=PUBLIC), page_rows=3) as made:
        yield made


@pytest.fixture
def client(org: FakeSalesforce) -> Iterator[Any]:
    with _session(org) as session:
        app = org.login.app
        yield Salesforce(
            consumer_key=app.client_id,
            consumer_secret=app.client_secret,
            domain="acme.my",
            session=session,
            version="62.0",
        )


def test_it_logs_in_with_client_credentials(org: FakeSalesforce, client: Any) -> None:
    assert client.session_id == org.login.handed_out[0]
    assert client.sf_instance == org.url.removeprefix("http://")


def test_it_logs_in_with_an_assertion(org: FakeSalesforce) -> None:
    app = org.login.app
    with _session(org) as session:
        made = Salesforce(username=app.username, consumer_key=app.client_id, privatekey=PRIVATE, session=session)
        assert made.session_id in org.login.handed_out


def test_it_is_refused_with_a_wrong_secret(org: FakeSalesforce) -> None:
    with _session(org) as session, pytest.raises(SalesforceAuthenticationFailed, match="invalid client credentials"):
        Salesforce(consumer_key=org.login.app.client_id, consumer_secret="no", domain="acme.my", session=session)


def test_it_renews_a_session_that_expired(org: FakeSalesforce, client: Any) -> None:
    org.login.expire_tokens()
    assert client.query("SELECT Id FROM Account")["totalSize"] == 0
    assert len(org.login.handed_out) == 2
    with _session(org) as session:
        token = org.login.handed_out[0]
        other = Salesforce(session_id=token, instance_url=org.url.replace("http", "https"), session=session)
        with pytest.raises(SalesforceExpiredSession):
            other.Account.describe()


def test_it_reads_the_usage(org: FakeSalesforce, client: Any) -> None:
    client.limits()
    assert client.api_usage["api-usage"] == (1, 15_000)
    assert client.limits()["DailyApiRequests"] == {"Max": 15_000, "Remaining": 14_998}
    org.used = org.daily
    with pytest.raises(SalesforceRefusedRequest):
        client.limits()


def test_it_describes(client: Any) -> None:
    assert {each["name"] for each in client.describe()["sobjects"]} == {"Account", "Contact", "Organization"}
    fields = {field["name"]: field for field in client.Account.describe()["fields"]}
    assert fields[KEY]["externalId"]
    assert client.Account.metadata()["objectDescribe"]["keyPrefix"] == "001"


def test_it_writes_single_records(org: FakeSalesforce, client: Any) -> None:
    made = client.Account.create({"Name": "Ada", KEY: "a"})
    assert made["success"]
    assert client.Account.get(made["id"])["Name"] == "Ada"
    assert client.Account.get_by_custom_id(KEY, "a")["Id"] == made["id"]
    assert client.Account.update(made["id"], {"Site": "s"}) == 204
    assert client.Account.upsert(f"{KEY}/b", {"Name": "Bo"}) == 201
    assert client.Account.upsert(f"{KEY}/b", {"Name": "Bob"}) == 200
    assert held(org)["b"] == {KEY: "b", "Name": "Bob"}
    assert client.Account.delete(made["id"]) == 204
    assert set(held(org)) == {"b"}
    with pytest.raises(SalesforceResourceNotFound):
        client.Account.get(made["id"])
    with pytest.raises(SalesforceMalformedRequest, match="REQUIRED_FIELD_MISSING"):
        client.Account.create({"Site": "x"})


def test_it_meets_two_records_for_a_key(org: FakeSalesforce, client: Any) -> None:
    for name in ("one", "two"):
        client.Account.create({"Name": name, "Legacy_Id__c": "twice"})
    with pytest.raises(SalesforceMoreThanOneRecord):
        client.Account.upsert("Legacy_Id__c/twice", {"Name": "x"})


def test_it_writes_collections(org: FakeSalesforce, client: Any) -> None:
    records = [{"attributes": {"type": "Account"}, KEY: f"k{n}", "Name": "x"} for n in range(4)]
    path = f"composite/sobjects/Account/{KEY}"
    made = client.restful(path, method="PATCH", json={"allOrNone": False, "records": records})
    assert [each["created"] for each in made] == [True] * 4
    again = client.restful(path, method="PATCH", json={"allOrNone": False, "records": records[:1]})
    assert again == [{"id": made[0]["id"], "success": True, "errors": [], "created": False}]
    changed = {"attributes": {"type": "Account"}, "id": made[1]["id"], "Name": "y"}
    body = {"allOrNone": False, "records": [changed, {**changed, "id": None}]}
    answer = client.restful("composite/sobjects", method="PATCH", json=body)
    assert [each["success"] for each in answer] == [True, False]
    assert answer[1]["errors"][0]["statusCode"] == "MISSING_ARGUMENT"
    deleted = client.restful("composite/sobjects", {"ids": f"{made[0]['id']},{made[1]['id']}"}, method="DELETE")
    assert [each["success"] for each in deleted] == [True, True]
    assert set(held(org)) == {"k2", "k3"}


def test_it_meets_the_limit_of_a_collection(client: Any) -> None:
    records = [{"attributes": {"type": "Account"}, "Name": "x"}] * 201
    with pytest.raises(SalesforceMalformedRequest, match="EXCEEDED_ID_LIMIT"):
        client.restful("composite/sobjects", method="POST", json={"records": records})
    with pytest.raises(SalesforceMalformedRequest, match="At least 1 record is required"):
        client.restful("composite/sobjects", method="POST", json={"records": []})


def test_it_queries_page_by_page(client: Any) -> None:
    for number in range(7):
        client.Account.create({"Name": f"n{number}", KEY: f"k{number}"})
    found = client.query_all(f"SELECT Id, Name FROM Account WHERE {KEY} IN ('k1', 'K2', 'k3', 'k4', 'no')")
    assert [record["Name"] for record in found["records"]] == ["n1", "n2", "n3", "n4"]
    with pytest.raises(SalesforceMalformedRequest, match="No such column"):
        client.query("SELECT Nmae FROM Account")
    with pytest.raises(SalesforceMalformedRequest, match="INVALID_TYPE"):
        client.query("SELECT Id FROM Acount")


def test_it_runs_bulk_jobs(org: FakeSalesforce, client: Any) -> None:
    records = [{KEY: f"k{n}", "Name": "x", "Score__c": "many" if n == 2 else n} for n in range(4)]
    (done,) = client.bulk2.Account.upsert(records=records, external_id_field=KEY, wait=0)
    assert (done["numberRecordsProcessed"], done["numberRecordsFailed"], done["numberRecordsTotal"]) == (4, 1, 4)
    assert set(held(org)) == {"k0", "k1", "k3"}
    results = client.bulk2.Account.get_all_ingest_records(done["job_id"])
    assert [row[KEY] for row in results["successfulRecords"]] == ["k0", "k1", "k3"]
    assert [row[KEY] for row in results["failedRecords"]] == ["k2"]
    assert results["failedRecords"][0]["sf__Error"].startswith("INVALID_FIELD:Failed to deserialize")
    assert results["unprocessedRecords"] == []
    ids = [{"Id": row["sf__Id"]} for row in results["successfulRecords"]]
    (deleted,) = client.bulk2.Account.delete(records=ids, wait=0)
    assert deleted["numberRecordsFailed"] == 0
    assert held(org) == {}


def test_its_bulk_job_fails_for_an_unknown_column(org: FakeSalesforce, client: Any) -> None:
    with pytest.raises(SalesforceOperationError, match="Field name not found : Nmae"):
        client.bulk2.Account.insert(records=[{"Nmae": "x"}], wait=0)
    org.jobs.stop_after = 1
    with pytest.raises(SalesforceOperationError, match="TooManyLockFailure"):
        client.bulk2.Account.insert(records=[{"Name": "x"}, {"Name": "y"}], wait=0)
    (_, job) = org.jobs.jobs.values()
    unprocessed = client.bulk2.Account.get_unprocessed_records(job.id)
    assert unprocessed.splitlines() == ['"Name"', '"y"']
