"""What a sync writes to, as one short name: snapshot, ledger, suspects and dead letters belong to it."""

from __future__ import annotations

import hashlib
import json

from dagster_retl.connectors.base import AnyConnector
from dagster_retl.model.rows import Account
from dagster_retl.model.sync import Sync, SyncMode


def epoch_of(sync: Sync, connector: AnyConnector, account: Account) -> str:
    """Changes with connector, account, object, key and between writing and deleting; with nothing else."""
    form = connector.key_form(sync.object_name)
    identity = [
        connector.spec.name,
        account.id,
        sync.object_name,
        list(sync.key_fields),
        [form.ignore_case, form.trim],
        "delete" if sync.sync_mode is SyncMode.DELETE else "write",
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
