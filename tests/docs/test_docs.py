"""The documentation says what is so: its examples load, its commands exist, its tables are those of the code."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import dagster as dg
import pytest
import yaml
from pydantic import BaseModel

from dagster_retl.cli import main
from dagster_retl.cli.session import Session
from dagster_retl.errors import ACTIONS, Action, ErrorCode
from dagster_retl.model.model_errors import written_settings
from dagster_retl.model.project import (
    AlertRule,
    DeadLetterSettings,
    DeadLetterThresholds,
    Destination,
    EngineSettings,
    Project,
    Retention,
    Warehouse,
)
from dagster_retl.model.runs import Guard
from dagster_retl.model.sync import FieldMapping, Sync, SyncMode
from dagster_retl.model.sync_settings import Guards, Schedule, Watermark
from dagster_retl.model.units import format_duration
from dagster_retl.orchestration.config import SyncRunConfig
from dagster_retl.service import Service
from dagster_retl.store.schema import metadata

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDE, HOW, LETTERS = (ROOT / "docs" / name for name in ("guide.md", "how-it-works.md", "dead-letters.md"))
CONNECTORS = sorted((ROOT / "docs" / "connectors").glob("*.md"))

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|&& |`)retl(?= |$)")
_PATH = re.compile(r"file:([^\s\"']+)")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(language: str) -> Iterator[Any]:
    for page in PAGES:
        for indent, kind, text in _FENCE.findall(page.read_text(encoding="utf-8")):
            if kind == language:
                line = page.read_text(encoding="utf-8").partition(text)[0].count("\n") + 1
                yield pytest.param(re.sub(rf"^{indent}", "", text, flags=re.MULTILINE), id=f"{_name(page)}:{line}")


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    _, found, rest = page.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    assert found, f"{_name(page)} has no heading {heading!r}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def _tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a text, as cells, without head and ruler."""
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        yield [[cell.strip() for cell in row.strip("|\n").split("|")] for row in table.splitlines()[2:]]


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- examples


def _is_project(text: str) -> bool:
    return re.search(r"^version:", text, flags=re.MULTILINE) is not None


def _write_project(text: str, folder: Path) -> Path:
    for reference in _PATH.findall(text):
        target = folder / reference
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("SELECT 1 AS id", encoding="utf-8")
    path = folder / "retl.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _environment(text: str) -> dict[str, str]:
    """A value for each variable that a project needs."""
    return dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", text), "a-value")


@pytest.mark.parametrize("text", [block for block in _blocks("yaml") if _is_project(block.values[0])])
def test_projects_load_and_their_syncs_are_valid(text: str, tmp_path: Path) -> None:
    project = Project.load(_write_project(text, tmp_path), environ=_environment(text))
    with Service(project) as service:
        for sync in project.syncs:
            service.validate(sync)
    assert project.syncs
    assert not (tmp_path / ".retl").exists()


def _is_component(text: str) -> bool:
    return text.startswith("type: ")


def _is_configuration(text: str) -> bool:
    return not _is_project(text) and not _is_component(text)


def test_yaml_that_is_neither_project_nor_component_is_run_configuration() -> None:
    others = [block.values[0] for block in _blocks("yaml") if _is_configuration(block.values[0])]
    assert [text.splitlines()[0] for text in others] == ["ops:"]


@pytest.mark.parametrize("text", [block for block in _blocks("yaml") if _is_component(block.values[0])])
def test_components_are_valid(text: str) -> None:
    written = yaml.safe_load(text)
    module, _, name = written["type"].rpartition(".")
    component = getattr(import_module(module), name)
    assert issubclass(component, dg.Component)
    component.get_model_cls().model_validate(written["attributes"])
    assert set(written) == {"type", "attributes"}


def test_the_run_configuration_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = [block.values[0] for block in _blocks("yaml") if _is_configuration(block.values[0])]
    config = tmp_path / "run.yaml"
    config.write_text(text, encoding="utf-8")
    definitions = _definitions(_first_project(), tmp_path)
    dg.validate_run_config(definitions.resolve_job_def("retl_syncs"), dg.config_from_files([str(config)]))


def _first_project() -> str:
    return next(block.values[0] for block in _blocks("yaml") if "crm_accounts" in block.values[0])


def _definitions(text: str, folder: Path) -> dg.Definitions:
    from dagster_retl import build_definitions

    return build_definitions(Project.load(_write_project(text, folder), environ=_environment(text)))


