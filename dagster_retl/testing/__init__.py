"""For those who test connectors, or what uses them: conversations, rows, a server, a fake service.

The contract classes are in `dagster_retl.testing.contract`, which needs pytest and Hypothesis.
"""

from dagster_retl.testing.converse import converse
from dagster_retl.testing.drive import deliver, drive, open_client, write
from dagster_retl.testing.fake_http import Applied, FakeHttpService, Rules
from dagster_retl.testing.rows import MadeRow, make_batch, make_row
from dagster_retl.testing.server import LoopbackServer, Received, Reply, Trouble

__all__ = [
    "Applied",
    "FakeHttpService",
    "LoopbackServer",
    "MadeRow",
    "Received",
    "Reply",
    "Rules",
    "Trouble",
    "converse",
    "deliver",
    "drive",
    "make_batch",
    "make_row",
    "open_client",
    "write",
]
