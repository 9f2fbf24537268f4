"""A share server on loopback, and the tunnel program that talks to it.

The real ones (frps, frpc) are downloads. `run_server` takes visitors on one port and hands them
to a client; this file run as a program is that client, with frpc's arguments and its words.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

PUBLIC = "abc123.share.test"


@contextmanager
def run_server() -> Iterator[tuple[int, int]]:
    """Ports for clients and for visitors. A client keeps one idle connection for each visitor."""
    with listening() as clients, listening() as visitors:
        serving = threading.Thread(target=_serve, args=(clients, visitors))
        serving.start()
        try:
            yield clients.getsockname()[1], visitors.getsockname()[1]
        finally:
            for listener in (clients, visitors):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            serving.join()


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(32)
    return listener


def _serve(clients: socket.socket, visitors: socket.socket) -> None:
    with suppress(OSError):
        while True:
            visitor, _ = visitors.accept()
            with suppress(OSError):
                client, _ = clients.accept()
                join(visitor, client)
                continue
            visitor.close()


def join(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until both sides have ended, in threads."""

    def both() -> None:
        with one, other:
            there = threading.Thread(target=_copy, args=(one, other))
            there.start()
            _copy(other, one)
            there.join()

    threading.Thread(target=both, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def install_client(home: Path) -> None:
    """Put this file where Gradio looks for frpc, with HF_HOME set to `home`."""
    from gradio.tunneling import BINARY_FILENAME

    place = home / "gradio" / "frpc" / BINARY_FILENAME
    place.parent.mkdir(parents=True)
    place.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text(encoding="utf-8"))
    place.chmod(0o755)


def client(arguments: list[str]) -> None:
    """`frpc http -n TOKEN -l PORT -i HOST --server_addr HOST:PORT ...`"""
    given = dict(pairwise(arguments))
    host, _, port = given["--server_addr"].partition(":")
    print(f"start proxy success: http://{PUBLIC}", flush=True)
    while True:
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            return
        first = server.recv(65536)  # blocks until the server has a visitor for this connection
        local = socket.create_connection((given["-i"], int(given["-l"])))
        local.sendall(first)
        join(server, local)


if __name__ == "__main__":
    if "FRPC_FAILS" in os.environ:
        print("login to server failed: no", flush=True)
        sys.exit(1)
    client(sys.argv[1:])
