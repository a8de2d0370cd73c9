"""For those who test connectors, or what uses them: conversations, rows, servers, faults.

`FakeApi` is what a fake of a vendor is made of. `FakeHttpService` keeps records and insists on its rules;
`FaultServer` goes wrong on top of that.
The contract classes are in `dagster_retl.testing.contract`, which needs pytest and Hypothesis.
"""

from dagster_retl.testing import faults
from dagster_retl.testing.converse import converse
from dagster_retl.testing.drive import deliver, drive, open_client, write
from dagster_retl.testing.fake_api import Call, FakeApi, RefusedError
from dagster_retl.testing.fake_http import FakeHttpService
from dagster_retl.testing.fake_rules import Applied, OtherRules, Refusal, Rules
from dagster_retl.testing.fault_server import FaultServer
from dagster_retl.testing.messages import Received, Reply
from dagster_retl.testing.rows import MadeRow, make_batch, make_row
from dagster_retl.testing.server import LoopbackServer
from dagster_retl.testing.trouble import Incident, Trouble

__all__ = [
    "Applied",
    "Call",
    "FakeApi",
    "FakeHttpService",
    "FaultServer",
    "Incident",
    "LoopbackServer",
    "MadeRow",
    "OtherRules",
    "Received",
    "Refusal",
    "RefusedError",
    "Reply",
    "Rules",
    "Trouble",
    "converse",
    "deliver",
    "drive",
    "faults",
    "make_batch",
    "make_row",
    "open_client",
    "write",
]
