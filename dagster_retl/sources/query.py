"""What a sync may read: one SELECT, a table, a dbt model, a file that holds one SELECT, or a DataFrame.

The check is the first of two walls: the connection is read-only as well, where the database can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.dialects.dialect import Dialect, NormalizationStrategy
from sqlglot.errors import ParseError, TokenError
from sqlglot.optimizer.scope import traverse_scope

from dagster_retl.errors import ConfigurationError
from dagster_retl.sources.dbt_manifest import dbt_model

FRAME = "frame"
"""The one table of a DataFrame's source."""

_REFERENCE = re.compile(r"\s*(table|file|dbt|asset):(.*)", re.DOTALL | re.IGNORECASE)

_NAME = r"""(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[\w$#@-]+)"""
_TABLE = re.compile(rf"{_NAME}(?:\.{_NAME}){{0,3}}")

_READS = (exp.Query, exp.Values, exp.Pivot)

_WRITES: dict[type[exp.Expr], str] = {
    exp.Insert: "INSERT",
    exp.Update: "UPDATE",
    exp.Delete: "DELETE",
    exp.Merge: "MERGE",
    exp.Create: "CREATE",
    exp.Drop: "DROP",
    exp.Alter: "ALTER",
    exp.TruncateTable: "TRUNCATE",
    exp.Copy: "COPY",
    exp.Attach: "ATTACH",
    exp.Pragma: "PRAGMA",
    exp.Set: "SET",
    exp.Command: "a command",
    exp.Into: "INTO",
    exp.Lock: "a row lock (FOR UPDATE or FOR SHARE)",
    exp.PropertyEQ: "an assignment to a variable",
}

_DANGEROUS = """
    pg_read_file pg_read_binary_file pg_ls_dir pg_stat_file pg_file_write pg_file_unlink pg_file_rename
    lo_import lo_export lo_create lo_creat lo_from_bytea lo_put lo_unlink lowrite lo_open lo_truncate
    set_config nextval setval pg_terminate_backend pg_cancel_backend pg_reload_conf pg_rotate_logfile
    pg_switch_wal pg_promote pg_notify pg_logical_emit_message pg_create_restore_point
    query_to_xml query_to_xml_and_xmlschema database_to_xml schema_to_xml cursor_to_xml
    read_text read_blob query query_table getenv postgres_query postgres_execute mysql_query mysql_execute
    sqlite_query write_log enable_logging checkpoint force_checkpoint
    load_file sys_exec sys_eval get_lock release_lock release_all_locks
    load_extension readfile writefile edit fts3_tokenizer
    openrowset opendatasource openquery
    """
_DANGEROUS_PREFIXES = ("dblink", "pg_ls_", "pg_advisory_", "pg_try_advisory_", "pg_replication_", "system$", "xp_")


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """`sql`: one SELECT in the warehouse's dialect. `relations`: the tables that it reads, each by its name's parts."""

    sql: str
    relations: tuple[tuple[str, ...], ...]

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables, as dotted names."""
        return tuple(".".join(parts) for parts in self.relations)


def resolve_query(text: str, *, dialect: str, base: Path) -> ResolvedQuery:
    """The query that a sync's `source_query` stands for.

    `table:schema.name` is the whole table; `file:sql/contacts.sql` the text of that file, UTF-8, relative
    to `base` and inside it; `dbt:model` the model's table (see `dbt_model`); `asset:key/path` all of
    a DataFrame (`FRAME`); anything else is SQL. dialect: sqlglot's name. Raises `ConfigurationError`
    unless it is exactly one statement that only reads.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return _checked(text, dialect, "the query")
    kind, reference = match.group(1).lower(), match.group(2).strip()
    if kind == "table":
        return _table(reference, dialect)
    if kind == "file":
        return _checked(_text_of(reference, base), dialect, f"the query in {reference}")
    if kind == "dbt":
        return _model(reference, dialect, base)
    return ResolvedQuery(f"SELECT * FROM {FRAME}", ())


def relations_of(text: str, *, dialect: str, base: Path) -> tuple[tuple[str, ...], ...]:
    """The tables that a `source_query` reads, each by its name's parts, in a third of the time of `resolve_query`.

    Whether it only reads is not looked at. Raises `ConfigurationError` where it cannot be understood.
    """
    if _REFERENCE.fullmatch(text):
        return resolve_query(text, dialect=dialect, base=base).relations
    return tuple(dict.fromkeys(_tables(_parse(text, dialect, "the query"))))


