"""Expressions: what people may write as the `source` of a field, besides the name of a column.

One scalar expression in DuckDB's dialect. sqlglot finds the columns in it; DuckDB's own parse, of
the very text that will run, says what it calls, so that nothing depends on two parsers agreeing.
A function whose value is not decided by its arguments (`now()`, `random()`) is refused: it would
make every run a change of every row. So is `error()`, which DuckDB counts among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from dagster_retl.errors import ConfigurationError
from dagster_retl.mapping.columns import Columns
from dagster_retl.mapping.sandbox import Sandbox
from dagster_retl.model.sql_text import identifier

_Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """sql: runs over columns named as `Columns.aliases`. columns: the numbers of those that it reads.

    bare: it is a column, and nothing else.
    """

    sql: str
    columns: tuple[int, ...]
    bare: bool = False


def column_expression(number: int, columns: Columns) -> Expression:
    """The expression that is the column of this number."""
    return Expression(identifier(columns.aliases[number]), (number,), bare=True)


def parse_expression(text: str, destination: str, columns: Columns, sandbox: Sandbox) -> Expression:
    """Find the columns of an expression, and see that it may run.

    Raises `SourceError` (`SOURCE_COLUMN_MISSING`) for an unknown column, `ConfigurationError` for what
    is not one scalar expression, or calls what it may not.
    """
    tree = _parse(text, destination, columns)
    spans = [(part, _number(part, destination, columns)) for part in _column_names(tree)]
    sql = _rewritten(text, [(part, columns.aliases[number]) for part, number in spans])
    numbers = tuple(dict.fromkeys(number for _, number in spans))
    known = {columns.aliases[number] for number in numbers}
    _Inspection(destination, sandbox, frozenset(known)).inspect(sql)
    bare = isinstance(tree, exp.Column) and len(tree.parts) == 1
    return Expression(sql, numbers, bare)


def _parse(text: str, destination: str, columns: Columns) -> exp.Expr:
    try:
        tree = parse_one(text, into=exp.Condition, dialect="duckdb")
    except SqlglotError as error:
        raise ConfigurationError(
            f"field {destination!r}: {text!r} is neither a column nor one SQL expression", hint=columns.listing()
        ) from error
    if tree.find(exp.Query):  # before its columns are looked for among those of the query
        raise _refusal(destination, _REFUSED["SUBQUERY"])
    if isinstance(tree, exp.Tuple | exp.Block):
        raise ConfigurationError(
            f"field {destination!r}: {text!r} is more than one expression",
            hint="Map each to a field of its own, or put them together: `a || ' ' || b`, `[a, b]`.",
        )
    return tree


def _column_names(tree: exp.Expr) -> Iterator[exp.Identifier]:
    """The parts of the expression that name a column (of `address.city`, the first), as they are written."""
    names = [(column.parts[0], column) for column in tree.find_all(exp.Column)]
    found = [name for name, column in names if isinstance(name, exp.Identifier) and name.name not in _bound(column)]
    yield from sorted(found, key=lambda name: name.meta["start"])


def _bound(column: exp.Expr) -> set[str]:
    """The variables of the lambdas and comprehensions around a place in the expression."""
    names: set[str] = set()
    node: exp.Expr | None = column.parent
    while node is not None:
        if isinstance(node, exp.Lambda):
            names.update(each.name for each in node.expressions)
        elif isinstance(node, exp.Comprehension):
            names.add(node.expression.name)
        node = node.parent
    return names


def _number(name: exp.Identifier, destination: str, columns: Columns) -> int:
    number = columns.find(name.name)
    if number is None:
        raise columns.missing(name.name, destination)
    return number


def _rewritten(text: str, spans: Sequence[tuple[exp.Identifier, str]]) -> str:
    """The text with each column under its quoted alias; all else stays as it was written."""
    for name, alias in reversed(spans):
        text = text[: name.meta["start"]] + identifier(alias) + text[name.meta["end"] + 1 :]
    return text


_ALLOWED = frozenset(
    [
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "OPERATOR",
        "TYPE",
    ]
)
"""Kinds of nodes in DuckDB's parse of a scalar expression."""

_REFUSED = {
    "SUBQUERY": "a subquery: join in the source query instead",
    "WINDOW": "a window function: compute it in the source query instead",
    "STAR": "a star: name one column",
    "PARAMETER": "a parameter",
}

