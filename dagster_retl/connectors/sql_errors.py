"""What a database's error means: our code, the vendor's code, and a message without row values.

SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html;
MySQL: https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference;
SQLite: https://www.sqlite.org/rescode.html. DuckDB's exceptions are classes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import duckdb
from sqlalchemy import exc

from dagster_retl.errors import ACTIONS, Action, DestinationError, ErrorCode

_LONGEST = 500


class Phase(StrEnum):
    """How far a transaction came. Only an error in COMMIT can leave its outcome unknown."""

    CONNECT = "connect"
    EXECUTE = "execute"
    COMMIT = "commit"


_SQLSTATES: Mapping[str, ErrorCode] = {
    "08": ErrorCode.DESTINATION_UNAVAILABLE,
    "0A": ErrorCode.CONFIGURATION,
    "21": ErrorCode.CONFLICT,
    "22": ErrorCode.TYPE_COERCION,
    "23": ErrorCode.DESTINATION_VALIDATION,
    "23502": ErrorCode.MISSING_REQUIRED_FIELD,
    "23505": ErrorCode.CONFLICT,
    "23P01": ErrorCode.CONFLICT,
    "25": ErrorCode.DESTINATION_UNAVAILABLE,
    "25006": ErrorCode.PERMISSION,
    "28": ErrorCode.AUTH,
    "3D": ErrorCode.CONFIGURATION,
    "3F": ErrorCode.SCHEMA_DRIFT,
    "40": ErrorCode.DESTINATION_LOCKED,
    "40002": ErrorCode.DESTINATION_VALIDATION,
    "40003": ErrorCode.DESTINATION_UNAVAILABLE,
    "42": ErrorCode.SCHEMA_DRIFT,
    "42501": ErrorCode.PERMISSION,
    "42804": ErrorCode.TYPE_COERCION,
    "42846": ErrorCode.TYPE_COERCION,
    "42P10": ErrorCode.CONFIGURATION,
    "44": ErrorCode.DESTINATION_VALIDATION,
    "53": ErrorCode.DESTINATION_UNAVAILABLE,
    "53100": ErrorCode.DESTINATION_DOWN,
    "54": ErrorCode.PAYLOAD_TOO_LARGE,
    "55": ErrorCode.CONFIGURATION,
    "55P03": ErrorCode.DESTINATION_LOCKED,
    "57": ErrorCode.DESTINATION_UNAVAILABLE,
    "57014": ErrorCode.TIMEOUT,
    "58": ErrorCode.DESTINATION_UNAVAILABLE,
    "P0": ErrorCode.DESTINATION_VALIDATION,
}

_ERRNOS_BY_CODE: Mapping[ErrorCode, tuple[int, ...]] = {
    ErrorCode.MISSING_REQUIRED_FIELD: (1048, 1364),
    ErrorCode.CONFLICT: (1062, 1586),
    ErrorCode.DESTINATION_VALIDATION: (1216, 1217, 1369, 1451, 1452, 1644, 3819, 4025),
    ErrorCode.TYPE_COERCION: (1264, 1265, 1292, 1300, 1366, 1367, 1406, 1411, 1416, 1690, 3140, 3141, 3156, 4078),
    ErrorCode.DESTINATION_LOCKED: (1020, 1205, 1206, 1213, 3572),
    ErrorCode.DESTINATION_DOWN: (1021, 1114, 2002, 2003, 2005),
    ErrorCode.AUTH: (1045, 1251, 1275, 1524, 1698, 1820, 1862, 2059, 2061),
    ErrorCode.PERMISSION: (1044, 1142, 1143, 1227, 1290, 1370, 1792, 1836),
    ErrorCode.CONFIGURATION: (1049,),
    ErrorCode.SCHEMA_DRIFT: (1051, 1054, 1064, 1136, 1146, 1906, 3105),
    ErrorCode.TIMEOUT: (1317, 1969, 3024),
    ErrorCode.PAYLOAD_TOO_LARGE: (1153, 1301),
    ErrorCode.DESTINATION_UNAVAILABLE: (
        *(0, 1040, 1053, 1077, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1927, 2006, 2013, 2014, 2055),
    ),
}
_ERRNOS = {errno: code for code, errnos in _ERRNOS_BY_CODE.items() for errno in errnos}

_SQLITE_NAMES: Mapping[str, ErrorCode] = {
    "SQLITE_CONSTRAINT_NOTNULL": ErrorCode.MISSING_REQUIRED_FIELD,
    "SQLITE_CONSTRAINT_UNIQUE": ErrorCode.CONFLICT,
    "SQLITE_CONSTRAINT_PRIMARYKEY": ErrorCode.CONFLICT,
    "SQLITE_CONSTRAINT_ROWID": ErrorCode.CONFLICT,
    "SQLITE_CONSTRAINT_DATATYPE": ErrorCode.TYPE_COERCION,
    "SQLITE_CONSTRAINT": ErrorCode.DESTINATION_VALIDATION,
    "SQLITE_MISMATCH": ErrorCode.TYPE_COERCION,
    "SQLITE_TOOBIG": ErrorCode.PAYLOAD_TOO_LARGE,
    "SQLITE_BUSY": ErrorCode.DESTINATION_LOCKED,
    "SQLITE_LOCKED": ErrorCode.DESTINATION_LOCKED,
    "SQLITE_READONLY": ErrorCode.PERMISSION,
    "SQLITE_PERM": ErrorCode.PERMISSION,
    "SQLITE_AUTH": ErrorCode.PERMISSION,
    "SQLITE_CANTOPEN": ErrorCode.DESTINATION_DOWN,
    "SQLITE_NOTADB": ErrorCode.DESTINATION_DOWN,
    "SQLITE_CORRUPT": ErrorCode.DESTINATION_DOWN,
    "SQLITE_FULL": ErrorCode.DESTINATION_DOWN,
    "SQLITE_IOERR": ErrorCode.DESTINATION_UNAVAILABLE,
    "SQLITE_NOMEM": ErrorCode.DESTINATION_UNAVAILABLE,
    "SQLITE_SCHEMA": ErrorCode.DESTINATION_LOCKED,
    "SQLITE_ERROR": ErrorCode.SCHEMA_DRIFT,
}

_DUCKDB_CLASSES: tuple[tuple[type[duckdb.Error], ErrorCode], ...] = (
    (duckdb.ConstraintException, ErrorCode.DESTINATION_VALIDATION),
    (duckdb.TransactionException, ErrorCode.DESTINATION_LOCKED),
    (duckdb.PermissionException, ErrorCode.PERMISSION),
    (duckdb.ConnectionException, ErrorCode.CONFIGURATION),
    (duckdb.IOException, ErrorCode.DESTINATION_UNAVAILABLE),
    (duckdb.OutOfMemoryException, ErrorCode.DESTINATION_UNAVAILABLE),
    (duckdb.FatalException, ErrorCode.DESTINATION_UNAVAILABLE),
    (duckdb.InternalException, ErrorCode.DESTINATION_UNAVAILABLE),
    (duckdb.InterruptException, ErrorCode.DESTINATION_UNAVAILABLE),
    (duckdb.CatalogException, ErrorCode.SCHEMA_DRIFT),
    (duckdb.BinderException, ErrorCode.SCHEMA_DRIFT),
    (duckdb.ConversionException, ErrorCode.TYPE_COERCION),
    (duckdb.OutOfRangeException, ErrorCode.TYPE_COERCION),
    (duckdb.InvalidInputException, ErrorCode.TYPE_COERCION),
    (duckdb.InvalidTypeException, ErrorCode.TYPE_COERCION),
    (duckdb.TypeMismatchException, ErrorCode.TYPE_COERCION),
)

_Phrases = tuple[tuple[str, ErrorCode], ...]

_CONNECT_PHRASES: _Phrases = (
    (r"password|authentication|pg_hba|role .* does not exist", ErrorCode.AUTH),
    (r"database .* does not exist", ErrorCode.CONFIGURATION),
    (r"too many (clients|connections)|starting up|shutting down|recovery mode", ErrorCode.DESTINATION_UNAVAILABLE),
)
"""libpq gives words and no SQLSTATE before a connection exists."""

_DUCKDB_PHRASES: _Phrases = (
    (r"Constraint Error: NOT NULL", ErrorCode.MISSING_REQUIRED_FIELD),
    (r"Constraint Error: (Duplicate key|PRIMARY KEY or UNIQUE)", ErrorCode.CONFLICT),
    (r"IO Error: Could not set lock", ErrorCode.DESTINATION_LOCKED),
    (r"Invalid Input Error: Cannot execute statement .* read-only", ErrorCode.PERMISSION),
    (r"Binder Error: .*(ON CONFLICT|conflict target)", ErrorCode.CONFIGURATION),
)
"""Matched at the beginning only: what follows may hold a row's values."""

