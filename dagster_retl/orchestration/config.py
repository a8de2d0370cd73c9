"""What can be said about one run: in the launchpad, in run configuration, and as `RunOptions`."""

from __future__ import annotations

from typing import Annotated, Any

import dagster as dg
from pydantic import Field

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.runs import AccountChange, Guard, RunOptions
from dagster_retl.model.sync import Sync


class SyncRunConfig(dg.Config):
    """Options of one run of a sync; all defaults together are an ordinary run."""

    full_refresh: Annotated[bool, Field(description="Send the whole result, whatever was delivered before.")] = False
    dry_run: Annotated[bool, Field(description="Stop at the plan: nothing is written or materialized.")] = False
    baseline: Annotated[bool, Field(description="Send nothing: take the whole result as delivered, from now on.")] = (
        False
    )
    limit: Annotated[int | None, Field(description="Send at most this many rows.", ge=0)] = None
    # A field named `keys` would be taken for the method of that name by dict(config), which Dagster relies on.
    only_keys: Annotated[
        list[dict[str, Any]],
        Field(alias="keys", description="Send only these rows: each a mapping of key field to value."),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    replay: Annotated[
        list[str], Field(description="Ids of dead letters whose rows are sent again, as they are now.")
    ] = []  # noqa: RUF012 - pydantic copies defaults
    overrides: Annotated[
        list[str],
        Field(description=f"Guards that may not stop this run: {', '.join(guard.value for guard in Guard)}."),
    ] = []  # noqa: RUF012 - pydantic copies defaults
    reset: Annotated[
        bool, Field(description="It is another account: start from an empty snapshot and send everything.")
    ] = False
    keep_snapshot: Annotated[
        bool, Field(description="It is another account that holds the same data: go on with the snapshot.")
    ] = False
    run_id: Annotated[
        str | None,
        Field(description="A queued run (retl_run_…) to execute, with the options that it was queued with."),
    ] = None
    retry_outages: Annotated[
        bool, Field(description="Try again, twice, when the warehouse or the destination cannot be reached.")
    ] = True

    @classmethod
    def of(cls, options: RunOptions, *, retry_outages: bool = True) -> SyncRunConfig:
        """The configuration that says these options."""
        return cls.model_validate(
            {
                "full_refresh": options.full_refresh,
                "dry_run": options.dry_run,
                "baseline": options.baseline,
                "limit": options.limit,
                "keys": [dict(key) for key in options.keys],
                "replay": list(options.replay),
                "overrides": sorted(guard.value for guard in options.overrides),
                "reset": options.account_change is AccountChange.RESET,
                "keep_snapshot": options.account_change is AccountChange.KEEP_SNAPSHOT,
                "retry_outages": retry_outages,
            }
        )

    def options(self) -> RunOptions:
        """What the engine is asked for. Raises `ConfigurationError`."""
        return RunOptions(
            full_refresh=self.full_refresh,
            dry_run=self.dry_run,
            baseline=self.baseline,
            limit=self.limit,
            keys=tuple(self.only_keys),
            replay=tuple(self.replay),
            overrides=frozenset(map(_guard, self.overrides)),
            account_change=self._account_change(),
        )

    def _account_change(self) -> AccountChange:
        if self.reset and self.keep_snapshot:
            raise ConfigurationError("`reset` and `keep_snapshot` contradict each other: choose one")
        if self.reset:
            return AccountChange.RESET
        return AccountChange.KEEP_SNAPSHOT if self.keep_snapshot else AccountChange.REFUSE


def run_config(sync: Sync, config: SyncRunConfig) -> dict[str, Any]:
    """Run configuration of `retl_syncs` for a run of one sync: what differs from an ordinary run."""
    return {"ops": {sync.slug: {"config": config.model_dump(by_alias=True, exclude_defaults=True)}}}


def _guard(name: str) -> Guard:
    known = [guard.value for guard in Guard]
    if name not in known:
        raise ConfigurationError(f"there is no guard {name!r}", hint=f"Guards are: {', '.join(known)}.")
    return Guard(name)
