"""What the API answers when all is well: `{"data": …, "meta": …}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

Document = dict[str, Any]


class Answer(Response):
    """A JSON document."""

    media_type = "application/json"

    def __init__(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(orjson.dumps(document, default=str), status, {"Cache-Control": "no-store", **(headers or {})})


def one(
    kind: str,
    entry_id: str | None,
    attributes: Document,
    *,
    status: int = 200,
    meta: Document | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One resource. entry_id None: it has no id."""
    document: Document = {"data": resource(kind, entry_id, attributes)}
    return Answer(document if meta is None else {**document, "meta": meta}, status, headers)


def resource(kind: str, entry_id: str | None, attributes: Document) -> Document:
    """A resource as it stands under `data`."""
    own = {} if entry_id is None else {"id": entry_id}
    return {**own, "type": kind, "attributes": {name: value for name, value in attributes.items() if name != "id"}}
