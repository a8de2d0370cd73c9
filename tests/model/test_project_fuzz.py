"""Whatever a file holds, reading it gives a Project or a `ProjectFileError`, never anything else."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from dagster_retl.model.model_errors import written_settings
from dagster_retl.model.problems import ProjectFileError
from dagster_retl.model.project import AlertRule, DeadLetterThresholds, Destination, EngineSettings, Project, Warehouse
from dagster_retl.model.sync import FieldMapping, Sync
from dagster_retl.model.sync_settings import Guards, Schedule
from dagster_retl.model.yaml_document import YamlReader

ENVIRON = {"A": "s3cr3t-of-A", "B": ""}

MODELS = (
    Project,
    Warehouse,
    Destination,
    AlertRule,
    DeadLetterThresholds,
    EngineSettings,
    Sync,
    FieldMapping,
    Schedule,
)
KEYS = sorted({name for model in (*MODELS, Guards) for name in written_settings(model)} | {"default", "x", "<<", ""})
WORDS = ["on", "off", "10%", "24h", "300MB", "cron", "0 * * * *", "upsert", "one", "default", "snapshot", "UTC", "null"]
WORDS += ["duckdb:///x", "sqlite:///x", "http", "${A}", "${B:-x}", "${NOPE}", "${", "stale", "dbt:x", "x", "1" * 5000]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


def shaped(model: type[Any], **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mappings with the model's own keys, mostly, and any values: wrong in ways that people are wrong."""
    optional = {name: known.get(name, values) for name in written_settings(model)}
    return st.fixed_dictionaries({}, optional=optional) | values


syncs = shaped(
    Sync,
    name=st.sampled_from(["one", "two", ""]) | values,
    field_mappings=st.lists(shaped(FieldMapping), max_size=3)
    | st.dictionaries(st.sampled_from("AB"), shaped(FieldMapping), max_size=2),
    schedule=shaped(Schedule),
    guards=shaped(Guards),
    destination_id=st.just("d") | values,
)
documents = shaped(
    Project,
    version=st.just(1) | values,
    warehouses=st.dictionaries(st.sampled_from(["default", "w"]), shaped(Warehouse), max_size=2) | values,
    destinations=st.dictionaries(st.sampled_from(["d", "e"]), shaped(Destination), max_size=2) | values,
    syncs=st.lists(syncs, max_size=3) | values,
    defaults=shaped(Sync),
    include=st.lists(st.sampled_from(["*.yaml", "none", "**", "a**", "[", "", ".", "${A}"]), max_size=2) | st.none(),
    alerts=st.lists(shaped(AlertRule, dead_letters=shaped(DeadLetterThresholds)), max_size=2) | values,
    engine=shaped(EngineSettings),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "retl.yaml"


def read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    error = failure(file)
    if error is not None:
        assert error.problems
        assert all(problem.message for problem in error.problems)
        assert "s3cr3t-of-A" not in str(error)


def failure(file: Path) -> ProjectFileError | None:
    try:
        Project.load(file, environ=ENVIRON)
    except ProjectFileError as error:
        return error
    return None


quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@quick
@given(document=documents)
def test_documents_of_any_shape(file: Path, document: Any) -> None:
    read(file, json.dumps(document).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("document", [{"defaults": {"key": "\ud800x"}}, {"\udc00": 1}, {"project": "a\ud9ff"}])
def test_half_a_character_is_named(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document))
    error = failure(file)
    assert error is not None
    assert any("half a character" in problem.message for problem in error.problems)


PIECES = (
    "syncs|a|:|: |\n|\n  |- |[|]|{|}|, |&a |*a|!!int |!x |<<|? |>-|'|\"|\\|#|%YAML 1.1\n---\n|---\n|...\n|\t|~|1_0|-_"
)
pieces = st.sampled_from([*PIECES.split("|"), "|", ".nan", "!!float ", "0b", "2020-01-01"])


@quick
@given(text=st.lists(pieces | st.text(max_size=2), max_size=14).map("".join))
def test_text_of_any_kind(file: Path, text: str) -> None:
    read(file, text.encode("utf-8", "surrogatepass"))


DOCUMENTS = (
    "# nothing", "a:", "a: !!str 1", "? a\n: b", "a: [1, {b: c}, ]", "a: |\n  x\n\nb: >-\n  p\n  q",
    "a:\n  <<: {b: 1}\n  c: 2", "a: &x 1\nb: &x 2\nc: *x", "%YAML 1.1\n---\na: yes", 'a: "\\ud83d\\ude00"',
    "a: x\x85y", "a: \u2028b", "\x850", "\u20280",
    "a: 0o17\nb: 017\nc: yes\nd: on\ne: 1:30\nf: 0x1F\ng: 1_000\nh: 1e3\ni: .inf\nj: ~\nk: 2020-01-01\nl: =",
)  # fmt: skip


@pytest.mark.parametrize("text", DOCUMENTS)
def test_libyaml_changes_nothing(file: Path, text: str) -> None:
    agree(file, text)


@quick
@given(text=st.lists(pieces | st.text(max_size=2), max_size=14).map("".join))
def test_libyaml_changes_nothing_in_text_of_any_kind(file: Path, text: str) -> None:
    agree(file, text)


@quick
@given(document=documents, indent=st.none() | st.integers(1, 3))
def test_libyaml_changes_nothing_in_documents_of_any_shape(file: Path, document: Any, indent: int | None) -> None:
    agree(file, json.dumps(document, indent=indent))


def agree(file: Path, text: str) -> None:
    """What is read is what the parser in Python alone would have made of it, if it takes it."""
    file.write_bytes(text.encode("utf-8-sig"))
    node = YamlReader({}).compose(file, "retl.yaml")
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    columns = "!" not in text  # one counts from the tag, the other from the anchor behind it
    with contextlib.suppress(YAMLError):
        assert shape(node, columns=columns) == shape(yaml.compose(text), columns=columns)


def shape(node: Node | None, *, columns: bool) -> Any:
    """Tags, values and where they stand; where an empty one stands is a matter of taste."""
    if node is None:
        return None
    place = (node.start_mark.line, columns and node.start_mark.column) if node.value != "" else None
    inner = partial(shape, columns=columns)
    if isinstance(node, MappingNode):
        return node.tag, place, [(inner(key), inner(value)) for key, value in node.value]
    return node.tag, place, [inner(each) for each in node.value] if isinstance(node, SequenceNode) else node.value


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000 + "a", "{a: " * 20_000 + "}" * 20_000])
def test_what_is_nested_without_end_takes_no_memory(file: Path, text: str) -> None:
    file.write_text(text)
    error = failure(file)
    assert error is not None
    assert any("nested too deeply" in problem.message for problem in error.problems)


@quick
@given(content=st.binary(max_size=30))
def test_bytes_of_any_kind(file: Path, content: bytes) -> None:
    read(file, content)
