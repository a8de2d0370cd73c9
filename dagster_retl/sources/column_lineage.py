"""Which columns of which tables the columns of a query come from, as far as its text tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.schema import MappingSchema


@dataclass(frozen=True, slots=True, order=True)
class TableColumn:
    """A column of a table; `relation` is the table's name as the query has it, by its parts."""

    relation: tuple[str, ...]
    column: str


def origins_of_columns(
    sql: str, relations: Sequence[tuple[str, ...]], columns: Iterable[str], dialect: str
) -> dict[str, tuple[TableColumn, ...]]:
    """The table columns behind columns of a query; none for a column whose table cannot be told.

    relations: the tables that the query reads. Only of a single table is it known that `*` and names
    without a table mean its columns.
    """
    wanted = list(columns)
    tree = parse_one(sql, dialect=dialect or None)
    schema = MappingSchema(dialect=dialect)
    if len(relations) == 1:
        named = [*wanted, *(column.name for column in tree.find_all(exp.Column))]
        schema = _schema(relations[0], named, dialect)
    return {name: tuple(_origins(name, tree, schema, dialect)) for name in wanted}


def columns_of_expression(source: str) -> tuple[str, ...]:
    """The columns that the `source` of a field mapping names (DuckDB's dialect); a plain name is one."""
    try:
        tree = parse_one(source, into=exp.Condition, dialect="duckdb")
    except SqlglotError:
        return (source,)
    names = [column.parts[0].name for column in tree.find_all(exp.Column)]
    return tuple(dict.fromkeys(names))


def _schema(relation: tuple[str, ...], columns: Sequence[str], dialect: str) -> MappingSchema:
    schema = MappingSchema(dialect=dialect)
    table = exp.Table(**dict(zip(("this", "db", "catalog"), map(exp.to_identifier, reversed(relation)), strict=False)))
    schema.add_table(table, dict.fromkeys(columns, "text"), dialect=dialect, match_depth=False)
    return schema


def _origins(name: str, tree: exp.Expr, schema: MappingSchema, dialect: str) -> Iterator[TableColumn]:
    try:
        node = lineage(name, tree, schema=schema, dialect=dialect or None)
    except SqlglotError:
        return
    if isinstance(node, Node):
        leaves = (leaf for leaf in node.walk() if not leaf.downstream and isinstance(leaf.source, exp.Table))
        yield from sorted({_table_column(leaf) for leaf in leaves})


def _table_column(leaf: Node) -> TableColumn:
    assert isinstance(leaf.source, exp.Table)  # noqa: S101 - for the type checker
    column = exp.to_column(leaf.name)
    return TableColumn(tuple(part.name for part in leaf.source.parts), column.name)
