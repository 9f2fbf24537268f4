"""Which machine of a list this one is, and by which network it reaches the others. No torch.

Not covered: machines that reach each other by another network than the one their names stand for.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import psutil

ANY_PORT = 9  # nothing is sent to it


def own_names() -> tuple[str, ...]:
    """What a list may call this machine, besides its addresses."""
    name = socket.gethostname()
    return tuple(dict.fromkeys([name, name.partition(".")[0], socket.getfqdn()]))


def is_here(host: str) -> bool:
    """Whether an address, or that of a name, is one of this machine's."""
    for family, kind, protocol, _, address in _resolved(host):
        with socket.socket(family, kind, protocol) as tried:
            try:
                tried.bind((address[0], 0, *address[2:]))
            except OSError:
                continue
            return True
    return False


def interface_to(host: str) -> str:
    """The network interface by which a machine is reached; "" where it cannot be told."""
    for family, kind, protocol, _, address in _resolved(host):
        with socket.socket(family, kind, protocol) as tried:
            try:
                tried.connect(address)
            except OSError:
                continue
            own = ip_address(tried.getsockname()[0])
        if not own.is_loopback:
            return _interface_of(str(own))
    return ""


def _interface_of(own: str) -> str:
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == own for each in addresses):
            return name
    return ""


def _resolved(host: str) -> list[Any]:
    try:
        return socket.getaddrinfo(host, ANY_PORT, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):  # no name, or none that can be one
        return []
