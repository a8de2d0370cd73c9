"""Dead letters: listing, reading, resolving them, and what a replay runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dagster_retl.engine.sealing import Sealer
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.partitions import Partition
from dagster_retl.model.runs import DeadLetter, DeadLetterStats, RunOptions
from dagster_retl.service.checks import CheckCases


class DeadLetterCases(CheckCases):
    """Dead letters: listing, reading, resolving them, and what a replay runs."""

    def dead_letters(
        self,
        reference: str | None = None,
        *,
        resolved: bool = False,
        run_id: str | None = None,
        error_code: str | None = None,
        limit: int = 50,
    ) -> list[DeadLetter]:
        """Dead letters, newest first."""
        sync_id = self.find(reference).id if reference else None
        return self.store.dead_letters.list(
            sync_id, resolved=resolved, run_id=run_id, error_code=error_code, limit=limit
        )

    def dead_letter(self, entry_id: str) -> DeadLetter:
        """One dead letter. Raises `NotFoundError`."""
        return self.store.dead_letters.get(entry_id)

    def payload(self, entry_id: str) -> bytes | None:
        """The JSON document that was refused, where it was kept; None: it was not.

        Raises `NotFoundError`, and `ConfigurationError` without the key that it was encrypted with.
        """
        stored = self.store.dead_letters.payload(entry_id)
        return None if stored is None else self._sealer().unseal(stored)

    def _sealer(self) -> Sealer:
        keys = self.project.dead_letters.payload_key
        if keys is None:
            raise ConfigurationError(
                "payloads of dead letters are encrypted, and retl.yaml has no key",
                hint="Set `dead_letters: {payload_key: …}` to the key that they were encrypted with.",
            )
        return Sealer(keys.get_secret_value())

    def dead_letter_stats(self, reference: str | None = None) -> DeadLetterStats:
        """Open and resolved dead letters, and why the open ones failed."""
        return self.store.dead_letters.stats(self.find(reference).id if reference else None)

    def resolve(self, entry_ids: Sequence[str], resolution: str, *, actor: str) -> list[str]:
        """Close dead letters; returns the ids that were open. See `store.dead_letters` for what a resolution does."""
        return self.store.dead_letters.resolve(entry_ids, resolution, actor)

    def by_partition(self, entry_ids: Sequence[str]) -> list[list[str]]:
        """The entries in groups that `replays` takes: those of each sync and partition by themselves."""
        groups: dict[tuple[str, str | None], list[str]] = {}
        for entry in map(self.dead_letter, entry_ids):
            groups.setdefault((entry.sync_id, entry.partition), []).append(entry.id)
        return list(groups.values())

    def replays(self, entry_ids: Sequence[str]) -> Mapping[str, RunOptions]:
        """What to run to send these dead letters again: options by sync id.

        A replay reads the rows from the warehouse by key and writes what is true now. Rows that
        have no key of their own are found by an ordinary run. Those of one sync must be of one partition.
        """
        entries = [self.dead_letter(entry_id) for entry_id in entry_ids]
        resolved = [entry.id for entry in entries if entry.resolved]
        if resolved:
            raise ConfigurationError(f"{', '.join(resolved)} cannot be replayed: it is resolved already")
        grouped: dict[str, list[DeadLetter]] = {}
        for entry in entries:
            grouped.setdefault(entry.sync_id, []).append(entry)
        return {
            sync_id: replace(_replay(letters), partition=self._partition_of(letters))
            for sync_id, letters in grouped.items()
        }

    def _partition_of(self, letters: Sequence[DeadLetter]) -> Partition | None:
        """The partition whose rows these are. Raises `ConfigurationError` for several, or one that is no more."""
        sync = self.find(letters[0].sync_id)
        if sync.partitions is None:
            return None
        found = {letter.partition: sync.partitions.at(letter.partition or "") for letter in letters}
        if len(found) > 1:
            names = sorted(partition.key if partition else str(kept) for kept, partition in found.items())
            raise ConfigurationError(
                f"these dead letters of sync {sync.name!r} are of several partitions: {', '.join(names)}",
                hint="A run reads one partition: replay those of each by themselves.",
            )
        [(kept, partition)] = found.items()
        if partition is None:
            raise ConfigurationError(
                f"sync {sync.name!r} is parted differently than when {letters[0].id} failed (in {kept or 'none'})",
                hint="Run the partition that its row is in now.",
            )
        return partition


def _replay(letters: Sequence[DeadLetter]) -> RunOptions:
    ids = tuple(letter.id for letter in letters)
    if all(letter.record_keys for letter in letters):
        return RunOptions(replay=ids, keys=tuple(letter.record_keys for letter in letters))
    return RunOptions(replay=ids)
