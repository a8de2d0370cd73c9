"""HubSpot: contacts, companies, deals and all other objects of its CRM, custom ones included.

CRM objects API, batch endpoints: https://developers.hubspot.com/docs/guides/api/crm/using-object-apis. At most 100
records a request; 100 requests in 10 seconds on the smallest plans, a number of requests a day, 5 searches a second.
How answers match rows: each input carries a unique `objectWriteTraceId`, which errors name; results are known by it,
by the value of the key, or by the record id, never by their order. A request that is refused as a whole (400, 409) is
halved by the engine; one that names a property which does not exist ends the run. Archiving is answered for all
records at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import httpx

from dagster_retl.connectors.base import Connector, ConnectorConfig, ConnectorSpec, Exchange
from dagster_retl.connectors.http_words import Wording
from dagster_retl.connectors.hubspot_associations import Associations
from dagster_retl.connectors.hubspot_auth import build_auth, secrets_of
from dagster_retl.connectors.hubspot_config import HubSpotConfig
from dagster_retl.connectors.hubspot_errors import VENDOR_CODES, HubSpotError, complaint_in, limits_in
from dagster_retl.connectors.hubspot_fields import association_fields, discover_fields, discover_objects
from dagster_retl.connectors.hubspot_lookup import RecordFinder
from dagster_retl.connectors.hubspot_paths import ACCOUNT, CONTACTS, Paths, standard_object
from dagster_retl.connectors.hubspot_reading import read_values
from dagster_retl.connectors.hubspot_wire import body_of, get
from dagster_retl.connectors.hubspot_writing import BatchWriter
from dagster_retl.connectors.limits import LimitState
from dagster_retl.connectors.statuses import refused_redirect
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Account, Batch, FieldInfo, KeyForm, ObjectInfo, RowResult, WireForm

_BYTES_AROUND_A_ROW = 200
"""What an input holds besides the row's fields: ids, names, quotation marks around numbers."""


class HubSpotConnector(Connector):
    """A HubSpot account."""

    spec: ClassVar[ConnectorSpec] = ConnectorSpec(
        name="hubspot",
        title="HubSpot",
        modes=frozenset({"upsert", "insert", "update", "delete", "mirror"}),
        batch_rows=100,
        batch_bytes=2_000_000,
        rate_limit=9,
        burst=10,
        concurrency=4,
        discoverable=True,
        wire_form=WireForm(timestamp="epoch_ms", nest=False),
        matching="By a trace id that each row carries, by the key, or by the record id; never by order.",
        vendor_codes=VENDOR_CODES,
        documentation="https://developers.hubspot.com/docs/guides/api/crm/using-object-apis",
    )
    Config: ClassVar[type[ConnectorConfig]] = HubSpotConfig
    config: HubSpotConfig

    def __init__(self, config: HubSpotConfig) -> None:
        super().__init__(config)
        self._auth = build_auth(config)
        self._wording = Wording(self._secrets)
        self._paths = Paths(config.api_version)
        self._finder = RecordFinder(self._paths, self.require_success)
        self._portal = config.portal_id
        self._site = "app.hubspot.com"
        associations = Associations(
            config.associations, self._paths, self._finder, self.require_success, self._wording.clean, {}
        )
        self._writer = BatchWriter(
            self._paths, self.require_success, self._wording.clean, self._finder, associations, self.batch_bytes
        )

    @property
    def frame_bytes(self) -> int:
        return _BYTES_AROUND_A_ROW * self.batch_rows

    @property
    def atomic_rejection(self) -> bool:
        return self.config.atomic_rejection

    def key_form(self, object_name: str) -> KeyForm:
        """HubSpot keeps email addresses in lower case."""
        ignore_case = self.config.ignore_key_case
        if ignore_case is None:
            ignore_case = standard_object(object_name) is CONTACTS
        return KeyForm(ignore_case=ignore_case, trim=True)

    def record_url(self, object_name: str, record_id: str) -> str | None:
        """The record's page, where the account is known from `check` or `portal_id`, and the object has an id."""
        known = standard_object(object_name)
        type_id = known.type_id if known else object_name if object_name.startswith("2-") else None
        if self._portal is None or type_id is None:
            return None
        return f"https://{self._site}/contacts/{self._portal}/record/{type_id}/{record_id}"

    def auth(self) -> httpx.Auth | None:
        return self._auth

    def check(self) -> Exchange[Account]:
        """The account (portal): https://developers.hubspot.com/docs/api-reference/account-account-info-v3/guide."""
        response = yield get(ACCOUNT)
        body = body_of(self.require_success(response))
        portal = body.get("portalId")
        if portal is None:
            raise DestinationError("HubSpot did not say which account this is", code=ErrorCode.DESTINATION_UNAVAILABLE)
        self._portal = str(portal)
        self._site = str(body.get("uiDomain") or self._site)
        return Account(self._portal, f"HubSpot account {self._portal}")

    def objects(self) -> Exchange[list[ObjectInfo]]:
        return (yield from discover_objects(self._paths, self.require_success))

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        fields = yield from discover_fields(self._paths, self.require_success, object_name)
        return [*fields, *association_fields(self.config.associations)]

    def write(self, batch: Batch) -> Exchange[Sequence[RowResult]]:
        if not batch.rows:
            return []
        form = self.key_form(batch.object_name)
        return (yield from self._writer.write(batch, lambda text: _fold(text, form)))

    def can_read(self, object_name: str) -> bool:
        return True

    def read(self, batch: Batch, fields: Sequence[str]) -> Exchange[Mapping[str, Mapping[str, Any]]]:
        return (yield from read_values(self._finder, batch, fields))

    def explain(self, response: httpx.Response) -> tuple[str | None, str]:
        complaint = complaint_in(response)
        return complaint.vendor_code, self._wording.clean(complaint.message)

    def limits(self, response: httpx.Response) -> LimitState | None:
        return limits_in(response)

    def require_success(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        if response.is_redirect:
            raise refused_redirect(response)
        complaint = complaint_in(response)
        raise HubSpotError(response, complaint, self._wording.clean(complaint.message))

    def _secrets(self) -> Iterator[str]:
        yield from secrets_of(self.config, self._auth)


def _fold(text: str, form: KeyForm) -> str:
    text = text.strip() if form.trim else text
    return text.lower() if form.ignore_case else text
