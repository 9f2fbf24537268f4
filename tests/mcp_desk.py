"""An operator's desk for tests of MCP: a folder with mcp.json, a registry, servers that end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glm.messages import ToolCall, ToolResult
from tools.mcp import Offer, Servers
from tools.registry import Cancel, Context, Registry

HERE = Path(__file__).resolve().parent
PLAIN = {"command": sys.executable, "args": [str(HERE / "mcp_plain_server.py")]}
SECRET = "hunter2-secret"


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What the condition says once it says something; fails after `seconds`."""
    ends, pause = time.monotonic() + seconds, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < ends, "waited too long"
        pause.wait(0.02)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Desk:
    """`folder` is the servers' working folder, too."""

    def __init__(self, folder: Path, **entries: Any) -> None:
        self.folder = folder
        self.write(**(entries or {"plain": {**PLAIN, "env": {"SERVER_SETTING": SECRET}}}))
        self.registry = Registry()
        self.servers = self.open()

    def open(self) -> Servers:
        return Servers(self.folder / "mcp.json", self.folder / "kept", self.registry)

    def restart(self) -> None:
        """As after the program has ended and started again."""
        self.servers.close()
        self.registry = Registry()
        self.servers = self.open()

    def write(self, **entries: Any) -> None:
        (self.folder / "mcp.json").write_text(json.dumps({"mcpServers": entries}))

    def offer(self, tool: str, server: str = "plain") -> Offer:
        """What the server says of a tool now."""
        offers = self.servers.refresh(server)
        return next(offer for offer in offers if offer.definition.name == tool)

    def approve(self, *tools: str, server: str = "plain") -> None:
        self.servers.refresh(server)
        for offer in self.servers.offers(server):
            if offer.definition.name in tools:
                self.servers.approve(server, offer.definition.name, offer.definition.digest)

    def names(self) -> list[str]:
        return [tool.name for tool in self.registry.tools()]

    def call(self, name: str, stop: Cancel | None = None, /, **arguments: Any) -> ToolResult:
        context = Context("ann", "c1", self.folder)
        box = self.registry.toolbox(self.names(), context)
        return box.call(ToolCall(name, arguments), stop or Cancel())

    def describe(self, text: str) -> None:
        """What `echo` says of itself from now on."""
        (self.folder / "description.txt").write_text(text, encoding="utf-8")

    def started(self) -> int:
        return int((self.folder / "started.txt").read_text())

    def child(self) -> int:
        """The pid of the child that a tool of the server started."""
        file = self.folder / "child.pid"
        return int(until(lambda: file.exists() and file.read_text()))
