"""The dead letter queue: list, get, count, resolve and replay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, model_validator
from starlette.convertors import StringConvertor, register_url_convertor

from dagster_retl.api import examples, schemas
from dagster_retl.api.answers import Answer, one
from dagster_retl.api.auth import Reader, Writer, actor_of
from dagster_retl.api.bodies import Body, read_body
from dagster_retl.api.context import Shared, shared
from dagster_retl.api.documents import letter_resource
from dagster_retl.api.openapi import documented
from dagster_retl.api.paging import LIMIT, MOST, decode, page
from dagster_retl.api.problems import ApiError, Detail, invalid
from dagster_retl.api.route import Route
from dagster_retl.api.routes.runs import start
from dagster_retl.api.visible import reachable_syncs, require_known_sync
from dagster_retl.documents import rfc3339, stats_document
from dagster_retl.errors import ConfigurationError, NotFoundError
from dagster_retl.model.runs import DeadLetter
from dagster_retl.store.api_keys import ApiKey, Scope
from dagster_retl.store.dead_letters.decisions import MANUAL_PUSH, SKIPPED


class _EntryConvertor(StringConvertor):
    """An id in a path, where other paths have a word of their own."""

    regex = "(?!(?:stats|resolve)$)[^/]+"


register_url_convertor("entry", _EntryConvertor())

router = APIRouter(route_class=Route, tags=["dead letters"])

Held = Annotated[Shared, Depends(shared)]

Since = Annotated[str | None, Query(json_schema_extra={"anyOf": [{"type": "string", "format": "date-time"}]})]

_NAMED = 10  # ids that a message names
_SPACED_OFFSET = re.compile(r"(T.*) (\d\d:?\d\d)$", re.IGNORECASE)


class ResolveBody(Body):
    """Which entries, why they are resolved, and whether their rows are sent again."""

    entry_ids: list[str] = Field(min_length=1, max_length=1000)
    resolution: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    replay: bool = False

    @model_validator(mode="after")
    def _replay_fits(self) -> Self:
        if self.replay and self.resolution in (SKIPPED, MANUAL_PUSH):
            raise ValueError(f"`{self.resolution}` says that the rows are not to be sent, `replay` that they are")
        return self


async def resolve_body(request: Request) -> ResolveBody:
    """The body of the request."""
    return await read_body(request, ResolveBody)


@router.get("/dlq", **documented(schemas.LetterList, examples.LETTERS, "List dead letter queue entries"))
def list_letters(
    key: Reader,
    held: Held,
    sync_id: str | None = None,
    resolved: bool = False,
    run_id: str | None = None,
    error_code: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = LIMIT,
    cursor: str | None = None,
) -> Answer:
    """Rows that could not be written: open ones or, with `resolved=true`, resolved ones, newest first."""
    require_known_sync(key, held.service, sync_id)
    filters: dict[str, Any] = {
        "sync_id": sync_id, "resolved": resolved, "run_id": run_id, "error_code": error_code
    }  # fmt: skip
    named = {"list": "dlq", **filters}
    before = None if cursor is None else decode(cursor, named)
    among = reachable_syncs(key, held.service)
    letters = held.service.store.dead_letters.list(**filters, among=among, limit=limit + 1, before=before)
    return page(letters, limit, named, lambda letter: (letter.first_seen_at, letter.id), letter_resource)


@router.get("/dlq/stats", **documented(schemas.StatsOne, examples.STATS, "DLQ statistics"))
def stats(key: Reader, held: Held, sync_id: str | None = None, since: Since = None) -> Answer:
    """How many entries are open and resolved, and why the open ones failed. `since` looks at `first_seen_at`."""
    moment = None if since is None else _moment(since)
    require_known_sync(key, held.service, sync_id)
    among = reachable_syncs(key, held.service)
    found = held.service.store.dead_letters.stats(sync_id, moment, among=among)
    return one("reverse_etl_dlq_stats", None, stats_document(found))


@router.get("/dlq/{entry_id:entry}", **documented(schemas.LetterOne, examples.LETTER, "Get a dead letter queue entry"))
def get_letter(key: Reader, held: Held, entry_id: str) -> Answer:
    """One entry."""
    [letter] = _letters(key, held, [entry_id])
    return Answer({"data": letter_resource(letter)})


@router.post(
    "/dlq/resolve", **documented(schemas.ResolvedOne, examples.RESOLVED, "Resolve DLQ entries", body="ResolveBody")
)
def resolve(key: Writer, held: Held, body: Annotated[ResolveBody, Depends(resolve_body)]) -> Answer:
    """Marks entries resolved, all or none. With `replay`, their rows are sent again, as they are now (scope `run`).

    Entries that are replayed stay open until their row is accepted. While their sync is running, the replay is
    queued and begins once the sync is free.
    """
    letters = _letters(key, held, list(dict.fromkeys(body.entry_ids)))
    if body.replay:
        return _replay(key, held, [letter for letter in letters if not letter.resolved])
    try:
        done = held.service.resolve([letter.id for letter in letters], body.resolution, actor=actor_of(key))
    except ConfigurationError as error:
        raise ApiError(409, f"{error.message}. {error.hint}") from None
    return _resolved(held, done, [])


def _replay(key: ApiKey, held: Shared, letters: Sequence[DeadLetter]) -> Answer:
    if Scope.RUN not in key.scopes:
        message = "`replay` starts runs: this key lacks the scope `run`"
        raise ApiError(403, message, [Detail("replay", "scope", message)])
    try:
        replays = held.service.queue_replays([letter.id for letter in letters], actor=actor_of(key))
    except NotFoundError as error:
        raise ApiError(409, f"{error.message}: rows of a sync that is gone cannot be sent again") from None
    except ConfigurationError as error:
        raise ApiError(409, f"{error.message}. {error.hint}") from None
    start(held, [replay.run for replay in replays if replay.mine])
    taken = {entry_id for replay in replays for entry_id in replay.entries}
    return _resolved(
        held,
        [letter.id for letter in letters if letter.id in taken],
        list(dict.fromkeys(replay.run.id for replay in replays)),
    )


def _resolved(held: Shared, ids: Sequence[str], run_ids: Sequence[str]) -> Answer:
    attributes = {
        "resolved_ids": list(ids),
        "replay_run_id": run_ids[0] if run_ids else None,
        "replay_run_ids": list(run_ids),
        "resolved_at": rfc3339(held.service.store.now()),
    }
    return one("reverse_etl_dlq_resolve", None, attributes)


def _letters(key: ApiKey, held: Shared, entry_ids: Sequence[str]) -> list[DeadLetter]:
    """The entries in this order. Raises `NotFoundError` when one is not there, or not for this key."""
    among = reachable_syncs(key, held.service)
    found = {letter.id: letter for letter in held.service.store.dead_letters.get_all(entry_ids)}
    missing = [each for each in entry_ids if each not in found or not (among is None or found[each].sync_id in among)]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        named = ", ".join(each[:100] for each in missing[:_NAMED])
        message = f"there is no dead letter {named}{more}; nothing was changed"
        raise ApiError(404, message, [Detail("entry_ids", "unknown", "no such entry", each) for each in missing])
    return [found[entry_id] for entry_id in entry_ids]


def _moment(text: str) -> datetime:
    """ISO 8601; without a zone it is UTC, and `+` that was read as a space is one."""
    said = _SPACED_OFFSET.sub(r"\1+\2", text.strip())
    try:
        moment = datetime.fromisoformat(said)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid("since", "timestamp", "expected an ISO 8601 time, such as 2025-03-27T17:00:00Z") from None