_SQLITE_PHRASES: _Phrases = ((r"ON CONFLICT clause does not match", ErrorCode.CONFIGURATION),)


def _by_phrase(text: str, phrases: _Phrases, otherwise: ErrorCode) -> ErrorCode:
    return next((code for pattern, code in phrases if re.match(pattern, text)), otherwise)


def _while_connecting(text: str) -> ErrorCode:
    found = (code for pattern, code in _CONNECT_PHRASES if re.search(pattern, text))
    return next(found, ErrorCode.DESTINATION_DOWN)


Meaning = tuple[ErrorCode, str | None, str]
"""Our code, the vendor's code, the vendor's message."""


def _postgres(error: Any, phase: Phase) -> Meaning:
    state: str | None = error.sqlstate
    if state:
        code = _SQLSTATES.get(state) or _SQLSTATES.get(state[:2], ErrorCode.UNKNOWN)
        return code, state, _postgres_message(error.diag)
    if phase is Phase.CONNECT:
        return _while_connecting(str(error)), None, str(error)
    lost = type(error).__name__ in ("OperationalError", "InterfaceError", "InternalError")
    return ErrorCode.DESTINATION_UNAVAILABLE if lost else ErrorCode.TYPE_COERCION, None, str(error)


def _postgres_message(diagnosis: Any) -> str:
    """The primary message and the names in it; never DETAIL, which shows the row."""
    message = diagnosis.message_primary or "the database gave no message"
    for kind, name in (("constraint", diagnosis.constraint_name), ("column", diagnosis.column_name)):
        if name and f'"{name}"' not in message:
            message += f' ({kind} "{name}")'
    return message


