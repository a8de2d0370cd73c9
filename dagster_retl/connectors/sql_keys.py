"""Unique keys as a database's own catalogue tells them, with how they compare text.

SQLAlchemy's reflection leaves out what matters here: partial, deferrable and prefix indexes,
and the collation of each column.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from dagster_retl.connectors.sql_tables import TableName, UniqueKey
from dagster_retl.model.rows import KeyForm

_POSTGRES = sa.text("""
SELECT i.indexrelid::text, a.attname,
       i.indpred IS NULL AND i.indexprs IS NULL AND i.indimmediate AND i.indisvalid,
       format_type(a.atttypid, NULL) LIKE '%citext' OR NOT coalesce(c.collisdeterministic, true), false
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
LEFT JOIN pg_collation c ON c.oid = a.attcollation
WHERE i.indisunique AND k.position <= i.indnkeyatts AND i.indrelid = to_regclass(:quoted)
""")

# A collation named `…_ci` ignores case. All but `binary`, `…_0900_…` and `…nopad…` ignore trailing
# spaces: https://dev.mysql.com/doc/refman/8.4/en/charset-binary-collations.html,
# https://mariadb.com/docs/server/reference/data-types/string-data-types/character-sets/supported-character-sets-and-collations
_MYSQL = sa.text("""
SELECT s.index_name, s.column_name, s.sub_part IS NULL AND s.column_name IS NOT NULL,
       coalesce(c.collation_name LIKE '%\\_ci', false),
       coalesce(c.collation_name NOT LIKE '%\\_0900\\_%' AND c.collation_name NOT LIKE '%nopad%'
                AND c.collation_name <> 'binary', false)
FROM information_schema.statistics s
LEFT JOIN information_schema.columns c
  ON c.table_schema = s.table_schema AND c.table_name = s.table_name AND c.column_name = s.column_name
WHERE s.non_unique = 0 AND s.table_schema = coalesce(:schema, database()) AND s.table_name = :table
""")

_SQLITE_INDEXES = sa.text("""
SELECT l.name, coalesce(x.name, ''), NOT l.partial AND x.cid >= 0, x.coll = 'NOCASE', x.coll = 'RTRIM'
FROM pragma_index_list(:table, :schema) AS l JOIN pragma_index_xinfo(l.name, :schema) AS x
WHERE l."unique" AND x."key"
""")
_SQLITE_PRIMARY = sa.text("""
SELECT 'primary key', name, 1, 0, 0 FROM pragma_table_info(:table, :schema)
WHERE pk AND NOT EXISTS (SELECT 1 FROM pragma_index_list(:table, :schema) WHERE origin = 'pk')
""")


def unique_keys_of(rows: Iterable[Any]) -> tuple[UniqueKey, ...]:
    """Unique keys from (index, column, whole, ignores case, ignores trailing spaces), a row per column."""
    indexes: dict[str, list[Any]] = defaultdict(list)
    for index, *column in rows:
        indexes[str(index)].append(column)
    return tuple(_unique_key(columns) for columns in indexes.values())


def _unique_key(columns: list[Any]) -> UniqueKey:
    names, whole, ignores_case, trims = zip(*columns, strict=True)
    return UniqueKey(frozenset(names), all(whole), KeyForm(ignore_case=any(ignores_case), trim=any(trims)))


def read_unique_keys(connection: sa.Connection, name: TableName, quoted: str) -> tuple[UniqueKey, ...]:
    """The unique keys of a table; `quoted` is its full name for SQL."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        return unique_keys_of(connection.execute(_POSTGRES, {"quoted": quoted}))
    place = {"table": name.name, "schema": name.schema}
    if dialect == "sqlite":
        place["schema"] = name.schema or "main"
        primary = connection.execute(_SQLITE_PRIMARY, place).all()
        return unique_keys_of([*primary, *connection.execute(_SQLITE_INDEXES, place)])
    return unique_keys_of(connection.execute(_MYSQL, place))
