"""Dead letters: listing, reading, resolving them, and what a replay runs."""

from __future__ import annotations

from collections.abc import Sequence
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

    def replays(self, entry_ids: Sequence[str]) -> list[tuple[str, RunOptions]]:
        """What to run to send these dead letters again: sync ids and options, one for each sync and partition.

        A replay reads the rows from the warehouse by key and writes what is true now. Rows that
        have no key of their own are found by an ordinary run. Raises as `by_partition` does.
        """
        return [
            (sync_id, replace(replay_of(letters), partition=partition))
            for (sync_id, partition), letters in self.by_partition(entry_ids).items()
        ]

    def by_partition(self, entry_ids: Sequence[str]) -> dict[tuple[str, Partition | None], list[DeadLetter]]:
        """Open entries, by sync id and the partition whose rows they are.

        Raises `NotFoundError`, and `ConfigurationError` for an entry that is resolved, or whose partition is no more.
        """
        entries = [self.dead_letter(entry_id) for entry_id in entry_ids]
        resolved = [entry.id for entry in entries if entry.resolved]
        if resolved:
            raise ConfigurationError(f"{', '.join(resolved)} cannot be replayed: it is resolved already")
        grouped: dict[tuple[str, Partition | None], list[DeadLetter]] = {}
        for entry in entries:
            grouped.setdefault((entry.sync_id, self._partition_of(entry)), []).append(entry)
        return grouped

    def _partition_of(self, entry: DeadLetter) -> Partition | None:
        sync = self.find(entry.sync_id)
        if sync.partitions is None:
            return None
        partition = sync.partitions.at(entry.partition or "")
        if partition is None:
            raise ConfigurationError(
                f"sync {sync.name!r} was parted differently when {entry.id} failed (in {entry.partition or 'none'})",
                hint="Run the partition that its row is in now.",
            )
        return partition


def replay_of(letters: Sequence[DeadLetter]) -> RunOptions:
    """The run that sends the rows of these entries of one sync again."""
    ids = tuple(letter.id for letter in letters)
    if all(letter.record_keys for letter in letters):
        return RunOptions(replay=ids, keys=tuple(letter.record_keys for letter in letters))
    return RunOptions(replay=ids)
