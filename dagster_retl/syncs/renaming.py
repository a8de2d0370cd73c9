"""Renamed syncs: one that would start from nothing, although what it delivered is kept under another id, is stopped."""

from __future__ import annotations

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.project import Project
from dagster_retl.model.sync import Sync
from dagster_retl.store.store import Store


def require_own_state(store: Store, project: Project, sync: Sync) -> None:
    """Raises `ConfigurationError` when the sync's last slug, or its own, was that of a renamed sync that is gone.

    That happens when a file forgets `renamed_from`, or names the last of several slugs there instead of the first.
    """
    if sync.adopt is not None or _began(store, sync):
        return
    live = {each.id for each in project.syncs}
    names = {sync.slug, sync.renamed_from or sync.slug}
    for sync_id, slug in store.file_syncs.called(project.project, names).items():
        if sync_id not in live:
            raise ConfigurationError(
                f"sync {sync.name!r} would start from nothing: what was delivered as {slug!r}, a sync that was renamed "
                f"before, is kept under {sync_id}",
                hint=f"Write `adopt: {sync_id}` into the sync to go on with it (or the first of its slugs as "
                f"`renamed_from`). To start from nothing: `retl syncs purge {sync_id}`.",
            )


def _began(store: Store, sync: Sync) -> bool:
    return store.file_syncs.slug(sync.id) is not None or store.snapshots.pointer(sync.id) is not None
