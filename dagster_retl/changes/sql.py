"""Names, literals and numbers in the SQL that is generated for DuckDB."""

from __future__ import annotations

from typing import Any


def identifier(name: str) -> str:
    """A quoted identifier, whatever characters the name holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A quoted string constant."""
    return "'" + text.replace("'", "''") + "'"


def widened_decimal(kind: Any, value: str) -> str:
    """SQL for the plain digits of a decimal, always with a digit before the point.

    DuckDB writes 0.5 of type DECIMAL(1,1) as `.5`, and of any wider type as `0.5`.
    """
    if kind.precision > kind.scale:
        return f"{value}::VARCHAR"
    if kind.precision < 38:
        return f"{value}::DECIMAL({kind.precision + 1},{kind.scale})::VARCHAR"
    return f"regexp_replace({value}::VARCHAR, '^(-?)\\.', '\\10.')"
