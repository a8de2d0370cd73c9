"""What is known of each row after its batch was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagster_retl.changes.outcomes import Outcomes, Status
from dagster_retl.model.rows import Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """One row's end. ambiguous: some attempt's effect is unknown. held: nobody may send it again."""

    status: Status
    fault: Fault | None = None
    record_id: str | None = None
    ambiguous: bool = False
    held: bool = False


NOT_SENT = Answer(Status.NOT_SENT)
WRITTEN = Answer(Status.WRITTEN)
UNCONFIRMED = Answer(Status.UNCONFIRMED)


def common(answers: Sequence[Answer]) -> Answer | None:
    """The answer that all rows of a batch share and that says nothing more, where they do."""
    first = answers[0]
    plain = first in (WRITTEN, UNCONFIRMED, NOT_SENT)
    return first if plain and answers.count(first) == len(answers) else None


def to_outcomes(answers: Sequence[Answer]) -> Outcomes:
    """The answers to a batch, as the ledger keeps them."""
    shared = common(answers)
    if shared is not None:
        return Outcomes([shared.status] * len(answers))
    return Outcomes(
        [answer.status for answer in answers],
        [position for position, answer in enumerate(answers) if answer.ambiguous],
        {position: answer.record_id for position, answer in enumerate(answers) if answer.record_id is not None},
    )
