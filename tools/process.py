"""A call in a process of its own, which ends with everything it started.

`ask` starts `tools/child.py`, sends one request as a line of JSON, reads one line back and kills
the child with all its descendants: after the answer, at the time limit, on cancel, and (by the
child itself) when the program has gone. What the tool prints is thrown away; an answer that is
too long is not read. The environment holds no key and no setting of the program.

This is no sandbox: the child has the rights of the program (files, network, memory). On systems
other than Linux a descendant that leaves the process tree is found only by its environment.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from glm.cancel import Cancel
from glm.errors import ToolError
from tools import scratch

CHILD = Path(__file__).resolve().parent / "child.py"
MAX_REPLY = 16 * 2**20  # bytes of an answer: its text is short, its pictures are not
MARK = "GLM_TOOL_CALL"
KILL_SECONDS = 2.0
NO_RESULT = "the tool's process answered with something that is no result"
_KEPT = ("PATH", "TZ", "SYSTEMROOT", "COMSPEC", "PATHEXT", "WINDIR")


def ask(request: Mapping[str, Any], cancel: Cancel, folder: Path | None = None) -> dict[str, Any]:
    """The answer of a fresh child to one request; it works in `folder`, or in an empty one.

    Raises ToolError when it was ended, died, or answered with something else than `child.py` does.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(
            dir=scratch.folder(), prefix="tool-", ignore_cleanup_errors=True
        ) as empty:
            return ask(request, cancel, Path(empty))
    child = Child(folder)
    try:
        cancel.on_set(child.kill)
        line = child.exchange(json.dumps(request).encode("ascii") + b"\n")
    finally:
        code = child.end()
    if cancel.is_set():
        raise ToolError("the tool was stopped")
    if not line:
        raise ToolError(f"the tool's process ended without an answer ({_ending(code)})")
    return _reply(line)


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _reply(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_REPLY:
        raise ToolError(f"the tool answered with more than {MAX_REPLY // 2**20} MB")
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ToolError(NO_RESULT) from error
    if not isinstance(reply, dict):
        raise ToolError(NO_RESULT)
    if "error" in reply:
        raise ToolError(str(reply["error"]))
    return reply


def environment(mark: str, folder: Path) -> dict[str, str]:
    """What a child is told of this machine."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    home = str(folder)
    return {**kept, MARK: mark, "HOME": home, "TMPDIR": home, "TEMP": home, "LANG": "C.UTF-8"}


class Child:
    """A running `child.py` in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self._mark = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._over = False
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-u", "-X", "utf8", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment(self._mark, folder.resolve()),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def exchange(self, line: bytes) -> bytes:
        """One line there, one line back; b"" when the child ended first.

        The pipe to the child stays open: its end tells the child that the program has gone.
        """
        assert self._process.stdin and self._process.stdout
        with suppress(OSError):  # it was killed; then there is nothing to read either
            self._process.stdin.write(line)
            self._process.stdin.flush()
        return self._process.stdout.readline(MAX_REPLY + 1)

    def end(self) -> int:
        """Kill what still runs, let the process go, and return its exit code."""
        self.kill()
        with self._lock:
            self._over = True
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was written and never read
                assert pipe is not None
                pipe.close()
        return self._process.wait()

    def kill(self) -> None:
        """End the child and all its descendants; they are gone when this returns.

        Until `end` the child is not reaped, so that its id cannot be another process's.
        """
        with self._lock:
            end = time.monotonic() + KILL_SECONDS
            while not self._over and (members := list(self._members())):
                for member in members:
                    with suppress(psutil.Error):
                        member.kill()
                if time.monotonic() > end:
                    break
                time.sleep(0.002)

    def _members(self) -> Iterator[psutil.Process]:
        """What of this call is alive: descendants, and what carries the mark of the call."""
        below: set[int] = {self.pid}
        with suppress(psutil.Error):
            below |= {item.pid for item in psutil.Process(self.pid).children(recursive=True)}
        for item in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                mine = item.pid in below or self._carries_mark(item)
                if mine and item.status() != psutil.STATUS_ZOMBIE:
                    yield item

    def _carries_mark(self, item: psutil.Process) -> bool:
        return bool(item.environ().get(MARK) == self._mark)
