"""What a sync writes to, as one short name: snapshot, ledger, suspects and dead letters belong to it."""

from __future__ import annotations

import hashlib
import json

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.model.rows import Account, KeyForm
from dagster_retl.model.sync import FieldMapping, Sync, SyncMode
from dagster_retl.store.snapshots import Pointer

KEY_FORMS = tuple(KeyForm(ignore_case=case, trim=trim) for case in (False, True) for trim in (False, True))
"""All ways in which a destination may compare keys."""


def epoch_of(sync: Sync, connector: AnyConnector, account: Account, form: KeyForm | None = None) -> str:
    """Changes with connector, account, object, key and between writing and deleting; with nothing else.

    Rows without a key are known by their content, so that their mapping is their key (PROTOCOL 21).
    form: how keys compare; None: as the connector says.
    """
    form = form or connector.key_form(sync.object_name)
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


def key_form_of(sync: Sync, connector: AnyConnector, pointer: Pointer | None) -> KeyForm:
    """How the keys of a snapshot compare. Its epoch tells, so that the destination need not be asked for it.

    Where there is no snapshot, or the sync was pointed elsewhere since: as the connector says, which
    may ask the destination.
    """
    if pointer is not None:
        account = Account(pointer.account_id, pointer.account_name)
        for form in KEY_FORMS:
            if epoch_of(sync, connector, account, form) == pointer.epoch:
                return form
    return connector.key_form(sync.object_name)


def _content(mapping: FieldMapping) -> list[object]:
    return [mapping.destination, mapping.source, mapping.value, mapping.default, mapping.on_null]
