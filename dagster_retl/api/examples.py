"""One answer of each endpoint, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

SYNC_ID = "retl_sync_01j9k6m7n8q9v0r1s2t3w4x5y6"
RUN_ID = "retl_run_01j9k7p2q3r4s5t6v7w8x9y0z1"
LETTER_ID = "retl_dlq_01j9k8v9v0w1x2y3z4a5b6c7d8"

SYNC_INPUT: Document = {
    "name": "crm_accounts_warehouse_to_salesforce",
    "sourceQuery": "SELECT account_id, name, annual_revenue FROM analytics.dim_crm_account WHERE is_active = true",
    "destinationId": "conn_sf_prod",
    "objectName": "Account",
    "fieldMappings": [
        {"source": "account_id", "destination": "External_Id__c", "key": True},
        {"source": "name", "destination": "Name"},
        {"source": "annual_revenue", "destination": "AnnualRevenue"},
    ],
    "syncMode": "upsert",
    "schedule": {"type": "cron", "expression": "15 */4 * * *", "timezone": "UTC"},
}
SYNC_CHANGES: Document = {"schedule": {"type": "cron", "expression": "0 */2 * * *", "timezone": "UTC"}}

_SUMMARY: Document = {
    "name": SYNC_INPUT["name"],
    "slug": SYNC_INPUT["name"],
    "description": None,
    "warehouse": "default",
    "destination_id": "conn_sf_prod",
    "object_name": "Account",
    "sync_mode": "upsert",
    "enabled": True,
    "schedule": SYNC_INPUT["schedule"],
    "owner": "store",
    "version": 1,
    "created_at": "2025-03-27T17:00:00Z",
    "updated_at": "2025-03-27T17:00:00Z",
}
_FULL: Document = _SUMMARY | {
    "source_query": SYNC_INPUT["sourceQuery"],
    "field_mappings": SYNC_INPUT["fieldMappings"],
    "change_detection": "snapshot",
    "guards": {"deletes": 0.1, "shrink": 0.5, "failures": 0.05},
    "checks": {"dead_letters": {"open": 0, "age": "1d"}, "unique_keys": False, "destination_contract": False},
    "partitions": None,
    "after": [],
    "max_attempts": 5,
    "on_missing": "skip",
    "owners": [],
    "group": "reverse_etl",
    "tags": {},
}
_SAVED: Document = {
    "next_run": {"sends": "changed", "removes": False, "reason": "12,795 rows were delivered before"},
    "definitions_stale": False,
    "warnings": [],
}
_PAGE: Document = {"page": {"limit": 50, "cursor": None}}


def _sync(attributes: Document) -> Document:
    return {"id": SYNC_ID, "type": "reverse_etl_sync", "attributes": attributes}


SYNCS: Document = {"data": [_sync(_SUMMARY)], "meta": _PAGE}
SYNC: Document = {"data": _sync(_FULL | {"schedule_state": "running"})}
UPDATED_SYNC: Document = {
    "data": _sync(_FULL | SYNC_CHANGES | {"version": 2, "updated_at": "2025-03-27T17:15:00Z"}),
    "meta": _SAVED,
}
DELETED_SYNC: Document = {
    "data": _sync({"deleted": True, "deleted_at": "2025-03-27T17:20:00Z"}),
    "meta": {"definitions_stale": False, "cancelled_run_ids": []},
}
TOGGLE: Document = {"syncId": SYNC_ID, "enabled": False}
TOGGLED_SYNC: Document = {
    "data": _sync(
        {
            "enabled": False,
            "updated_at": "2025-03-27T17:23:30Z",
            "schedule": SYNC_INPUT["schedule"],
            "schedule_state": "disabled",
        }
    )
}
VERSIONS: Document = {
    "data": [
        {
            "id": f"{SYNC_ID}_v1",
            "type": "reverse_etl_sync_version",
            "attributes": {
                "version": 1,
                "name": SYNC_INPUT["name"],
                "actor": "api:terraform (retl_key_01j9k5)",
                "created_at": "2025-03-27T17:00:00Z",
                "definition": {"object_name": "Account", "sync_mode": "upsert"},
            },
        }
    ]
}
RETIRED: Document = {
    "data": [
        {
            "id": SYNC_ID,
            "type": "reverse_etl_retired_sync",
            "attributes": {"name": SYNC_INPUT["name"], "deleted_at": None, "open_dead_letters": 3},
        }
    ]
}
PLAN: Document = {
    "data": {
        "type": "reverse_etl_plan",
        "attributes": {
            "sync_id": SYNC_ID,
            "sync_name": SYNC_INPUT["name"],
            "reason": "compared with the snapshot",
            "rows_read": 12840,
            "rows_sent": 60,
            "rows_unchanged": 12780,
            "rows_failed": 0,
            "rows_deleted": 0,
            "samples": [
                {"change": "update", "record_keys": {"External_Id__c": "acc_88291"}, "values": {"Name": "***"}}
            ],
            "guards": [],
            "warnings": [],
        },
    }
}

RUN_BODY: Document = {"syncId": SYNC_ID, "fullRefresh": False}
_RUN: Document = {
    "sync_id": SYNC_ID,
    "sync_name": SYNC_INPUT["name"],
    "status": "succeeded",
    "full_refresh": False,
    "dry_run": False,
    "partition": None,
    "trigger": "api",
    "rows_read": 12840,
    "rows_written": 12795,
    "rows_unconfirmed": 0,
    "rows_failed": 45,
    "rows_unchanged": 0,
    "rows_skipped": 0,
    "rows_unknown": 0,
    "rows_removed": 0,
    "rows_deleted": 0,
    "created_at": "2025-03-27T12:15:00Z",
    "started_at": "2025-03-27T12:15:01Z",
    "finished_at": "2025-03-27T12:18:44Z",
    "duration_s": 223.0,
    "dagster_run_id": "8e0d4b1e-2b0c-4b6e-9c1f-5a3d2e1f0a9b",
    "error": None,
    "warnings": [],
}
_NOT_BEGUN: Document = {
    **{name: 0 if name.startswith("rows_") else value for name, value in _RUN.items()},
    "status": "queued",
    "started_at": None,
    "finished_at": None,
    "duration_s": None,
    "dagster_run_id": None,
}


def _run(attributes: Document) -> Document:
    return {"id": RUN_ID, "type": "reverse_etl_run", "attributes": attributes}


RUN: Document = {"data": _run(_RUN)}
RUNS: Document = {"data": [_run(_RUN)], "meta": _PAGE}
RUN_STARTED: Document = {"data": _run(_NOT_BEGUN)}

_LETTER: Document = {
    "id": LETTER_ID,
    "type": "reverse_etl_dlq_entry",
    "attributes": {
        "sync_id": SYNC_ID,
        "run_id": RUN_ID,
        "error_code": "DESTINATION_VALIDATION",
        "vendor_code": "INVALID_EMAIL",
        "message": "INVALID_EMAIL: bad format for field Email",
        "record_keys": {"External_Id__c": "acc_88291"},
        "operation": "upsert",
        "partition": None,
        "attempts": 5,
        "rows": 1,
        "first_seen_at": "2025-03-27T12:16:10Z",
        "last_seen_at": "2025-03-27T16:16:12Z",
        "resolved": False,
        "resolution": None,
        "resolved_at": None,
        "replaying": False,
    },
}
LETTER: Document = {"data": _LETTER}
LETTERS: Document = {"data": [_LETTER], "meta": _PAGE}
STATS: Document = {
    "data": {
        "type": "reverse_etl_dlq_stats",
        "attributes": {
            "open_count": 12,
            "resolved_count": 340,
            "by_error_code": {"DESTINATION_VALIDATION": 7, "RATE_LIMIT": 3, "UNKNOWN": 2},
            "computed_at": "2025-03-27T17:30:00Z",
        },
    }
}
RESOLVE_BODY: Document = {"entryIds": [LETTER_ID], "resolution": "fixed_upstream", "replay": False}
RESOLVED: Document = {
    "data": {
        "type": "reverse_etl_dlq_resolve",
        "attributes": {
            "resolved_ids": [LETTER_ID],
            "replay_run_id": None,
            "replay_run_ids": [],
            "resolved_at": "2025-03-27T17:35:00Z",
        },
    }
}

DESTINATIONS: Document = {
    "data": [
        {
            "id": "conn_sf_prod",
            "type": "reverse_etl_destination",
            "attributes": {
                "name": "Salesforce Production",
                "connector": "salesforce",
                "status": "connected",
                "objects_discoverable": True,
            },
        }
    ]
}
_DISCOVERED: Document = {"stale": False, "discovered_at": "2025-03-27T17:00:00Z"}
OBJECTS: Document = {
    "data": [
        {
            "id": name,
            "type": "destination_object",
            "attributes": {"label": name, "api_name": name, "supports_upsert": True, "writable": True},
        }
        for name in ("Account", "Contact")
    ],
    "meta": _DISCOVERED,
}
FIELDS: Document = {
    "data": [
        {
            "id": name,
            "type": "destination_field",
            "attributes": {
                "label": label,
                "data_type": "string",
                "required": name == "Name",
                "createable": True,
                "updateable": True,
                "external_id": name != "Name",
            },
        }
        for name, label in (("Name", "Account Name"), ("External_Id__c", "Warehouse Account Id"))
    ],
    "meta": _DISCOVERED,
}

BODIES: dict[str, Document] = {
    "SyncInput": SYNC_INPUT,
    "SyncChanges": SYNC_CHANGES,
    "Toggle": TOGGLE,
    "PlanBody": {},
    "RunBody": RUN_BODY,
    "ResolveBody": RESOLVE_BODY,
}
"""One body of each request that has one, by the name of its schema."""