_OUTWARD = frozenset(
    [
        "current_localtime",
        "current_localtimestamp",
        "json_serialize_plan",
        "json_serialize_sql",
        "json_deserialize_sql",
        "version",
    ]
)
"""Functions that DuckDB calls consistent, though they tell of the clock, the version or the parser."""

_TODAY = "age"
"""With one argument it counts to the present day."""


@dataclass(frozen=True, slots=True)
class _Inspection:
    """What DuckDB's parse of an expression may hold. `known`: the columns that it may read."""

    destination: str
    sandbox: Sandbox
    known: frozenset[str]

    def inspect(self, sql: str) -> None:
        tree = self.sandbox.parsed(sql)
        if tree["error"]:
            raise self._refusal(f"not an expression that DuckDB can read: {tree.get('error_message', '')}")
        statements = tree["statements"]
        select = statements[0]["node"]
        if len(statements) != 1 or select["type"] != "SELECT_NODE" or len(select["select_list"]) != 1:
            raise self._refusal("more than one expression")
        nodes = list(_nodes(select))
        bound = {name for node in nodes if node["class"] == "LAMBDA" for name in _references(node["lhs"])}
        for node in nodes:
            self._node(node, bound)

    def _node(self, node: _Node, bound: set[str]) -> None:
        kind = node["class"]
        if kind not in _ALLOWED or node["type"] == "GROUPING_FUNCTION":
            raise self._refusal(_REFUSED.get(kind, f"{kind.lower().replace('_', ' ')}, which is no scalar expression"))
        if kind == "FUNCTION":
            self._function(node)
        elif kind == "COLUMN_REF":
            self._reference(node["column_names"][0], bound)

    def _reference(self, name: str, bound: set[str]) -> None:
        # What sqlglot did not take for a column is a keyword such as CURRENT_DATE (or `elem`, DuckDB's own).
        if name not in self.known and name not in bound and name != "elem":
            raise self._refusal(f"{name}, {_UNSTABLE}")

    def _function(self, node: _Node) -> None:
        name = node["function_name"].lower()
        if node["schema"] or node["catalog"]:
            raise self._refusal(f"{node['schema']}.{name}(…): write {name}({node['schema']}, …)")
        if name in _OUTWARD or (name == _TODAY and len(node.get("arguments") or node.get("children") or ()) == 1):
            raise self._refusal(f"{name}(), {_UNSTABLE}")
        self._called(name)

    def _called(self, name: str) -> None:
        """See that a function is scalar and stable, and so is everything that it is a shorthand for."""
        overloads = self.sandbox.functions(name)
        kinds = {kind for kind, _, _ in overloads}
        if overloads and not kinds & {"scalar", "macro"}:
            raise self._refusal(f"{name}(), {_kind_of(kinds)}")
        if any(kind == "scalar" and stability != "CONSISTENT" for kind, stability, _ in overloads):
            raise self._refusal(f"{name}(), {_UNSTABLE}")
        for kind, _, definition in overloads:
            if kind == "macro" and definition:
                self._macro(name, definition)

    def _macro(self, name: str, definition: str) -> None:
        for node in _nodes(self.sandbox.parsed(definition).get("statements", [])):
            if node["class"] in _REFUSED:
                raise self._refusal(f"{name}(), which reads more than its arguments")
            if node["class"] == "COLUMN_REF" and node["column_names"][0] in _KEYWORDS:
                raise self._refusal(f"{name}(), {_UNSTABLE}")
            if node["class"] == "FUNCTION" and node["function_name"].lower() != name:
                self._called(node["function_name"].lower())

    def _refusal(self, what: str) -> ConfigurationError:
        return _refusal(self.destination, what)


def _refusal(destination: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"field {destination!r}: its expression holds {what}",
        hint="An expression is one scalar SQL expression over the columns of the query, in DuckDB's dialect.",
    )


_UNSTABLE = "which depends on more than the row: its value could change every row in every run"

_KEYWORDS = frozenset(["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"])


def _kind_of(kinds: set[str]) -> str:
    if "aggregate" in kinds:
        return "an aggregate: compute it in the source query instead"
    return "which makes rows: compute it in the source query instead"


def _nodes(tree: Any) -> Iterator[_Node]:
    """All nodes of a parse, whatever else they hang on."""
    if isinstance(tree, list):
        for member in tree:
            yield from _nodes(member)
    elif isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for member in tree.values():
            yield from _nodes(member)


def _references(tree: Any) -> Iterator[str]:
    return (node["column_names"][0] for node in _nodes(tree) if node["class"] == "COLUMN_REF")
