"""The text of messages about destinations that are down."""

from __future__ import annotations

from dagster_retl.model.project import Destination
from dagster_retl.orchestration.alerting.memory import Said
from dagster_retl.orchestration.alerting.messages import Links, Message, Tone, run_line
from dagster_retl.orchestration.alerting.troubles import Subject, Trouble
from dagster_retl.orchestration.alerting.words import SYNCS, listed, moment, more, paragraphs, quoted


def down(trouble: Trouble, destination: Destination, links: Links) -> Message:
    """A destination does not answer, and its syncs wait."""
    slugs = [sync.slug for sync in trouble.syncs]
    wait = "waits" if len(slugs) == 1 else "wait"
    failed = [f"- {run_line(slug, run, links)}" for slug, run in trouble.runs.items()]
    body = [
        quoted(f"{trouble.outage.code}: {trouble.outage.reason}") if trouble.outage else "",
        f"{listed(slugs)} {wait} until it answers, and then go on by schedule." if slugs else "",
        "\n".join([*failed[:SYNCS], *more(len(failed) - SYNCS, "failed runs")]),
        f"To find out more: `retl check {destination.id}`.",
    ]
    return Message(f"{destination.name} is down", paragraphs(body), Tone.FAILURE)


def answers_again(subject: Subject, said: Said, destination: Destination) -> tuple[str, str]:
    """Title and text when it answers."""
    syncs = f" The schedules of {listed(said.syncs)} go on; `retl run` waits for none." if said.syncs else ""
    return f"{destination.name} answers again", f"It had been down since {moment(said.since)}.{syncs}"
