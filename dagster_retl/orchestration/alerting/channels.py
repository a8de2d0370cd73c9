"""Who is told, and about what: the alert rules of a project, turned round to one channel for each address."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from dagster_retl.model.project import AlertRule
from dagster_retl.orchestration.alerting.troubles import Kind, Trouble

_RECOVERED = "recovered"
_TOLD_AS = {Kind.DESTINATION_DOWN: frozenset({Kind.DESTINATION_DOWN.value, Kind.RUN_FAILED.value})}
"""The events of a rule that a kind of trouble is told under, where that is not its own alone."""


@dataclass(frozen=True, slots=True)
class Channel:
    """An address and the rules that name it.

    id: stands for the address in the store. label: its place in retl.yaml and its scheme, for
    logs; the address itself holds secrets.
    """

    id: str
    label: str
    url: str = field(repr=False)
    rules: tuple[AlertRule, ...] = field(repr=False)

    def announces(self, kind: Kind) -> bool:
        """Whether anything of this kind is told here."""
        return bool(self._rules_for(kind))

    def recovers(self, kind: Kind) -> bool:
        """Whether the end of such a trouble is told here: of those announced, or of all where none is."""
        return any(
            _RECOVERED in rule.on and (_tells(rule, kind) or len(rule.on) == 1) and _looks_at(rule, kind)
            for rule in self.rules
        )

    def follows(self, kind: Kind) -> bool:
        """Whether a trouble of this kind is any business of this channel."""
        return self.announces(kind) or self.recovers(kind)

    def worth(self, trouble: Trouble) -> bool:
        """Whether a trouble that nobody here has heard of is worth a message."""
        kind = trouble.subject.kind
        if kind is not Kind.DEAD_LETTERS:
            return self.announces(kind)
        wanted = [rule.dead_letters for rule in self._rules_for(kind)]
        return any(each.new_codes or _reached(each.open, trouble.entries) for each in wanted)

    def crossed(self, trouble: Trouble, entries: int) -> bool:
        """Whether more dead letters are open than a rule allows, which was not so when `entries` were."""
        if trouble.subject.kind is not Kind.DEAD_LETTERS:
            return False
        limits = [rule.dead_letters.open for rule in self._rules_for(Kind.DEAD_LETTERS)]
        return any(_reached(limit, trouble.entries) and not _reached(limit, entries) for limit in limits)

    @property
    def rate(self) -> float | None:
        """The share of a run's rows above which failures are followed here; None: whatever it is."""
        rates = (rule.dead_letters.rate for rule in self.rules if _follows_letters(rule))
        return min((rate for rate in rates if rate is not None), default=None)

    @property
    def age(self) -> timedelta | None:
        """How long a dead letter may be open until that is followed here; None: for ever."""
        ages = (rule.dead_letters.age for rule in self.rules if _follows_letters(rule))
        return min((age for age in ages if age is not None), default=None)

    @property
    def repeat_after(self) -> timedelta:
        """How long a trouble lasts until it is told again."""
        return min(rule.repeat_after for rule in self.rules)

    def _rules_for(self, kind: Kind) -> list[AlertRule]:
        return [rule for rule in self.rules if _tells(rule, kind) and _looks_at(rule, kind)]


def channels(rules: Sequence[AlertRule], salt: str) -> list[Channel]:
    """One channel for each address in the rules. `salt`: the store's name, so that ids say nothing elsewhere."""
    places: dict[str, str] = {}
    named: dict[str, list[AlertRule]] = {}
    for number, rule in enumerate(rules):
        for position, url in enumerate(rule.notify):
            places.setdefault(url, f"alerts[{number}].notify[{position}]")
            named.setdefault(url, []).append(rule)
    return [Channel(_id(url, salt), f"{places[url]}{_scheme(url)}", url, tuple(named[url])) for url in named]


def _tells(rule: AlertRule, kind: Kind) -> bool:
    return not _TOLD_AS.get(kind, frozenset({kind.event})).isdisjoint(rule.on)


def _looks_at(rule: AlertRule, kind: Kind) -> bool:
    """Whether the rule has a limit of this kind, where it takes one."""
    limits = {Kind.FAILURE_RATE: rule.dead_letters.rate, Kind.LETTER_AGE: rule.dead_letters.age}
    return kind not in limits or limits[kind] is not None


def _follows_letters(rule: AlertRule) -> bool:
    return Kind.DEAD_LETTERS.event in rule.on or rule.on == (_RECOVERED,)


def _reached(limit: int | None, entries: int) -> bool:
    return limit is not None and entries >= limit


def _id(url: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}\0{url}".encode()).hexdigest()[:16]


def _scheme(url: str) -> str:
    scheme = re.match(r"([a-z0-9]+)://", url)
    return f" ({scheme[1]})" if scheme else ""
