"""What a sync writes to, as one short name: snapshot, ledger, suspects and dead letters belong to it."""

from __future__ import annotations

import hashlib
import json

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.model.rows import Account
from dagster_retl.model.sync import FieldMapping, Sync, SyncMode


def epoch_of(sync: Sync, connector: AnyConnector, account: Account) -> str:
    """Changes with connector, account, object, key and between writing and deleting; with nothing else.

    Rows without a key are known by their content, so that their mapping is their key (PROTOCOL 21).
    """
    form = connector.key_form(sync.object_name)
    told_apart_by: list[object] = [*sync.key_fields] or [_content(mapping) for mapping in sync.field_mappings]
    identity = [
        connector.spec.name,
        account.id,
        sync.object_name,
        told_apart_by,
        [form.ignore_case, form.trim],
        "delete" if sync.sync_mode is SyncMode.DELETE else "write",
    ]
    return hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()[:32]


def _content(mapping: FieldMapping) -> list[object]:
    return [mapping.destination, mapping.source, mapping.value, mapping.default, mapping.on_null]
