"""retl.yaml: what it says becomes a Project, and every mistake is told with its position."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.ids import sync_id_of
from dagster_retl.model.problems import Problem, ProjectFileError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import SyncMode

WHOLE_EXAMPLE = r"""
version: 1
project: revops
store: "${RETL_STORE:-sqlite:///.retl/retl.db}"
state: "${RETL_STATE:-.retl/state}"
writes: "${RETL_WRITES:-on}"
warehouses:
  default: {url: "duckdb:///demo/warehouse.duckdb"}
destinations:
  conn_sf_prod:
    name: Salesforce Production
    connector: salesforce
    config: {login_url: "https://acme.my.salesforce.com", client_id: "${SF_CLIENT_ID}",
             client_secret: "${SF_CLIENT_SECRET}"}
include: [syncs/*.yaml]
defaults: {destination_id: conn_sf_prod, sync_mode: upsert, owners: ["team:revops"]}
syncs:
  - name: crm_accounts
    source_query: SELECT account_id, name, annual_revenue FROM analytics.dim_crm_account WHERE is_active
    warehouse: default
    object_name: Account
    field_mappings:
      - {source: account_id, destination: External_Id__c, key: true}
      - {source: "upper(name)", destination: Name}
      - {source: annual_revenue, destination: AnnualRevenue, on_null: omit}
    change_detection: snapshot
    guards: {deletes: 10%, shrink: 50%, failures: 5%}
    max_attempts: 5
    schedule: {type: cron, expression: "15 */4 * * *", timezone: UTC}
  - name: crm_contacts
    source_query: file:sql/contacts.sql
    object_name: Contact
    key: External_Id__c
    field_mappings: {External_Id__c: contact_id, Email: email, Account.External_Id__c: account_id}
alerts:
  - notify: ["${RETL_ALERT_URL}"]
    on: [run_failed, guard_tripped, dead_letters, recovered]
    dead_letters: {new_codes: true, open: 100}
    repeat_after: 24h
engine: {memory: 300MB, threads: 2, spill: /tmp}
"""

ENVIRON = {"SF_CLIENT_ID": "client-7", "SF_CLIENT_SECRET": "hunter2hunter2", "RETL_ALERT_URL": "slack://tok/en/s"}

SMALL = """
warehouses: {default: {url: "duckdb:///w.duckdb"}}
destinations: {d: {connector: http}}
syncs:
  - {name: One, source_query: SELECT 1, destination_id: d, object_name: o, key: A, field_mappings: {A: a}}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "retl.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems_of(path: Path, environ: dict[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ProjectFileError) as caught:
        Project.load(path, environ=environ or {})
    return caught.value.problems


def small(extra: str = "", sync: str = "") -> str:
    """A project that is right but for what is added to it, or to its one sync (from line 8 on)."""
    lines = ["warehouses: {default: {url: 'duckdb:///w.duckdb'}}", "destinations: {dest: {connector: http}}", "syncs:"]
    lines += ["  - name: one", "    source_query: SELECT 1", "    object_name: o", "    field_mappings: {A: a}"]
    lines += [f"    {line}" for line in sync.splitlines()]
    if "destination_id" not in sync:
        lines.append("    destination_id: dest")
    if "key" not in sync:
        lines.append("    key: A")
    return "\n".join(lines) + "\n" + extra


def test_example_of_the_design(write: Write) -> None:
    project = Project.load(write(WHOLE_EXAMPLE), environ=ENVIRON)
    accounts, contacts = project.syncs
    assert project.project == "revops"
    assert project.writes is True
    assert project.destination("conn_sf_prod").config["client_secret"] == "hunter2hunter2"
    assert accounts.id == sync_id_of("revops", "crm_accounts")
    assert accounts.destination_id == "conn_sf_prod"
    assert accounts.sync_mode is SyncMode.UPSERT
    assert accounts.owners == ("team:revops",)
    assert accounts.guards.deletes == 0.10
    assert accounts.schedule.expression == "15 */4 * * *"
    assert accounts.key_fields == ("External_Id__c",)
    assert contacts.key_fields == ("External_Id__c",)
    assert [mapping.source for mapping in contacts.field_mappings] == ["contact_id", "email", "account_id"]
    assert project.alerts[0].on == ("run_failed", "guard_tripped", "dead_letters", "recovered")
    assert project.alerts[0].notify == ("slack://tok/en/s",)
    assert project.alerts[0].repeat_after == timedelta(hours=24)
    assert project.engine.memory == 300_000_000


def test_locations_are_relative_to_the_file(write: Write, tmp_path: Path) -> None:
    project = Project.load(write(WHOLE_EXAMPLE), environ=ENVIRON)
    assert project.base == tmp_path
    assert project.path == tmp_path / "retl.yaml"
    assert project.store_url == f"sqlite:///{tmp_path}/.retl/retl.db"
    assert project.state_url == f"{tmp_path}/.retl/state"
    assert project.spill_folder == "/tmp"


def test_relative_path_of_the_file_gives_an_absolute_base(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(SMALL)
    monkeypatch.chdir(tmp_path)
    assert Project.load(environ={}).store_url == f"sqlite:///{tmp_path}/.retl/retl.db"


def test_retl_project_names_the_file(write: Write) -> None:
    path = write(SMALL, "other.yaml")
    assert Project.load(environ={"RETL_PROJECT": str(path)}).path == path


def test_environment_overrides_the_file(write: Write) -> None:
    environ = {"RETL_STORE": "postgresql+psycopg://u:pw@h/db", "RETL_STATE": "s3://bucket/x", "RETL_WRITES": "off"}
    project = Project.load(write(SMALL), environ=environ)
    assert project.store_url == "postgresql+psycopg://u:pw@h/db"
    assert project.state_url == "s3://bucket/x"
    assert project.writes is False


@pytest.mark.parametrize(
    ("text", "expected"), [("on", True), ("off", False), ("true", True), ("False", False), ('"${W:-off}"', False)]
)
def test_switch_words(write: Write, text: str, expected: bool) -> None:
    assert Project.load(write(small(f"writes: {text}\n")), environ={}).writes is expected


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a-${A}-${B:-b}", {"A": "x"}, "a-x-b"),
        ("${A:-}", {}, ""),
        ("${A:-d}", {"A": ""}, "d"),
        ("$${A} $5 $A", {}, "${A} $5 $A"),
        ("${A}", {"A": "${B}"}, "${B}"),
    ],
)
def test_environment_references(write: Write, text: str, environ: dict[str, str], expected: str) -> None:
    project = Project.load(write(small().replace("SELECT 1", f"'SELECT 1 {text}'")), environ=environ)
    assert project.syncs[0].source_query == f"SELECT 1 {expected}"


