"""Delivery through Apprise: reasons without secrets, and silence in the logs."""

from __future__ import annotations

import logging

import pytest
from alert_things import Inbox

from dagster_retl.orchestration.alerting.messages import Message, Tone
from dagster_retl.orchestration.alerting.notify import send

MESSAGE = Message("3 syncs fail", "**because**", Tone.FAILURE)


def test_a_message_arrives_as_it_was_written() -> None:
    with Inbox() as inbox:
        assert send(inbox.address, MESSAGE) is None
        assert inbox.messages[0] | {"version": ""} == {
            "version": "", "title": "3 syncs fail", "message": "**because**", "attachments": [], "type": "failure",
        }  # fmt: skip


@pytest.mark.parametrize("scheme", ["json", "nonsense"])
def test_what_went_wrong_is_said_without_the_address(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    with Inbox() as inbox, caplog.at_level(1), caplog.at_level(1, "apprise"):
        inbox.broken = True
        reason = send(inbox.address.replace("json", scheme) + "/hook/T0PSECRET?token=k3yk3y", MESSAGE)
    assert reason
    for secret in ("T0PSECRET", "k3yk3y"):
        assert secret not in reason
        assert secret not in caplog.text


def test_the_logs_of_others_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with Inbox() as inbox:
        send(inbox.address, MESSAGE)
    logging.getLogger("apprise").warning("something of somebody else")
    assert "somebody else" in caplog.text
