"""What a key that is limited to some destinations may see."""

from __future__ import annotations

from dagster_retl.errors import NotFoundError
from dagster_retl.service import Service
from dagster_retl.store.api_keys import ApiKey
from dagster_retl.syncs.definition import sync_of


def reachable_syncs(key: ApiKey, service: Service) -> frozenset[str] | None:
    """The ids of the syncs whose runs and dead letters the key may see, deleted ones too; None: of all."""
    if key.destinations is None:
        return None
    deleted = map(sync_of, service.store.syncs.deleted(service.project.project))
    known = [*service.definitions(), *deleted]
    return frozenset(sync.id for sync in known if key.reaches(sync.destination_id))


def require_known_sync(key: ApiKey, service: Service, sync_id: str | None) -> None:
    """Raises `NotFoundError` for the id of a sync that nobody ever heard of, or that the key may not see."""
    if sync_id is None:
        return
    among = reachable_syncs(key, service)
    if (among is None or sync_id in among) and _was_heard_of(service, sync_id):
        return
    raise NotFoundError(f"there is no sync {sync_id!r}")


def _was_heard_of(service: Service, sync_id: str) -> bool:
    store = service.store
    return service.catalog.knows(sync_id) or bool(store.runs.list(sync_id, limit=1))