def test_numbers_and_switches_may_come_from_the_environment(write: Write) -> None:
    text = small('engine: {threads: "${T}"}\n', sync='max_attempts: "${M:-7}"\nenabled: "${E:-off}"')
    project = Project.load(write(text), environ={"T": "4"})
    assert (project.engine.threads, project.syncs[0].max_attempts, project.syncs[0].enabled) == (4, 7, False)


def test_empty_sections(write: Write) -> None:
    project = Project.load(write("warehouses:\ndestinations: {}\nsyncs: []\n"), environ={})
    assert (project.warehouses, project.destinations, project.syncs) == ({}, {}, ())


def test_anchors_and_merge_keys(write: Write) -> None:
    text = """
warehouses: {default: &w {url: "duckdb:///a", timezone: UTC}, other: {<<: *w, url: "duckdb:///b"}}
destinations: {}
syncs: []
"""
    project = Project.load(write(text), environ={})
    assert (project.warehouse("other").url, project.warehouse("other").timezone) == ("duckdb:///b", "UTC")


def test_own_keys_keep_their_positions_beside_merged_ones(write: Write) -> None:
    text = "destinations: {}\nsyncs: []\nwarehouses:\n  a: &a {url: 'duckdb://', timezone: UTC}\n"
    (problem,) = problems_of(write(text + "  b:\n    timezone: Mars\n    <<: *a\n"))
    assert (problem.path, problem.line) == ("warehouses.b.timezone", 6)


def test_yaml_is_1_2(write: Write) -> None:
    text = small().replace(
        "{connector: http}", "{connector: http, config: {on: yes, 1: 012, d: 2020-01-02, n: ~, x: 0x1F}}"
    )
    config = Project.load(write(text), environ={}).destination("dest").config
    assert config == {"on": "yes", "1": 12, "d": "2020-01-02", "n": None, "x": 31}


