"""Decisions of the alerts, without a store: what is said, to whom, and what is kept of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dagster_retl.model.project import AlertRule
from dagster_retl.orchestration.alerting.channels import Channel, channels
from dagster_retl.orchestration.alerting.decisions import Verdict, when_it_is_over, while_it_lasts
from dagster_retl.orchestration.alerting.memory import Memory, Said, State
from dagster_retl.orchestration.alerting.troubles import Kind, Subject, Trouble
from dagster_retl.store.dead_letters import OpenGroup
from dagster_retl.store.store import Store

NOW = datetime(2025, 3, 27, 17, tzinfo=UTC)
SECRET = "json://127.0.0.1/hook/T0PSECRET"


def channel(*rules: dict[str, object]) -> Channel:
    [only] = channels([AlertRule.model_validate({"notify": [SECRET], **rule}) for rule in rules or ({},)], "store")
    return only


def letters(entries: int) -> Trouble:
    group = OpenGroup("retl_sync_1", "AUTH", entries, entries, NOW, NOW)
    return Trouble(Subject(Kind.DEAD_LETTERS, "conn/a", "AUTH"), [], NOW, {}, {"things": group})


def said(state: State = State.TOLD, *, entries: int = 1, ago: timedelta = timedelta()) -> Said:
    return Said(state, NOW - ago, ("things",), entries, NOW)


@pytest.mark.parametrize(
    ("rule", "open_now", "before", "verdict"),
    [
        ({}, 1, None, Verdict.TELL),
        ({}, 1, said(State.DUE), Verdict.TELL),
        ({}, 9, said(), Verdict.NOTHING),
        ({}, 9, said(ago=timedelta(hours=24)), Verdict.REMIND),
        ({"on": ["run_failed"]}, 9, None, Verdict.NOTHING),
        ({"on": ["recovered"]}, 9, None, Verdict.WATCH),
        ({"on": ["recovered"]}, 9, said(State.WATCHED), Verdict.NOTHING),
        ({"dead_letters": {"new_codes": False}}, 9, None, Verdict.NOTHING),
        ({"dead_letters": {"new_codes": False, "open": 9}}, 8, None, Verdict.NOTHING),
        ({"dead_letters": {"new_codes": False, "open": 9}}, 9, None, Verdict.TELL),
        ({"dead_letters": {"open": 9}}, 9, said(entries=8), Verdict.TELL),
        ({"dead_letters": {"open": 9}}, 10, said(entries=9), Verdict.NOTHING),
    ],
)
def test_what_is_said_while_it_lasts(
    rule: dict[str, object], open_now: int, before: Said | None, verdict: Verdict
) -> None:
    assert while_it_lasts(channel(rule), letters(open_now), before, NOW) is verdict


@pytest.mark.parametrize(
    ("rule", "state", "well", "verdict"),
    [
        ({}, State.TOLD, True, Verdict.RECOVERED),
        ({}, State.TOLD, False, Verdict.FORGET),
        ({"on": ["dead_letters"]}, State.TOLD, True, Verdict.FORGET),
        ({"on": ["dead_letters"]}, State.DUE, True, Verdict.RECOVERED),
        ({"on": ["run_failed", "recovered"]}, State.TOLD, True, Verdict.FORGET),
        ({"on": ["recovered"]}, State.WATCHED, True, Verdict.RECOVERED),
    ],
)
def test_what_is_said_when_it_is_over(rule: dict[str, object], state: State, well: bool, verdict: Verdict) -> None:
    assert when_it_is_over(channel(rule), Kind.DEAD_LETTERS, said(state), well=well) is verdict


def test_a_number_of_entries_makes_no_news_of_their_age() -> None:
    old = dataclasses.replace(letters(9), subject=Subject(Kind.LETTER_AGE, "conn/a", "AUTH"))
    here = channel({"dead_letters": {"open": 9, "age": "24h"}})
    assert while_it_lasts(here, old, None, NOW) is Verdict.TELL
    assert while_it_lasts(here, old, said(entries=8), NOW) is Verdict.NOTHING


def test_an_address_in_two_rules_is_one_channel() -> None:
    both = channel({"on": ["run_failed"], "repeat_after": "2h"}, {"on": ["guard_tripped"], "repeat_after": "1h"})
    assert both.announces(Kind.RUN_FAILED)
    assert both.announces(Kind.GUARD_TRIPPED)
    assert not both.announces(Kind.DEAD_LETTERS)
    assert both.repeat_after == timedelta(hours=1)


def test_a_channel_shows_nothing_of_its_address() -> None:
    shown = channel()
    assert shown.label == "alerts[0].notify[0] (json)"
    assert "T0PSECRET" not in repr(shown)
    assert shown.id != channels([AlertRule(notify=(SECRET,))], "another store")[0].id


def test_memory_keeps_subjects_apart_and_the_first_sign(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'retl.db'}") as store:
        memory, other = Memory(store.notices, "a/b"), Memory(store.notices, "a")
        here, trouble = channel(), letters(3)
        memory.keep(here, trouble, State.DUE, said())
        [(key, kept)] = memory.all().items()
        assert key == (here.id, trouble.subject)
        assert (kept.state, kept.entries, kept.since) == (State.DUE, 3, NOW)
        assert other.all() == {}
        memory.forget(*key)
        assert memory.all() == {}
