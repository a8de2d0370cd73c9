"""A service that goes wrong on purpose: real sockets on 127.0.0.1, state, rules, and faults that repeat.

    from dagster_retl.testing import FaultServer, Rules, faults

    with FaultServer(Rules(key="id", answers="key")) as server:
        server.script("reset_after", faults.rate_limited(1, "date"), "ok")
        run_my_sync(url=f"{server.url}/v1/contacts")

        server.records["contacts"]["42"]            # what it holds now
        server.applications()["contacts", "42"]     # how often it changed that record
        server.applied                              # every change: when, what, by which request
        server.incidents                            # every fault: which request, which trouble

        server.draw(seed=7)                         # from here on, faults by chance: the same for the same seed
        run_my_sync(url=f"{server.url}/v1/contacts")
        server.calm()                               # and from here on, none
        server.land()                               # what clients gave up on arrives after all

The paths, and what the service insists on, are those of `FakeHttpService` and its `Rules`: bearer
tokens that expire, a rate limit with the headers that vendors send, limits of rows and bytes, rows
that it refuses, four forms of answers. A service with paths of its own inherits from
`LoopbackServer`, whose `disturb` takes the same faults, and whose `troubles` can be drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from dagster_retl.testing.fake_http import FakeHttpService
from dagster_retl.testing.fake_rules import Rules
from dagster_retl.testing.faults import named
from dagster_retl.testing.trouble import Trouble

WEIGHTS: Mapping[str, float] = {
    "ok": 60,
    "latency": 2,
    "rate_limited": 4,
    "error_500": 3,
    "error_500_applied": 3,
    "unavailable": 3,
    "unavailable_applied": 3,
    "reset_before": 3,
    "reset_after": 3,
    "late_unavailable": 3,
    "truncated": 2,
    "invalid_json": 2,
    "html_502": 2,
    "drip": 1,
    "too_many_rows": 3,
    "batch_refused": 2,
    "reordered": 2,
}
"""How often a fault is drawn unless somebody says otherwise: a bad day, on which most requests go well.

Nothing of it hangs, ends a run by itself, or is a matter of rows.
"""


class FaultServer(FakeHttpService):
    """See the module. seed, weights: draw faults from the start, as `draw` does."""

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        seed: int | str | None = None,
        weights: Mapping[str, float] = WEIGHTS,
        latency: float = 0.0,
        port: int = 0,
    ) -> None:
        super().__init__(rules, latency=latency, port=port)
        if seed is not None:
            self.draw(seed, weights)

    def script(self, *troubles: str | Trouble) -> None:
        """What becomes of the next requests, one after the other: names of `faults.CATALOGUE`, or troubles.

        Scripted faults come before drawn ones. Raises `KeyError` for an unknown name.
        """
        for trouble in troubles:
            self.disturb(named(trouble) if isinstance(trouble, str) else trouble)

    def draw(self, seed: int | str, weights: Mapping[str, float] = WEIGHTS) -> None:
        """Let requests run into faults by chance, until `calm`.

        weights: name → how often, relative to the others. The same seed does the same to the same
        requests, in whatever order they come. Raises `KeyError` for an unknown name.
        """
        for name in weights:
            named(name)
        self.troubles.draw(seed, {partial(named, name): weight for name, weight in weights.items()})

    def met(self) -> Counter[str]:
        """How often each fault happened; faults without a name count under the empty one."""
        return Counter(incident.trouble.name for incident in self.incidents)