# --- include and defaults


def test_included_files(write: Write) -> None:
    sync = "{name: %s, source_query: SELECT 1, destination_id: d, object_name: o, key: A, field_mappings: {A: a}}"
    path = write(SMALL + "include: [syncs/*.yaml, more/list.yml, syncs/b.yaml]\n")
    write(sync % "B", "syncs/b.yaml")
    write("syncs:\n  - " + sync % "C", "syncs/c.yaml")
    write(f"- {sync % 'D'}\n- {sync % 'E'}", "more/list.yml")
    write("not yaml: [", "syncs/readme.txt")
    assert [each.name for each in Project.load(path, environ={}).syncs] == ["One", "B", "C", "D", "E"]


def test_patterns_do_not_include_the_project_itself_and_may_match_nothing(write: Write) -> None:
    path = write(SMALL + 'include: ["*.yaml", "none/*.yaml"]\n')
    assert len(Project.load(path, environ={}).syncs) == 1


def test_include_may_stand_for_syncs(write: Write) -> None:
    text = "warehouses: {}\ndestinations: {}\ninclude: ['syncs/*.yaml']\n"
    assert Project.load(write(text), environ={}).syncs == ()


def test_defaults_lie_under_each_sync(write: Write) -> None:
    defaults = "defaults: {guards: {deletes: 20%, shrink: 30%}, tags: {a: x}, schedule: '1 2 * * *'}\n"
    text = small(defaults, sync="guards: {shrink: 40%}\ntags: {b: y}\nschedule: manual")
    sync = Project.load(write(text), environ={}).syncs[0]
    assert (sync.guards.deletes, sync.guards.shrink, sync.guards.failures) == (0.2, 0.4, 0.05)
    assert sync.tags == {"a": "x", "b": "y"}
    assert (sync.schedule.type, sync.schedule.expression) == ("manual", None)


# --- mistakes

