"""Ports that servers listen on."""

from __future__ import annotations

import socket

from dagster_retl.errors import ConfigurationError


def check_port(host: str, port: int, option: str) -> None:
    """Raises `ConfigurationError` when nobody can listen there. option: of the command line, that chooses another."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        # As servers do: a port whose last connections are still closing is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint=f"Choose another port with `{option}`."
            ) from None
