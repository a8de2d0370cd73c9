"""What an org says of its objects and their fields.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_describe.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.http_url import text_of
from dagster_retl.connectors.salesforce_api import Api, segment, unreadable
from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import FieldInfo, ObjectInfo

_NUMBERS = ("int", "long", "double", "currency", "percent")
_UNQUOTED = ("boolean", "date", "datetime", "time")
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b"})


@dataclass(frozen=True, slots=True)
class KeyField:
    """A field that records are looked up by. kind: its type in Salesforce."""

    name: str
    kind: str = "string"
    case_sensitive: bool = False

    def literal(self, value: Any) -> str:
        """A value as SOQL writes it. Raises `ValueError` where it cannot be one of this field.

        https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select_quotedstringescapes.htm
        """
        if self.kind in _NUMBERS:
            return format(_number(value), "f")
        text = text_of(value)
        return text if self.kind in _UNQUOTED else f"'{text.translate(_ESCAPES)}'"

    def normal(self, value: Any) -> str:
        """The form in which values of one record are equal."""
        if self.kind in _NUMBERS:
            return text_of(_number(value))
        return text_of(value) if self.case_sensitive else text_of(value).casefold()


def _number(value: Any) -> Decimal:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is not a number") from error
    if isinstance(value, bool) or not number.is_finite():
        raise ValueError(f"{value!r} is not a number")
    return number


class Catalogue:
    """The objects of an org. The fields that keys are looked up by are asked for once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._described: dict[str, Mapping[str, Mapping[str, Any]]] = {}

    def objects(self) -> Exchange[list[ObjectInfo]]:
        """The objects that records can be written to."""
        answer = yield from self._api.get("sobjects")
        return [_object_info(each) for each in _list(answer, "sobjects") if _writable(each)]

    def fields(self, object_name: str) -> Exchange[list[FieldInfo]]:
        """The fields of an object, as they are now; a parent stands beside the field that refers to it."""
        described = yield from self._describe(object_name)
        return [info for field in described.values() for info in _field_infos(field)]

    def key_field(self, object_name: str, name: str) -> Exchange[KeyField]:
        """The field by which records are looked up. Raises `DestinationError` (`SCHEMA_DRIFT`) where there is none."""
        known = self._described.get(object_name)
        if known is None:
            known = yield from self._describe(object_name)
        field = known.get(name.lower())
        if field is None:
            raise DestinationError(
                f"object {object_name!r} has no field {name!r} to find records by",
                code=ErrorCode.SCHEMA_DRIFT,
                hint="Check its API name, and what the app's user may see.",
            )
        return KeyField(str(field["name"]), str(field["type"]), field.get("caseSensitive") is True)

    def _describe(self, object_name: str) -> Exchange[Mapping[str, Mapping[str, Any]]]:
        answer = yield from self._api.get(f"sobjects/{segment(object_name)}/describe")
        fields = {str(field["name"]).lower(): field for field in _list(answer, "fields")}
        self._described[object_name] = fields
        return fields


def _list(answer: Any, name: str) -> list[Any]:
    items = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(item, Mapping) and "name" in item for item in items):
        raise unreadable(f"JSON without {name!r}")
    return items


def _writable(description: Mapping[str, Any]) -> bool:
    return any(description.get(ability) is True for ability in ("createable", "updateable", "deletable"))


def _object_info(description: Mapping[str, Any]) -> ObjectInfo:
    upsert = description.get("createable") is True and description.get("updateable") is True
    name = str(description["name"])
    return ObjectInfo(name, str(description.get("label") or name), supports_upsert=upsert)


def _field_infos(field: Mapping[str, Any]) -> Iterator[FieldInfo]:
    """A field, and the parent that it refers to: `Account.External_Id__c` sets `AccountId`.

    Neither is required where there are both, as one of them will do: what is missing then is said of each row.
    """
    name, parent = str(field["name"]), field.get("relationshipName")
    label, createable = str(field.get("label") or name), field.get("createable") is True
    updateable = field.get("updateable") is True
    needed = createable and field.get("nillable") is False and field.get("defaultedOnCreate") is not True
    usable_as_key = field.get("externalId") is True or (field.get("idLookup") is True and field.get("type") != "id")
    yield FieldInfo(
        name,
        label,
        str(field.get("type") or "unknown"),
        required=needed and not parent,
        createable=createable,
        updateable=updateable,
        external_id=usable_as_key,
    )
    if isinstance(parent, str):
        yield FieldInfo(
            parent, f"{label}: a field of the parent", "parent", createable=createable, updateable=updateable
        )