MISTAKES = {
    "unknown setting": (small("storre: x\n"), 10, "storre", "unknown setting", "`store`"),
    "unknown setting of a sync": (small(sync="objct_name: x"), 8, "syncs[0].objct_name", "unknown", "`object_name`"),
    "unknown setting of guards": (
        small(sync="guards: {delete: 1%}"),
        8,
        "syncs[0].guards.delete",
        "unknown",
        "`deletes`",
    ),
    "unknown setting of a warehouse": (
        small().replace("url:", "ulr: x, url:"),
        1,
        "warehouses.default.ulr",
        "unknown",
        "`url`",
    ),
    "unknown setting of an alert": (
        small("alerts:\n  - {notify: [x], onn: []}\n"),
        11,
        "alerts[0].onn",
        "unknown",
        "`on`",
    ),
    "unknown setting of a mapping": (
        small(sync="x: y").replace("{A: a}", "{A: {source: a, defalt: 1}}"),
        7,
        "syncs[0].field_mappings.A.defalt",
        "unknown",
        "`default`",
    ),
    "settings of the program's own": (small("base: /\n"), 10, "base", "unknown setting", ""),
    "missing setting": (small().replace("    object_name: o\n", ""), 4, "syncs[0].object_name", "missing", ""),
    "missing section": ("destinations: {}\nsyncs: []\n", 1, "warehouses", "missing", ""),
    "wrong choice": (small(sync="sync_mode: upsertt"), 8, "syncs[0].sync_mode", "'mirror'", "`upsert`"),
    "text for a list": (small(sync="owners: me"), 8, "syncs[0].owners", "expected a list, found text", ""),
    "list for a mapping": (small().replace("{dest: {connector: http}}", "[a]"), 2, "destinations", "found a list", ""),
    "number for a sync": (small("  - 5\n"), 10, "syncs[1]", "expected a mapping of settings, found a number", ""),
    "file that is not there": (small("include: [a.yaml]\n"), 10, "include[0]", "there is no file 'a.yaml'", ""),
    "number for text": (small(sync="description: 5"), 8, "syncs[0].description", "expected text", "quotes"),
    "word for a number": (small(sync="max_attempts: many"), 8, "syncs[0].max_attempts", "whole number", ""),
    "number too small": (small(sync="max_attempts: 0"), 8, "syncs[0].max_attempts", "at least 1", ""),
    "share above one": (small(sync="guards: {deletes: 10}"), 8, "syncs[0].guards.deletes", "at most 1", "10%"),
    "share that is no number": (small(sync="guards: {deletes: .nan}"), 8, "syncs[0].guards.deletes", "finite", ""),
    "cron": (small(sync='schedule: "61 * * * *"'), 8, "syncs[0].schedule", "not a cron expression", ""),
    "cron in the long form": (
        small(sync="schedule:\n  type: cron\n  expression: daily"),
        10,
        "syncs[0].schedule.expression",
        "cron",
        "",
    ),
    "time zone": (
        small(sync="schedule: {type: cron, expression: 1 * * * *, timezone: Mars}"),
        8,
        "syncs[0].schedule.timezone",
        "IANA time zone",
        "",
    ),
    "time zone that is a folder": (
        small().replace("w.duckdb'", "w.duckdb', timezone: Europe"),
        1,
        "warehouses.default.timezone",
        "IANA",
        "",
    ),
    "duration without a unit": (
        small("alerts: [{notify: [x], repeat_after: 24}]\n"),
        10,
        "alerts[0].repeat_after",
        "duration such as 24h",
        "",
    ),
    "endless duration": (
        small("alerts: [{notify: [x], repeat_after: 99999999999d}]\n"),
        10,
        "alerts[0].repeat_after",
        "too long",
        "",
    ),
    "size": (small("engine: {memory: lots}\n"), 10, "engine.memory", "size such as 300MB", ""),
    "size without a unit": (small("engine: {memory: 300}\n"), 10, "engine.memory", "not enough", ""),
    "store": (small("store: mysql://h/d\n"), 10, "store", "SQLite", ""),
    "url": (small().replace("duckdb:///w.duckdb", "w.duckdb"), 1, "warehouses.default.url", "database URL", ""),
    "version": (small("version: 2\n"), 10, "version", "expected 1", ""),
    "unknown destination": (
        small(sync="destination_id: dst"),
        8,
        "syncs[0].destination_id",
        "no destination 'dst'",
        "`dest`",
    ),
    "unknown warehouse": (small(sync="warehouse: defalt"), 8, "syncs[0].warehouse", "no warehouse", "`default`"),
    "no warehouse at all": (
        small().replace("{default: {url: 'duckdb:///w.duckdb'}}", "{}"),
        4,
        "syncs[0].warehouse",
        "no warehouse 'default'",
        "",
    ),
    "unknown predecessor": (small(sync="after:\n  - oen"), 9, "syncs[0].after[0]", "no sync 'oen'", "`one`"),
    "predecessors by default": (small("defaults: {after: [one]}\n"), 10, "defaults.after", "in each sync", ""),
    "after itself": (small(sync="after: [one]"), 8, "syncs[0].after[0]", "after itself", ""),
    "a circle": (
        small("  - {name: two, after: [three]}\n  - {name: three, after: [one]}\n", sync="after: [two]"),
        8,
        "syncs[0].after",
        "wait for one another: ",
        "Take one",
    ),
    "renamed from itself": (small(sync="renamed_from: one"), 8, "syncs[0].renamed_from", "has now", ""),
    "renamed from no slug": (small(sync="renamed_from: a b"), 8, "syncs[0].renamed_from", "", ""),
    "renamed and adopted": (
        small(sync="renamed_from: a\nadopt: retl_sync_abc"),
        8,
        "syncs[0].renamed_from",
        "`adopt` says",
        "",
    ),
    "the old name is still there": (
        small("  - {name: two, renamed_from: one}\n"),
        10,
        "syncs[1].renamed_from",
        "'one' is still there, as syncs[0]",
        "first slug of all",
    ),
    "two renamed from one": (
        small("  - {name: two, renamed_from: old}\n", sync="renamed_from: old"),
        11,
        "syncs[1].renamed_from",
        "syncs[0] is renamed from the same",
        "",
    ),
    "an id adopted that a slug stands for": (
        small(f"  - {{name: two, adopt: {sync_id_of('default', 'one')}}}\n"),
        10,
        "syncs[1].adopt",
        "the id of syncs[0]",
        "",
    ),
    "same name": (small("  - {name: one, slug: two}\n"), 10, "syncs[1].name", "syncs[0] has the same name", ""),
    "same slug": (small("  - name: ONE\n"), 10, "syncs[1].name", "syncs[0] has the same slug", "slug"),
    "bad slug": (small(sync="slug: a-b"), 8, "syncs[0].slug", "letters, digits and underscores", ""),
    "name without a slug": (small().replace("name: one", "name: 東京"), 4, "syncs[0].slug", "letters, digits", ""),
    "no key": (small(sync="x_key: 1").replace("\n    x_key: 1", ""), 4, "syncs[0].sync_mode", "needs a key", ""),
    "key without a mapping": (small(sync="key: B"), 8, "syncs[0].key", "not among the mapped", "A"),
    "field mapped twice": (
        small().replace("{A: a}", "[{destination: A, source: a}, {destination: A, source: b}]"),
        7,
        "syncs[0].field_mappings",
        "mapped twice",
        "",
    ),
    "mapping without an origin": (
        small().replace("{A: a}", "\n      - {destination: A, source: a}\n      - {destination: B}"),
        9,
        "syncs[0].field_mappings[1]",
        "exactly one of",
        "",
    ),
    "change detection": (small(sync="change_detection: hash"), 8, "syncs[0].change_detection", "snapshot", ""),
    "change detection, inside": (
        small(sync="change_detection: {watermark: a, lookbak: 1h}"),
        8,
        "syncs[0].change_detection.lookbak",
        "unknown",
        "`lookback`",
    ),
    "lookback": (
        small(sync="change_detection: {watermark: a, lookback: 1 day}"),
        8,
        "syncs[0].change_detection.lookback",
        "or a number",
        "",
    ),
    "mirror with a watermark": (
        small(sync="change_detection: {watermark: a}\nsync_mode: mirror"),
        8,
        "syncs[0].change_detection",
        "mode 'mirror' needs `change_detection: snapshot`",
        "",
    ),
    "mirror that compares nothing": (
        small(sync="change_detection: none\nsync_mode: mirror"),
        8,
        "syncs[0].change_detection",
        "mode 'mirror' needs `change_detection: snapshot`",
        "",
    ),
    "insert that compares nothing": (
        small(sync="change_detection: none\nsync_mode: insert"),
        8,
        "syncs[0].change_detection",
        "would insert every row again",
        "",
    ),
    "watermark without a key": (
        small(sync="change_detection: {watermark: a}\nsync_mode: insert\nkey: []"),
        8,
        "syncs[0].change_detection",
        "a watermark needs a key",
        "",
    ),
    "misnamed destination": (
        small().replace("connector: http", "id: other, connector: http"),
        2,
        "destinations.dest.id",
        "by its key",
        "Leave",
    ),
    "foreign sync": (small(sync="project: other"), 8, "syncs[0].project", "belongs to project", "Leave"),
    "duplicate key": (small(sync="object_name: p"), 8, "syncs[0].object_name", "twice; first on line 6", ""),
    "key that is a list": (small("? [a]\n: b\n"), 10, "", "a key must be a word", ""),
    "tag": (small(sync="description: !env X"), 8, "syncs[0].description", "tag !env is not understood", ""),
    "missing variable": (small(sync='description: "${NOPE}"'), 8, "syncs[0].description", "NOPE is not set", "default"),
    "unclosed reference": (small(sync='description: "${NOPE"'), 8, "syncs[0].description", "`$${`", ""),
    "default that is wrong": (small("defaults:\n  max_attempts: x\n"), 11, "defaults.max_attempts", "whole number", ""),
    "default that is unknown": (
        small("defaults: {max_atempts: 1}\n"),
        10,
        "defaults.max_atempts",
        "unknown",
        "`max_attempts`",
    ),
    "default of one's own": (small("defaults: {name: x}\n"), 10, "defaults.name", "belongs in each sync", ""),
    "defaults that are a list": (small("defaults: []\n"), 10, "defaults", "expected a mapping", ""),
    "include that is text": (small("include: x.yaml\n"), 10, "include", "expected a list", ""),
    "include that is a number": (small("include: [5]\n"), 10, "include[0]", "path of a file", ""),
    "payloads without a key": (
        small("dead_letters: {payloads: on}\n"),
        10,
        "dead_letters",
        "needs a `payload_key`",
        "",
    ),
    "a key that is none": (
        small("dead_letters: {payload_key: secret}\n"),
        10,
        "dead_letters.payload_key",
        "Fernet",
        "",
    ),
    "recursive alias": (small("alerts: &a [*a]\n"), 10, "alerts", "", ""),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(write: Write, name: str) -> None:
    text, line, path, message, hint = MISTAKES[name]
    found = problems_of(write(text))
    named = [problem for problem in found if problem.path.startswith(path) and problem.line == line]
    assert named, found
    assert any(message in problem.message and hint in (problem.hint or "") for problem in named), found


def test_a_sync_that_reads_a_dataframe_needs_no_warehouse(write: Write) -> None:
    text = small().replace("SELECT 1", "asset:a/b")
    assert Project.load(write(text), environ={}).syncs[0].source_query == "asset:a/b"
    (problem,) = problems_of(write(small(sync="warehouse: elsewhere").replace("SELECT 1", "table:a")))
    assert problem.message == "there is no warehouse 'elsewhere'"


def test_what_is_built_passes(write: Write) -> None:
    text = small(sync="after: []\nchange_detection: snapshot\nsync_mode: update\non_missing: fail\npartitions:")
    assert Project.load(write(text), environ={}).syncs[0].on_missing == "fail"


def test_every_mistake_at_once(write: Write) -> None:
    text = small(
        'alerts: [{on: [run_faild]}]\nengine: {threads: 0}\ninclude: ["syncs/*.yaml"]\nstore: "${GONE}"\n',
        sync="warehouse: nope\nschedule: {type: cron, expression: x, timezone: y}\nguards: {shrink: 2}\nkey: Z",
    )
    path = write(text)
    write("- name: included\n  max_attempts: -1\n", "syncs/a.yaml")
    write("a: b: c", "syncs/b.yaml")
    found = problems_of(path)
    assert [(problem.line, problem.path) for problem in found if problem.file == str(path)] == [
        (8, "syncs[0].warehouse"),
        (9, "syncs[0].schedule.expression"),
        (9, "syncs[0].schedule.timezone"),
        (10, "syncs[0].guards.shrink"),
        (11, "syncs[0].key"),
        (13, "alerts[0].notify"),
        (13, "alerts[0].on[0]"),
        (14, "engine.threads"),
        (16, "store"),
    ]
    assert (2, "syncs[1].max_attempts") in [(each.line, each.path) for each in found if each.file.endswith("a.yaml")]
    assert [each.line for each in found if each.file.endswith("b.yaml")] == [1]


def test_one_wrong_default_is_one_mistake(write: Write) -> None:
    more = "  - {name: two, source_query: S, object_name: o, destination_id: dest, key: A, field_mappings: {A: a}}\n"
    assert len(problems_of(write(small(more + "defaults: {max_attempts: 0}\n")))) == 1


def test_columns_count_from_one(write: Write) -> None:
    (problem,) = problems_of(
        write("warehouses: {default: {ulr: x, url: 'duckdb:///x'}}\ndestinations: {}\nsyncs: []\n")
    )
    assert (problem.line, problem.column) == (1, 24)


def test_text_of_the_error(write: Write) -> None:
    path = write(small("storre: x\n"))
    with pytest.raises(ConfigurationError) as caught:
        Project.load(path, environ={})
    assert (
        str(caught.value) == f"{path} has a mistake:\n  {path}:10:1: storre: unknown setting\n    Did you mean `store`?"
    )


@pytest.mark.parametrize(
    "text",
    [
        small().replace("object_name: o", "objct_name: o"),
        small("alerts: [{notify: [x], on: [run_faild]}]\n"),
        small(sync="key: B"),
        small('engine: {threads: "${GONE}"}\n'),
        small().replace("name: one", 'name: "${GONE}"'),
    ],
)
def test_one_mistake_is_told_once(write: Write, text: str) -> None:
    assert len(problems_of(write(text))) == 1


# --- files that are no project


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        (b"", 1, 1, "empty"),
        (b"# nothing\n", 1, 1, "empty"),
        (b"- a\n", 1, 1, "expected a mapping"),
        (b"just text", 1, 1, "expected a mapping"),
        (b"a: [1\nb: 2\n", 2, 2, "not YAML"),
        (b"a: 1\n\tb: 2\n", 2, 1, "not YAML"),
        (b"a: 1\nb: \xff\n", 2, 4, "UTF-8"),
        (b"a: 1\nb: \x01\n", 2, 4, "not YAML"),
        (b"a: 1\n---\nb: 2\n", 2, 1, "not YAML"),
        (b"a: *b\n", 1, 4, "not YAML"),
        (b"[" * 5000, 0, 0, "nested too deeply"),
        (b"a: " + b"[" * 100 + b"]" * 100, 1, 0, "nested too deeply"),
    ],
)
def test_broken_files(write: Write, content: bytes, line: int, column: int, message: str) -> None:
    problem = next(each for each in problems_of(write(content)) if message in each.message)
    assert problem.line == line
    assert column in (problem.column, 0)


