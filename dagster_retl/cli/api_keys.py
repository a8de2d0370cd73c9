"""`retl keys`: who may use the API."""

from __future__ import annotations

from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from dagster_retl.cli import output, words
from dagster_retl.cli.app import CommandGroup
from dagster_retl.cli.keys import with_prefix
from dagster_retl.cli.session import Session, actor
from dagster_retl.model.ids import KEY_PREFIX
from dagster_retl.store.api_keys import ApiKey, Scope


@click.group(cls=CommandGroup)
def keys() -> None:
    """Create, list and revoke keys of the API."""


@keys.command()
@click.option("--name", required=True, help="What it is for; shown in the audit.")
@click.option("--scopes", required=True, metavar="SCOPES", help="What it may do: read, write, run, with commas.")
@click.option(
    "--destination", "destinations", multiple=True, metavar="ID", help="Only these destinations. Several times."
)
@click.pass_obj
def create(session: Session, name: str, scopes: str, destinations: tuple[str, ...]) -> None:
    """Make a key. It is shown once, and cannot be read again."""
    chosen = _scopes(scopes)
    with session.service() as service:
        for destination_id in destinations:
            service.project.destination(destination_id)
        key, text = service.store.api_keys.create(name, chosen, actor(), destinations=destinations or None)
    if session.json:
        output.document({"id": key.id, "key": text})
        return
    output.line(session, text)
    output.hint(session, "Keep it now: it is not shown again. `Authorization: Bearer KEY` sends it.")


@keys.command("list")
@click.pass_obj
def list_keys(session: Session) -> None:
    """All keys, newest first."""
    with session.service() as service:
        found = service.store.api_keys.list()
    if session.json:
        output.document([_document(key) for key in found])
    elif found:
        output.table(session, ("=name", "=may", "=destinations", "=created", "=revoked", "=id"), list(map(_row, found)))
    else:
        output.line(session, "there are no keys")
        output.hint(session, "`retl keys create --name N --scopes read,write,run` makes one.")


@keys.command()
@click.argument("key_id", metavar="ID")
@click.pass_obj
def revoke(session: Session, key_id: str) -> None:
    """Let a key do nothing any more, from now on."""
    with session.service() as service:
        key = service.store.api_keys.revoke(with_prefix(key_id, KEY_PREFIX), actor())
    if session.json:
        output.document(_document(key))
    else:
        output.line(session, ("✓ ", "green"), f"{key.name} is revoked")


def _scopes(text: str) -> frozenset[Scope]:
    known = [scope.value for scope in Scope]
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'} is no scope; there are: {', '.join(known)}")
    return frozenset(map(Scope, names))


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "destinations": None if key.destinations is None else sorted(key.destinations),
        "created_at": words.rfc3339(key.created_at),
        "created_by": key.created_by,
        "revoked_at": words.rfc3339(key.revoked_at),
    }


def _row(key: ApiKey) -> list[RenderableType]:
    reach = "all" if key.destinations is None else ", ".join(sorted(key.destinations))
    revoked = words.clock(key.revoked_at) if key.revoked_at else Text("–", style="dim")
    scopes = Text(", ".join(sorted(key.scopes)))
    return [words.name(key.name), scopes, Text(reach), words.clock(key.created_at), revoked, Text(key.id)]