@pytest.mark.parametrize("text", list(_blocks("python")))
def test_python_makes_definitions_that_load(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = _first_project()
    _write_project(project, tmp_path)
    for name, value in _environment(project).items():
        monkeypatch.setenv(name, value)
    made: dict[str, Any] = {}
    exec(compile(text, "docs", "exec"), made)
    # Dagster refuses a module with two of them.
    assert [name for name, each in made.items() if isinstance(each, dg.Definitions)] == ["defs"]
    dg.Definitions.validate_loadable(made["defs"])
    assert list(made["defs"].resolve_all_asset_specs())


# --- commands


def _words(line: str) -> Iterator[list[str]]:
    """The arguments of each `retl` in a line of shell."""
    for command in re.split(r"&&", line):
        words = shlex.split(command, comments=True)
        if words[:1] == ["retl"]:
            end = next((n for n, word in enumerate(words) if word in (">", "|")), len(words))
            yield words[1:end]


def _parse(arguments: list[str]) -> click.Context:
    """Parse a command as click does, and do not run it."""
    session = Session()
    command: click.Command = main
    context = main.make_context("retl", list(arguments), obj=session)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
    return context


_SHELL = [
    pytest.param(words, id=" ".join(words))
    for block in _blocks("sh")
    for line in block.values[0].splitlines()
    for words in _words(line)
]


@pytest.mark.parametrize("arguments", _SHELL)
def test_commands_in_shell_blocks_can_be_typed(arguments: list[str]) -> None:
    _parse(arguments)


@pytest.mark.parametrize("arguments", [["run", "x", "--no-such-option"], ["no-such-command"], ["dlq", "resolve", "x"]])
def test_commands_that_cannot_be_typed_are_noticed(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        _parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_in_prose_exist(page: Path) -> None:
    for code in re.findall(r"`(retl [^`]+)`", _prose(page)):
        words = code.split()[1:]
        command: click.Command = main
        while isinstance(command, click.Group) and words and not words[0].startswith(("-", "…")):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{_name(page)}: there is no command {code!r}"
            command = found
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(--[a-z-]+)", " ".join(words)):
            assert option in known, f"{_name(page)}: {code!r} has no option {option}"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _documented_commands() -> dict[str, str]:
    """Command → what the guide says of its options."""
    *_, table = _tables(_section(GUIDE, "## The command line"))
    return {" ".join(re.findall(r"^`((?:[a-z]+ ?)+)", row[0])).strip(): row[2] for row in table}


def test_the_guide_lists_every_command() -> None:
    assert set(_documented_commands()) == {path for path, _ in _commands(main, "retl")}


@pytest.mark.parametrize(("path", "command"), list(_commands(main, "retl")))
def test_the_guide_lists_every_option(path: str, command: click.Command) -> None:
    documented = _documented_commands()
    said = documented[path].replace("as `plan`", documented["retl plan"])
    options = {opt for parameter in command.params if isinstance(parameter, click.Option) for opt in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", said)) == options - {"--json"}


# --- links


def _anchor(heading: str) -> str:
    """As GitHub makes them: lower case, punctuation away, blanks as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), f"{_name(page)} links to {target}"
        headings = re.findall(r"^#+ (.+)$", _prose(file), flags=re.MULTILINE) if fragment else []
        assert not fragment or fragment in map(_anchor, headings), f"{_name(page)} links to {target}"


def test_every_page_can_be_reached() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s:]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {page for page in PAGES if page.name != "README.md"} <= linked


# --- settings

_SETTINGS: list[tuple[str, int, type[BaseModel]]] = [
    ("### Project", 0, Project),
    ("### Warehouses", 0, Warehouse),
    ("### Destinations", 0, Destination),
    ("### Syncs", 0, Sync),
    ("### Engine", 0, EngineSettings),
    ("### Dead letters", 0, DeadLetterSettings),
    ("### Retention", 0, Retention),
    ("## Mapping", 0, FieldMapping),
    ("## Change detection", 1, Watermark),
    ("## Guards", 0, Guards),
    ("## Schedules", 0, Schedule),
    ("## Alerts", 0, AlertRule),
    ("## Alerts", 1, DeadLetterThresholds),
]


def _settings_table(heading: str, number: int) -> dict[str, str]:
    rows = list(_tables(_section(GUIDE, heading)))[number]
    return {row[0].strip("`"): row[1] for row in rows}


@pytest.mark.parametrize(("heading", "number", "model"), _SETTINGS)
def test_the_guide_names_every_setting(heading: str, number: int, model: type[BaseModel]) -> None:
    assert set(_settings_table(heading, number)) == set(written_settings(model))


@pytest.mark.parametrize(("heading", "number", "model"), _SETTINGS)
def test_the_guide_has_the_defaults(heading: str, number: int, model: type[BaseModel]) -> None:
    for name, said in _settings_table(heading, number).items():
        field = model.model_fields.get(name)
        if field is None or name in ("slug", "name", "syncs"):  # of the file; made from others; see `include`
            continue
        assert said == _written_default(field), f"{heading} {name}"


def _written_default(field: Any) -> str:
    if field.is_required():
        return "**required**"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, Schedule):
        return f"`{default.type}`"
    if default is None or default in ((), {}) or isinstance(default, BaseModel):
        return "–"
    if isinstance(default, tuple):
        return f"`[{', '.join(default)}]`"
    return f"`{_plain(default)}`"


def _plain(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, timedelta):
        return "24h" if default == timedelta(hours=24) else format_duration(default)
    if isinstance(default, float):
        return f"{default:.0%}"
    return "300MB" if default == 300_000_000 else str(default)


def test_the_guide_names_every_mode_and_guard() -> None:
    (modes, *_) = _tables(_section(GUIDE, "## Modes"))
    assert {row[0].strip("`") for row in modes} == {mode.value for mode in SyncMode}
    _, guards = _tables(_section(GUIDE, "## Guards"))
    assert {row[0].strip("`") for row in guards} == {guard.value for guard in Guard}


def test_the_guide_names_the_fields_of_a_run_configuration() -> None:
    section = _section(GUIDE, "## Dagster")
    table = next(table for table in _tables(section) if table[0][0] == "`full_refresh`")
    named = {name for row in table for name in _names(row[0])}
    assert named == {field.alias or name for name, field in SyncRunConfig.model_fields.items()}


def test_the_guide_names_the_environment_variables() -> None:
    code = [path for path in (ROOT / "dagster_retl").rglob("*.py") if "demo" not in path.parts]
    used = {name for path in code for name in re.findall(r"\bRETL_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    (table,) = _tables(_section(GUIDE, "## Environment variables"))
    named = {row[0].strip("`") for row in table}
    assert {name for name in used if not name.startswith("RETL_DEMO")} <= named
    assert named <= used | {"DAGSTER_HOME"}


# --- codes and tables


def test_every_error_code_is_described_with_its_action() -> None:
    rows = [row for table in _tables(_section(LETTERS, "## What a code means")) for row in table]
    assert {row[0].strip("`"): row[1] for row in rows} == {code.value: ACTIONS[code].value for code in ErrorCode}
    assert all(row[2] and row[3] for row in rows)


def test_codes_of_connectors_exist() -> None:
    for page in CONNECTORS:
        for table in _tables(_section(page, "## Error codes")):
            codes = {name for row in table for cell in row for name in _names(cell) if re.fullmatch(r"[A-Z_]+", name)}
            assert codes - {"NOT", "COMMIT"} <= {code.value for code in ErrorCode}, _name(page)


def test_every_table_of_the_store_is_described() -> None:
    *_, table = _tables(_section(HOW, "## The store"))
    assert {row[0].strip("`") for row in table} == set(metadata.tables)


# --- generated sections


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("connector_docs", ROOT / "scripts" / "connector-docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", CONNECTORS, ids=_name)
def test_settings_of_connectors_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert _generator().renew(text, page.stem) == text, "run scripts/connector-docs.py"


@pytest.mark.parametrize("page", CONNECTORS, ids=_name)
def test_codes_of_destinations_are_named_with_what_happens(page: Path) -> None:
    from dagster_retl.connectors.registry import connector_class

    spec = connector_class(page.stem).spec
    _, _, generated = page.read_text(encoding="utf-8").partition("begin -->")
    text = " ".join(generated.partition("end -->")[0].split())
    assert " ".join(spec.matching.split()) in text
    said = dict(re.findall(r"- `([A-Z_]+)`: (.*?)\.(?= [A-Z])", text))
    assert {name: code for code, names in said.items() for name in _names(names)} == dict(spec.vendor_codes)
    for code in said:
        ends = re.search(rf"- `{code}`: .*?\. (The run ends)?", text)
        assert ends is not None
        assert bool(ends[1]) == (ACTIONS[ErrorCode(code)] is Action.ABORT)


def test_every_connector_has_a_page() -> None:
    from dagster_retl.connectors.registry import connector_names

    assert [page.stem for page in CONNECTORS] == connector_names()


@pytest.mark.parametrize("page", CONNECTORS, ids=_name)
def test_every_setting_of_a_connector_has_a_meaning(page: Path) -> None:
    _, _, generated = page.read_text(encoding="utf-8").partition("begin -->")
    rows = [row for table in _tables(generated.partition("end -->")[0]) for row in table]
    assert rows
    assert [row[0] for row in rows if len(row) != 4 or not row[3]] == []


# --- form


@pytest.mark.parametrize("page", PAGES[1:], ids=_name)
def test_lines_are_short(page: Path) -> None:
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_of_code_are_closed(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("```") % 2 == 0