def test_aliases_that_explode(write: Write) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert any("too large" in problem.message for problem in problems_of(write("\n".join(levels))))


def test_missing_file_folder_and_path_of_no_file(tmp_path: Path) -> None:
    assert "no such file" in problems_of(tmp_path / "none.yaml")[0].message
    assert "folder" in problems_of(tmp_path)[0].message
    assert "cannot be read" in problems_of(Path("a\0b"))[0].message
    assert "cannot be read" in problems_of(Path("a" * 5000))[0].message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("destinations: {}\nsyncs: []", "syncs only, not `destinations`"),
        ("text", "an included file holds"),
        ("syncs: text", "expected a list of syncs"),
        ("", "the file is empty"),
    ],
)
def test_broken_included_files(write: Write, content: str, message: str) -> None:
    path = write(small("include: [more.yaml]\n"))
    included = write(content, "more.yaml")
    problem = next(each for each in problems_of(path) if each.file == str(included))
    assert message in problem.message
    assert problem.line == 1


# --- secrets


SECRET = "s3cr3t'xyzzy\\x"


@pytest.mark.parametrize(
    "text",
    [
        small(sync='schedule: "${S}"'),
        small(sync='slug: "${S}"'),
        small(sync='warehouse: "${S}"'),
        small(sync='max_attempts: "${S}"'),
        small(sync='sync_mode: "x${S}y"'),
        small(sync='key: "${S}"'),
        small(sync='schedule: {type: cron, expression: 1 1 * * *, timezone: "${S}"}'),
        small(sync="destination_id: des\n")
        .replace("dest:", '"${S}":')
        .replace("{connector", "{name: '${S}', connector"),
        small().replace("duckdb:///w.duckdb", "${S}"),
        small().replace("duckdb:///w.duckdb", "postgresql://u:${S}@h:port/d"),
        small('store: "mysql://u:${S}@h/d"\n'),
        small('include: ["${S}.yaml"]\n'),
        small('alerts: [{notify: ["${S}"], on: ["${S}"]}]\n'),
        small('engine: {memory: "${S}"}\n'),
        small('retention: {runs: "${S}"}\n'),
        small('dead_letters: {payload_key: "${S}"}\n'),
        small('  - {name: "${S}", slug: one}\n'),
    ],
)
def test_values_of_the_environment_are_in_no_message(write: Write, text: str) -> None:
    with pytest.raises(ProjectFileError) as caught:
        Project.load(write(text), environ={"S": SECRET})
    assert not re.search("s3cr3t|xyzzy", str(caught.value), re.IGNORECASE)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_secrets_are_in_no_repr(write: Write) -> None:
    text = WHOLE_EXAMPLE.replace("duckdb:///demo/warehouse.duckdb", "postgresql://u:pa55word@h/d?token=t0ken")
    project = Project.load(write(text), environ=ENVIRON | {"RETL_STORE": "postgresql://u:pa55word@h/d"})
    shown = repr(project) + str(project) + project.display_store_url + project.warehouse().display_url
    for secret in ("pa55word", "t0ken", "hunter2", "slack://"):
        assert secret not in shown
    assert project.display_store_url == "postgresql://u:***@h/d"
