"""What is to be said, given what is wrong and what was said before. Pure decisions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from dagster_retl.orchestration.alerting.channels import Channel
from dagster_retl.orchestration.alerting.memory import Said, State
from dagster_retl.orchestration.alerting.troubles import Kind, Trouble


class Verdict(StrEnum):
    """What a channel is to do about a subject."""

    NOTHING = "nothing"
    TELL = "tell"
    REMIND = "remind"
    WATCH = "watch"
    """Remember it, to tell its end."""
    RECOVERED = "recovered"
    FORGET = "forget"
    """It is over, and nobody here wants to hear so."""


def while_it_lasts(channel: Channel, trouble: Trouble, said: Said | None, now: datetime) -> Verdict:
    """What to do about a trouble that is there."""
    kind = trouble.subject.kind
    if not channel.announces(kind):
        return Verdict.WATCH if channel.recovers(kind) and said is None else Verdict.NOTHING
    if said is None or said.state is State.WATCHED:
        return Verdict.TELL if channel.worth(trouble) else Verdict.NOTHING
    if said.state is State.DUE or channel.crossed(trouble, said.entries):
        return Verdict.TELL
    return Verdict.REMIND if now - said.at >= channel.repeat_after else Verdict.NOTHING


def when_it_is_over(channel: Channel, kind: Kind, said: Said, *, well: bool) -> Verdict:
    """What to do about a trouble that is gone.

    well: whether its syncs are well now; they are
    not when they fail for another reason, or are gone. A trouble that ended before its message
    could be delivered is told with its end.
    """
    if not well or not channel.follows(kind):
        return Verdict.FORGET
    return Verdict.RECOVERED if channel.recovers(kind) or said.state is State.DUE else Verdict.FORGET