def _mysql(error: Any) -> Meaning:
    errno, *rest = error.args or (None,)
    if not isinstance(errno, int):
        lost = type(error).__name__ in ("OperationalError", "InterfaceError", "InternalError")
        return ErrorCode.DESTINATION_UNAVAILABLE if lost else ErrorCode.TYPE_COERCION, None, str(error)
    return _ERRNOS.get(errno, ErrorCode.UNKNOWN), str(errno), str(rest[0]) if rest else f"MySQL error {errno}"


def _sqlite(error: sqlite3.Error) -> Meaning:
    name = getattr(error, "sqlite_errorname", None)
    if name is None:
        return ErrorCode.TYPE_COERCION, None, str(error)
    parts = name.split("_")
    code = _SQLITE_NAMES.get(name) or _SQLITE_NAMES.get("_".join(parts[:2]), ErrorCode.UNKNOWN)
    if name == "SQLITE_ERROR":
        code = _by_phrase(str(error), _SQLITE_PHRASES, code)
    return code, name, str(error)


def _duckdb(error: duckdb.Error, phase: Phase) -> Meaning:
    message = str(error).split("\n\nLINE ")[0].strip()
    code = next((code for kind, code in _DUCKDB_CLASSES if isinstance(error, kind)), ErrorCode.UNKNOWN)
    if phase is Phase.CONNECT and code is ErrorCode.DESTINATION_UNAVAILABLE:
        code = ErrorCode.DESTINATION_DOWN
    return _by_phrase(message, _DUCKDB_PHRASES, code), type(error).__name__, message


def _meaning(error: BaseException | None, phase: Phase) -> Meaning:
    if isinstance(error, duckdb.Error):
        return _duckdb(error, phase)
    if isinstance(error, sqlite3.Error):
        return _sqlite(error)
    if hasattr(error, "diag"):  # pymysql's errors have a `sqlstate`, too
        return _postgres(error, phase)
    return _mysql(error)


def _settled(code: ErrorCode, vendor_code: str | None) -> bool:
    """Whether a COMMIT that failed in this way certainly changed nothing: the database rolled back."""
    if code is ErrorCode.UNKNOWN or vendor_code in ("40003", "08007"):
        return False
    return ACTIONS[code] is Action.REJECT or code is ErrorCode.DESTINATION_LOCKED


def failure(error: exc.DBAPIError | exc.TimeoutError | duckdb.Error, phase: Phase, where: str) -> DestinationError:
    """The error of a database as ours; `where` is its public identity."""
    if isinstance(error, exc.TimeoutError):
        message = f"no connection to {where} became free in time"
        return DestinationError(message, code=ErrorCode.DESTINATION_UNAVAILABLE)
    original = error if isinstance(error, duckdb.Error) else error.orig
    code, vendor_code, message = _meaning(original, phase)
    ambiguous = phase is Phase.COMMIT and not _settled(code, vendor_code)
    if ambiguous:
        code = ErrorCode.DESTINATION_UNAVAILABLE
    text = " ".join(message.split())[:_LONGEST]
    if phase is Phase.CONNECT:
        text = f"cannot connect to {where}: {text}"
    return DestinationError(text, code=code, vendor_code=vendor_code, ambiguous=ambiguous)