def asset_of(text: str) -> tuple[str, ...] | None:
    """The key of the asset whose DataFrame a `source_query` reads, by its parts; None: it reads a warehouse.

    Raises `ConfigurationError` for a key without parts.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None or match.group(1).lower() != "asset":
        return None
    parts = tuple(part.strip() for part in match.group(2).split("/"))
    if not all(parts):
        raise ConfigurationError(f"`{text.strip()}` names no asset", hint="Write `asset:key/path`.")
    return parts


def dbt_model_of(text: str) -> str | None:
    """The dbt model that a `source_query` reads; None: it does not say one."""
    match = _REFERENCE.fullmatch(text)
    return match.group(2).strip() if match is not None and match.group(1).lower() == "dbt" else None


def _model(reference: str, dialect: str, base: Path) -> ResolvedQuery:
    relation = dbt_model(reference, base).relation
    if relation is None:
        raise ConfigurationError(
            f"`dbt:{reference}` is an ephemeral model: it has no table", hint="Materialize it as a view or a table."
        )
    return _table(relation, dialect)


def _table(reference: str, dialect: str) -> ResolvedQuery:
    if not _TABLE.fullmatch(reference):
        raise ConfigurationError(
            f"`table:{reference}` does not name a table", hint="Write `table:schema.name`, with quotes where needed."
        )
    table = exp.to_table(reference, dialect=dialect)
    folds_up = Dialect.get_or_raise(dialect).normalization_strategy is NormalizationStrategy.UPPERCASE
    for part in table.parts:
        if folds_up and not part.args.get("quoted"):
            part.set("this", part.name.upper())
    sql = f"SELECT * FROM {table.sql(dialect=dialect, identify=True)}"
    return ResolvedQuery(sql, (_parts(table),))


def _text_of(reference: str, base: Path) -> str:
    path = (base / reference).resolve()
    if not path.is_relative_to(base.resolve()):
        raise ConfigurationError(
            f"`file:{reference}` lies outside {base}", hint="Keep the files of queries beside or below retl.yaml."
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"`file:{reference}`: {path} cannot be read: {error.strerror}",
            hint="The path is relative to the folder of retl.yaml.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"`file:{reference}`: {path} is not UTF-8", hint="Save it as UTF-8.") from error


def _checked(text: str, dialect: str, what: str) -> ResolvedQuery:
    sql = _statement(text, dialect, what)
    tree = _parse(sql, dialect, what)
    _refuse_writes(tree, what)
    return ResolvedQuery(sql, tuple(dict.fromkeys(_tables(tree))))


def _statement(text: str, dialect: str, what: str) -> str:
    """The text without trailing semicolons and comments; lines and columns stay as they were written."""
    try:
        tokens = sqlglot.tokenize(text, dialect=dialect)
    except TokenError as error:
        raise ConfigurationError(
            f"{what} cannot be read as SQL: {error}", hint="Look for a quote or a comment that is not closed."
        ) from error
    if dialect == "mysql":
        _refuse_executable_comments([comment for token in tokens for comment in token.comments], what)
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise ConfigurationError(f"{what} is empty", hint="Write one SELECT.")
    return text[: tokens[-1].end + 1]


def _refuse_executable_comments(comments: Iterable[str], what: str) -> None:
    """MySQL runs what stands in `/*! … */`, and a parser skips it."""
    if any(comment.startswith(("!", "M!")) for comment in comments):
        raise ConfigurationError(f"{what} holds an executable comment (`/*! … */`)", hint="Write its content as SQL.")


def _parse(sql: str, dialect: str, what: str) -> exp.Expr:
    try:
        statements = sqlglot.parse(sql, dialect=dialect)
    except ParseError as error:
        raise _not_sql(error, dialect, what) from error
    if len(statements) != 1 or statements[0] is None:
        raise ConfigurationError(f"{what} holds {len(statements)} statements", hint="Keep one SELECT.")
    return statements[0]


def _not_sql(error: ParseError, dialect: str, what: str) -> ConfigurationError:
    first = error.errors[0] if error.errors else {}
    near = str(first.get("highlight") or "")
    column = max(1, int(first.get("col") or 1) - max(len(near) - 1, 0))
    return ConfigurationError(
        f"{what} is not valid {dialect or 'SQL'}: {first.get('description', error)} "
        f"(line {first.get('line', 1)}, column {column}, at {near!r})",
        hint="Write one SELECT in the warehouse's own SQL dialect.",
    )


def _refuse_writes(tree: exp.Expr, what: str) -> None:
    if isinstance(tree, _READS):
        found = next(_forbidden(tree), None)
    else:
        found = _WRITES.get(type(tree), type(tree).__name__.upper())
    if found:
        raise ConfigurationError(
            f"{what} must only read, and contains {found}", hint="A sync reads with one SELECT (or WITH … SELECT)."
        )


def _forbidden(tree: exp.Expr) -> Iterator[str]:
    for node in tree.walk():
        write = _WRITES.get(type(node))
        if write and not _is_struct_entry(node):
            yield write
        elif isinstance(node, (exp.Func, exp.Table)) and _is_dangerous(name := _function_name(node)):
            yield f"the function {name}()"


def _is_struct_entry(node: exp.Expr) -> bool:
    """`{'a': 1}` and `struct_pack(a := 1)` use the node that a variable's assignment uses."""
    return isinstance(node, exp.PropertyEQ) and not isinstance(node.this, (exp.Parameter, exp.SessionParameter))


def _function_name(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return node.name.lower()
    return node.sql_name().lower() if isinstance(node, exp.Func) else ""


def _is_dangerous(name: str) -> bool:
    return name in _DANGEROUS.split() or name.startswith(_DANGEROUS_PREFIXES)


def _tables(tree: exp.Expr) -> Iterator[tuple[str, ...]]:
    """Tables that exist in the database: not CTEs, subqueries, table functions or files."""
    scopes = traverse_scope(tree) if isinstance(tree, exp.Query) else []
    sources = [source for scope in scopes for source in scope.sources.values()] or tree.find_all(exp.Table)
    for source in sources:
        if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
            yield _parts(source)


def _parts(table: exp.Table) -> tuple[str, ...]:
    return tuple(part.name for part in table.parts)
