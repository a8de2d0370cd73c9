"""The JSON Schema for editors accepts what `Project.load` accepts, and refuses what it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from ruamel.yaml import YAML

from dagster_retl.model.json_schema import DIALECT, json_schema

EXAMPLE = """
version: 1
project: revops
store: "${RETL_STORE:-sqlite:///.retl/retl.db}"
writes: "${RETL_WRITES:-on}"
warehouses:
  default: {url: "duckdb:///demo/warehouse.duckdb", statement_timeout: 5m, connect_args: {a: {b: 1}}}
destinations:
  conn_sf_prod:
    name: Salesforce Production
    connector: salesforce
    config: {client_id: "${SF_CLIENT_ID}"}
include: [syncs/*.yaml]
defaults: {destination_id: conn_sf_prod, sync_mode: upsert, owners: ["team:revops"]}
syncs:
  - name: crm_accounts
    source_query: SELECT 1
    warehouse: default
    object_name: Account
    field_mappings:
      - {source: account_id, destination: External_Id__c, key: true}
      - {source: annual_revenue, destination: AnnualRevenue, on_null: omit}
      - {value: null, destination: Parent}
    change_detection: snapshot
    guards: {deletes: 10%, shrink: 0.5, failures: "${F:-5%}"}
    max_attempts: "${ATTEMPTS:-5}"
    enabled: "on"
    schedule: {type: cron, expression: "15 */4 * * *", timezone: UTC}
  - name: crm_contacts
    source_query: file:sql/contacts.sql
    object_name: Contact
    key: [External_Id__c]
    schedule: 15 4 * * *
    field_mappings: {External_Id__c: contact_id, Email: {source: email, on_null: omit}}
alerts:
  - notify: ["${RETL_ALERT_URL}"]
    on: [run_failed, guard_tripped, dead_letters, recovered]
    dead_letters: {new_codes: true, open: 100}
    repeat_after: 24h
engine: {memory: 300MB, threads: 2, spill: /tmp}
"""

TYPES: Mapping[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float), "null": type(None)}
KEYWORDS = {"$schema", "$defs", "title", "description", "default", "examples", "$ref", "anyOf", "type", "enum", "const"}
KEYWORDS |= {"properties", "required", "additionalProperties", "minProperties", "items", "minItems", "pattern"}
KEYWORDS |= {"minLength", "minimum", "maximum", "exclusiveMinimum"}


class Checker:
    """The part of draft 2020-12 that our schema uses; any other keyword is an error of this test."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root

    def accepts(self, value: Any, schema: Any) -> bool:
        if isinstance(schema, bool):
            return schema
        assert set(schema) <= KEYWORDS, set(schema) - KEYWORDS
        if "$ref" in schema and not self.accepts(value, self.root["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
            return False
        if "anyOf" in schema and not any(self.accepts(value, each) for each in schema["anyOf"]):
            return False
        if value not in schema.get("enum", [value]) or value != schema.get("const", value):
            return False
        return self.has_type(value, schema.get("type")) and self.fits(value, schema)

    def has_type(self, value: Any, name: str | None) -> bool:
        if name in (None, "boolean") or isinstance(value, bool):
            return name is None or (name == "boolean" and isinstance(value, bool))
        return isinstance(value, int if name == "integer" else TYPES[str(name)])

    def fits(self, value: Any, schema: dict[str, Any]) -> bool:
        if isinstance(value, dict):
            return self.object_fits(value, schema)
        if isinstance(value, list):
            return len(value) >= schema.get("minItems", 0) and all(
                self.accepts(x, schema.get("items", True)) for x in value
            )
        if isinstance(value, str):
            return len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            least, most = schema.get("minimum", value), schema.get("maximum", value)
            return bool(least <= value <= most and value > schema.get("exclusiveMinimum", value - 1))
        return True

    def object_fits(self, value: dict[str, Any], schema: dict[str, Any]) -> bool:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        complete = set(schema.get("required", ())) <= set(value) and len(value) >= schema.get("minProperties", 0)
        return complete and all(self.accepts(each, properties.get(key, others)) for key, each in value.items())


def accepts(text: str) -> bool:
    schema = json_schema()
    return Checker(schema).accepts(YAML(typ="safe", pure=True).load(text), schema)


def test_example_of_the_design() -> None:
    assert accepts(EXAMPLE)


@pytest.mark.parametrize(
    "said", ["none", "{watermark: c}", "{watermark: c, lookback: 1h}", "{watermark: c, lookback: 5}"]
)
def test_ways_to_detect_changes(said: str) -> None:
    assert accepts(EXAMPLE.replace("change_detection: snapshot", f"change_detection: {said}"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("object_name: Account", "objct_name: Account"),
        ("sync_mode: upsert", "sync_mode: upsertt"),
        ("on_null: omit", "on_null: drop"),
        ("threads: 2", "threads: many"),
        ("threads: 2", "threads: 0"),
        ("memory: 300MB", "memory: a lot"),
        ("deletes: 10%", "deletes: 10"),
        ("repeat_after: 24h", "repeat_after: 24"),
        ("schedule: 15 4 * * *", "schedule: daily"),
        ("schedule: 15 4 * * *", "schedule: on_upstreams"),
        ("name: crm_contacts", "slug: crm_contacts"),
        ("version: 1", "version: 2"),
        ("version: 1", "base: /x"),
        ("warehouses:", "warehousess:"),
        ("defaults: {", "defaults: {name: x, "),
        ("{url:", "{ulr: x, url:"),
        ("guard_tripped", "stall"),
        ("open: 100", "rate: 10"),
        ("open: 100", "age: 24"),
        ("max_attempts", "after: x\n    max_attempts"),
        ("max_attempts", "renamed_from: a b\n    max_attempts"),
        ("defaults: {", "defaults: {after: [x], "),
        ("max_attempts", "partitions: x\n    max_attempts"),
        ("max_attempts", "adopt: x\n    max_attempts"),
        ("change_detection: snapshot", "change_detection: hash"),
        ("change_detection: snapshot", "change_detection: {lookback: 1h}"),
        ("change_detection: snapshot", "change_detection: {watermark: c, lookback: -1}"),
        ("change_detection: snapshot", "change_detection: {watermark: c, lookback: 1 hour}"),
        ("engine:", "dead_letters: {payloads: maybe}\nengine:"),
        ("engine:", "retention: {generations: 1}\nengine:"),
        ("engine:", "retention: {runs: 0}\nengine:"),
        ("engine:", "retention: {row_history: 14}\nengine:"),
        ("engine:", "retention: {runs: 90}\nengine:"),
        ("Email: {source: email,", "Email: {destination: x, source: email,"),
    ],
)
def test_mistakes(old: str, new: str) -> None:
    assert old in EXAMPLE
    assert not accepts(EXAMPLE.replace(old, new))


@pytest.mark.parametrize("text", ["warehouses: {}\ndestinations: {}\nsyncs: []", "warehouses:\ndestinations:\nsyncs:"])
def test_empty_projects(text: str) -> None:
    assert accepts(text)


def test_no_syncs_at_all() -> None:
    assert not accepts("warehouses: {}\ndestinations: {}")


def test_everything_is_described() -> None:
    schema = json_schema()
    assert (schema["$schema"], schema["title"]) == (DIALECT, "retl.yaml")
    for name in ("Sync", "Warehouse", "AlertRule", "Guards", "FieldMapping", "EngineSettings"):
        model = schema["$defs"][name]
        assert model["description"]
        assert {
            key for key, each in model["properties"].items() if "description" not in each and "$ref" not in each
        } == set()
        assert not re.search("ISO|P1D|PT", str(model.get("default", "")))
