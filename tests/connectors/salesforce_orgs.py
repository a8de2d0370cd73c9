"""Connectors to fake Salesforce orgs, and batches for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dagster_retl.connectors.salesforce import SalesforceConnector
from dagster_retl.connectors.salesforce_config import SalesforceConfig
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing import make_batch
from dagster_retl.testing.fake_salesforce import FakeSalesforce

KEY = "External_Id__c"
_SYSTEM = ("Id", "CreatedDate", "IsDeleted")


def connector_to(org: FakeSalesforce, *, auth: Mapping[str, Any] | None = None, **config: Any) -> SalesforceConnector:
    """A connector that logs in by client credentials, unless `auth` says otherwise."""
    app = org.login.app
    usual = {"type": "client_credentials", "client_id": app.client_id, "client_secret": app.client_secret}
    settings = {"login_url": org.url, "auth": auth or usual, **config}
    return SalesforceConnector(SalesforceConfig.model_validate(settings))


def accounts(
    *rows: Mapping[str, Any], operation: str = "upsert", key: str | Sequence[str] = KEY, object_name: str = "Account"
) -> Batch:
    """A batch of rows."""
    return make_batch(rows, operation=Operation(operation), object_name=object_name, key=key)


def held(org: FakeSalesforce, object_name: str = "Account", key: str = KEY) -> dict[str, dict[str, Any]]:
    """The records that have a key: the text of it → field → value, as it was written."""
    records = org.org.records[object_name].values()
    known = [each for each in records if each.get(key) is not None]
    return {str(each[key]): {name: value for name, value in each.items() if name not in _SYSTEM} for each in known}


def key_pair() -> tuple[str, str]:
    """A private RSA key and its public one, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()
