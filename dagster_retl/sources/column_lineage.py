"""Which columns of which tables the columns of a query come from, as far as its text tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
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
    tree = normalize_identifiers(parse_one(sql, dialect=dialect or None), dialect=dialect or None)
    outputs = {name.casefold(): name for name in _outputs(tree)}
    wanted = {name: outputs.get(name.casefold()) or _unquoted(name, dialect) for name in columns}
    schema = MappingSchema(dialect=dialect, normalize=False)
    if len(relations) == 1:
        _declare(schema, tree, wanted.values())
    return {name: tuple(_origins(output, tree, schema, dialect)) for name, output in wanted.items()}


def columns_of_expression(source: str) -> tuple[str, ...]:
    """The columns that the `source` of a field mapping names (DuckDB's dialect); a plain name is one."""
    try:
        tree = parse_one(source, into=exp.Condition, dialect="duckdb")
    except SqlglotError:
        return (source,)
    names = [column.parts[0].name for column in tree.find_all(exp.Column)]
    return tuple(dict.fromkeys(names))


def _unquoted(name: str, dialect: str) -> str:
    """What the database takes a name for that somebody wrote without quotes."""
    return normalize_identifiers(exp.to_identifier(name), dialect=dialect or None).name


def _outputs(tree: exp.Expr) -> list[str]:
    return tree.named_selects if isinstance(tree, exp.Query) else []


def _declare(schema: MappingSchema, tree: exp.Expr, wanted: Iterable[str]) -> None:
    """Tell the schema that every name in the query, and every one that is asked for, is a column of its one table."""
    names = dict.fromkeys([*wanted, *(column.name for column in tree.find_all(exp.Column))], "text")
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if len(table.parts) > 1 or table.name not in ctes:
            plain = exp.Table(**{part: table.args.get(part) for part in ("this", "db", "catalog")})
            schema.add_table(plain, names, match_depth=False)


def _origins(name: str, tree: exp.Expr, schema: MappingSchema, dialect: str) -> Iterator[TableColumn]:
    try:
        node = lineage(exp.column(name, quoted=True), tree, schema=schema, dialect=dialect or None)
    except SqlglotError:
        return
    if isinstance(node, Node):
        leaves = (leaf for leaf in node.walk() if not leaf.downstream and isinstance(leaf.source, exp.Table))
        yield from sorted({_table_column(leaf) for leaf in leaves})


def _table_column(leaf: Node) -> TableColumn:
    assert isinstance(leaf.source, exp.Table)  # noqa: S101 - for the type checker
    column = exp.to_column(leaf.name)
    return TableColumn(tuple(part.name for part in leaf.source.parts), column.name)
