"""Addresses that a custom destination must not reach: link-local ones and the metadata services of clouds.

Whoever may write a destination's URL could read a machine's credentials there. Loopback and
private addresses are allowed: services in the house are what this connector is for.

A name is resolved before each request, its verdict kept for a moment. The name could resolve
differently when the connection is opened (DNS rebinding), and a proxy resolves by itself: where
destinations are written by strangers, filter outgoing traffic in the network too.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from dagster_retl.errors import DestinationError, ErrorCode

_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local; metadata of AWS, Azure, Google Cloud, ECS tasks
        "fe80::/10",  # link-local
        "fd00:ec2::254/128",  # AWS, IPv6
        "fd20:ce::254/128",  # Google Cloud, IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "192.0.0.192/32",  # Oracle Cloud
        "168.63.129.16/32",  # Azure WireServer
    )
)
_NAMES = frozenset(
    {"metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"}
)
_NAT64 = IPv6Network("64:ff9b::/96")
_VERDICT_SECONDS = 30.0


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside a mapped, 6to4 or NAT64 one."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def is_forbidden(text: str) -> bool:
    """Whether an IP address is link-local or a metadata service. Raises `ValueError` for other text."""
    address = _embedded(ip_address(text.partition("%")[0]))
    return any(address in network for network in _NETWORKS)


def _resolve(host: str) -> list[str]:
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (socket.gaierror, UnicodeError):
        return []  # nothing to refuse: opening the connection says what is wrong with the name


class AddressGuard:
    """Refuses requests to forbidden addresses; remembers verdicts on names for half a minute."""

    def __init__(self) -> None:
        self._allowed_until: dict[str, float] = {}

    def require_allowed(self, url: httpx.URL) -> None:
        """Raise `DestinationError` (`CONFIGURATION`) for an address that must not be contacted."""
        host = url.host.lower().rstrip(".")
        if self._allowed_until.get(host, 0.0) > time.monotonic():
            return
        if url.scheme not in ("http", "https"):
            raise _refusal(host, f"scheme {url.scheme!r}")
        reason = _objection(host)
        if reason:
            raise _refusal(host, reason)
        self._allowed_until[host] = time.monotonic() + _VERDICT_SECONDS


def _objection(host: str) -> str | None:
    if host in _NAMES:
        return "a cloud's metadata service"
    try:
        addresses = [host] if ip_address(host.partition("%")[0]) else []
    except ValueError:
        addresses = _resolve(host)
    forbidden = next((address for address in addresses if is_forbidden(address)), None)
    return f"address {forbidden}, which is link-local or a cloud's metadata service" if forbidden else None


def _refusal(host: str, reason: str) -> DestinationError:
    return DestinationError(
        f"requests to {host} are refused: {reason}",
        code=ErrorCode.CONFIGURATION,
        hint="Loopback and private addresses are allowed; link-local and metadata addresses never are.",
    )
