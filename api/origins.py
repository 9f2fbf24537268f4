"""Which host names the server answers to, and which pages may send it changes.

The Host check defeats DNS rebinding (a foreign name that suddenly points here), the Origin check
defeats pages elsewhere that make a visitor's browser act for them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Origins:
    """The names of one server. `beyond` when it listens beyond loopback."""

    def __init__(self, names: Iterable[str] = (), *, beyond: bool = False) -> None:
        self._names = {name.lower() for name in names}
        self._beyond = beyond
        self._own = {socket.gethostname().lower()} if beyond else set()
        self._own |= {f"{name}.local" for name in self._own}

    def add(self, name: str) -> None:
        """Answer to one more name (a public link that was just made)."""
        self._names.add(name.lower())

    def host_problem(self, headers: Mapping[str, str]) -> str | None:
        """Why a request's Host is refused; None when it is fine."""
        host = headers.get("host", "")
        name = _name(host)
        if name and self._answers_to(name):
            return None
        return (
            f"this server does not answer to the host {host[:200]!r}; "
            "start it with --allow-host NAME to add a name"
        )

    def origin_problem(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Why a changing request is refused, judged by the page it comes from."""
        if method not in CHANGES:
            return None
        origin = headers.get("origin")
        if origin is None:
            site = headers.get("sec-fetch-site", "none")
            return (
                None
                if site in ("same-origin", "none")
                else "requests from other sites change nothing here"
            )
        parts = _split(origin)
        if parts and parts[1] == headers.get("host", "").lower().strip():
            return None
        if parts and _name(parts[1]) in self._names:
            return None  # behind a proxy that hands on another Host
        return f"requests from the page {origin[:200]!r} change nothing here"

    def _answers_to(self, name: str) -> bool:
        if name in LOOPBACK_NAMES or name in self._names or name in self._own:
            return True
        # An address is not a name: it cannot be rebound.
        return self._beyond and _is_address(name)


def _split(origin: str) -> tuple[str, str] | None:
    """Scheme and host[:port] of an Origin, without the scheme's default port."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, name if port in (None, default) else f"{name}:{port}"


def _name(host: str) -> str:
    """`[::1]:7860` -> `::1`; empty when it is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
