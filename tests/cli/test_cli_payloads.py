"""`retl dlq show --payload`: what was refused, for those who have the key."""

from __future__ import annotations

from pathlib import Path

from cli_shop import Shop
from cryptography.fernet import Fernet


def test_it_is_shown_to_those_who_have_the_key(shop: Shop) -> None:
    project = shop.folder / "retl.yaml"
    plain = project.read_text(encoding="utf-8")
    _with_key(project, plain, Fernet.generate_key().decode())
    shop.document("run", "people_service", code=3)
    (letter,) = shop.document("dlq", "list")
    assert "payload" not in letter
    shown = shop.document("dlq", "show", letter["id"], "--payload")
    assert shown == letter | {"payload": {"id": 2, "name": "Zoë", "email": "nowhere"}}
    assert '{"id":2,"name":"Zoë","email":"nowhere"}' in shop.call("dlq", "show", letter["id"], "--payload").stdout
    assert "payload" not in shop.document("dlq", "show", letter["id"])

    _with_key(project, plain, Fernet.generate_key().decode())
    assert shop.document("dlq", "show", letter["id"], "--payload", code=1)["error"]["code"] == "CONFIGURATION"
    project.write_text(plain, encoding="utf-8")
    refused = shop.call("dlq", "show", letter["id"], "--payload")
    assert (refused.exit_code, "retl.yaml has no key" in refused.stderr) == (1, True)


def test_where_nothing_was_kept(shop: Shop) -> None:
    shop.document("run", "people_service", code=3)
    (letter,) = shop.document("dlq", "list")
    assert shop.document("dlq", "show", letter["id"], "--payload")["payload"] is None
    assert "was not kept" in shop.call("dlq", "show", letter["id"], "--payload").stdout


def _with_key(project: Path, plain: str, key: str) -> None:
    project.write_text(f"{plain}dead_letters: {{payloads: on, payload_key: {key}}}\n", encoding="utf-8")
