"""YAML as plain data with positions: YAML 1.2, environment references replaced, mistakes collected.

Mappings become dicts whose keys are the text as written (so that `on:` is the key `on`), lists
lists, scalars str, int, float, bool or None; dates stay text. Anchors, aliases and merge keys
(`<<`) work; tags other than the standard ones are mistakes, as are keys that are written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from dagster_retl.model.environment import expand
from dagster_retl.model.mistakes import Loc
from dagster_retl.model.problems import Position, Problem, dotted

_MAX_DEPTH = 60
_MAX_NODES = 500_000  # aliases of aliases grow without bound otherwise

_TAG = "tag:yaml.org,2002:"


class YamlReader:
    """Reads the files of one project.

    problems: what is wrong so far. positions: where each value stands, by its path in the project.
    failed: paths whose value is already known to be wrong. values: what came out of the
    environment, by the reference that stands for it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[Problem] = []
        self.positions: dict[Loc, Position] = {}
        self.failed: set[Loc] = set()
        self.values: dict[str, str] = {}
        self._count = 0
        self._file = ""

    def compose(self, path: Path, name: str) -> Node | None:
        """The document of a file, called `name` in problems; None when it has none, which is a problem."""
        self._file = name
        text = self._text(path)
        if text is None:
            return None
        node = self._parse(text)
        if node is None and not self.problems_in(name):
            self.add_problem(Position(name, 1, 1), (), "the file is empty")
        return node

    def construct(self, node: Node, loc: Loc, name: str) -> Any:
        """The data of a node of file `name`, which is at `loc` in the project."""
        self._file = name
        self.positions[loc] = self._position(node)
        return self._value(node, loc, 0)

    def add_problem(self, position: Position, loc: Loc, message: str, hint: str | None = None) -> None:
        """Note something wrong."""
        self.problems.append(Problem(position.file, position.line, position.column, dotted(loc), message, hint))

    def _fail(self, node: Node, loc: Loc, message: str, hint: str | None = None) -> None:
        """Note a value that cannot be had, so that nobody complains about what stands in for it."""
        self.add_problem(self._position(node), loc, message, hint)
        self.failed.add(loc)

    def problems_in(self, name: str) -> bool:
        """Whether something is wrong with this file."""
        return any(problem.file == name for problem in self.problems)

    def position(self, loc: Loc) -> Position:
        """Where the value at `loc` stands, or else the nearest that holds it."""
        while loc and loc not in self.positions:
            loc = loc[:-1]
        return self.positions[loc]

    def _text(self, path: Path) -> str | None:
        try:
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            column = error.start - error.object.rfind(b"\n", 0, error.start)
            self.add_problem(Position(self._file, line, column), (), "this is not UTF-8 text")
        except FileNotFoundError:
            self.add_problem(Position(self._file), (), "there is no such file")
        except IsADirectoryError:
            self.add_problem(Position(self._file), (), "this is a folder, not a file")
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or str(error)
            self.add_problem(Position(self._file), (), f"the file cannot be read: {reason}")
        return None

    def _parse(self, text: str) -> Node | None:
        """What libyaml does not take, the parser in Python decides on: it knows YAML 1.2 whole, and says more."""
        try:
            return _composed_by_libyaml(text)
        except _NotForLibyamlError:
            return self._composed(text)

    def _composed(self, text: str) -> Node | None:
        yaml = YAML(typ="safe", pure=True)
        yaml.composer.warn_double_anchors = False  # an anchor may be defined again: YAML 1.2, 3.2.2.2
        try:
            node: Node | None = yaml.compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = Position(self._file, mark.line + 1, mark.column + 1) if mark else Position(self._file)
            said = ", ".join(part for part in (error.context, error.problem) if part)
            self.add_problem(position, (), f"this is not YAML: {said}")
        except ReaderError as error:
            self.add_problem(_position_at(text, error.position, self._file), (), f"this is not YAML: {error.reason}")
        except YAMLError as error:
            self.add_problem(Position(self._file), (), f"this is not YAML: {error}")
        except RecursionError:
            self.add_problem(Position(self._file), (), "this is nested too deeply")
        else:
            return node
        return None

    def _position(self, node: Node) -> Position:
        return Position(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _value(self, node: Node, loc: Loc, depth: int) -> Any:
        self._count += 1
        if depth > _MAX_DEPTH or self._count > _MAX_NODES:
            if depth > _MAX_DEPTH or self._count == _MAX_NODES + 1:
                what = "nested too deeply" if depth > _MAX_DEPTH else "too large once its aliases are replaced"
                self._fail(node, loc, f"this is {what}")
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, loc, depth)
        if isinstance(node, SequenceNode):
            return self._sequence(node, loc, depth)
        return self._scalar(node, loc)

    def _sequence(self, node: SequenceNode, loc: Loc, depth: int) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.positions[*loc, index] = self._position(item)
            items.append(self._value(item, (*loc, index), depth + 1))
        return items

    def _mapping(self, node: MappingNode, loc: Loc, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for merged in reversed(list(self._merged(node, loc))):  # first, so that own keys and positions replace them
            inherited = self._value(merged, loc, depth + 1)
            data |= inherited if isinstance(inherited, dict) else {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            position = self._position(key_node)
            if not isinstance(key_node, ScalarNode):
                self.add_problem(position, loc, "a key must be a word, not a list or a mapping")
                continue
            key = str(key_node.value)
            if _halved(key):
                self.add_problem(position, loc, _HALVED)
                continue
            if key in lines:
                self.add_problem(position, (*loc, key), f"this key stands here twice; first on line {lines[key]}")
                continue
            lines[key] = position.line
            self.positions[*loc, key] = position
            data[key] = self._value(value_node, (*loc, key), depth + 1)
        return data

    def _merged(self, node: MappingNode, loc: Loc) -> Iterator[MappingNode]:
        """The mappings that `<<` names; earlier ones win, and the mapping's own keys over all of them."""
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                sources = value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                for source in sources:
                    if isinstance(source, MappingNode):
                        yield source
                    else:
                        self.add_problem(self._position(key_node), loc, "`<<` merges mappings only")

    def _scalar(self, node: Node, loc: Loc) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        if kind in ("str", "timestamp"):
            text = self._expanded(str(node.value), node, loc)
            if _halved(text):
                self._fail(node, loc, _HALVED)
                return ""
            return text
        if kind not in _CONVERSIONS:
            self._fail(node, loc, f"the tag {node.tag} is not understood here")
            return None
        try:
            return _CONVERSIONS[kind](node.value)
        except ValueError:
            return str(node.value)

    def _expanded(self, text: str, node: Node, loc: Loc) -> str:
        if "${" not in text:
            return text
        expansion = expand(text, self.environ)
        for fault in expansion.faults:
            hint = "Set it, or give it a default: `${NAME:-default}`." if "is not set" in fault else None
            self._fail(node, loc, fault, hint)
        if expansion.values:
            self.values |= {f"${{{name}}}": value for name, value in expansion.values.items() if value}
        return text if expansion.faults else expansion.text


_READ_OTHERWISE = ("%YAML", "\x85", "\u2028", "\u2029")
"""Libyaml reads all versions of YAML as the same, and takes more for the end of a line than YAML 1.2 does."""


class _NotForLibyamlError(Exception):
    """A document that the parser in C refuses, or must not see."""


def _composed_by_libyaml(text: str) -> Node | None:
    """The document, in a tenth of the time. Raises `_NotForLibyamlError`."""
    if any(mark in text for mark in _READ_OTHERWISE):
        raise _NotForLibyamlError
    try:
        if _depth(text) > _MAX_DEPTH:  # memory grows with its square, and nothing stops the recursion
            raise _NotForLibyamlError
        node: Node | None = YAML(typ="safe").compose(text)
    except YAMLError as error:
        raise _NotForLibyamlError from error
    return node


def _depth(text: str) -> int:
    """How deeply a document is nested; not counted further than is allowed."""
    depth = deepest = 0
    for event in YAML(typ="safe").parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        deepest = max(deepest, depth)
        if deepest > _MAX_DEPTH:
            break
    return deepest


_HALVED = "this text holds half a character (a lone surrogate), which no program can store"


def _halved(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _position_at(text: str, offset: int, name: str) -> Position:
    before = text[:offset]
    return Position(name, before.count("\n") + 1, offset - before.rfind("\n"))


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    prefix = digits.lstrip("+-")[:2].lower()
    return int(digits, {"0x": 16, "0o": 8, "0b": 2}.get(prefix, 10))


def _number(text: str) -> float:
    return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").replace(".Inf", "inf"))


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": _truth,
    "int": _integer,
    "float": _number,
}
