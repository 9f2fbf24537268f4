"""What a program and all it started take of the machine, seen from outside of the sandbox.

Limits of a single process are the kernel's business (`tools/confine.py`); their sum is not.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tools import workspace


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, seconds and counts. `folder` and `files` hold for all a program leaves on the disk."""

    memory: int = 4 << 30
    cpu: int = 600
    file_size: int = 50 << 20
    processes: int = 64
    folder: int = 256 << 20
    files: int = 5_000


USUAL = Limits()


def children(pid: int) -> list[psutil.Process]:
    """All living processes below this one."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return [child for child in found if alive(child)]


def too_much(pid: int, folders: list[Path], limits: Limits) -> str:
    """The limit that is passed, in one sentence; empty for none."""
    memory = resident(pid) + sum(resident(child.pid) for child in children(pid))
    if memory > limits.memory:
        return f"the code and its processes used more than {limits.memory >> 20} MiB of memory"
    for folder in folders:
        size, count = workspace.usage(folder, limits.files)
        if size > limits.folder or count >= limits.files:
            return (
                f"the files of the conversation take more than {limits.folder >> 20} MiB "
                f"or are more than {limits.files}"
            )
    return ""


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a sandbox and all in it, at any moment, and bury it. May be called again.

    One that is still being set up does not yet take its children along, so it is held first.
    """
    if process.poll() is None:
        if hasattr(signal, "SIGSTOP"):
            process.send_signal(signal.SIGSTOP)
            stopped(process.pid)
        for child in children(process.pid):
            send(child, signal.SIGTERM if not hasattr(signal, "SIGKILL") else signal.SIGKILL)
        process.kill()
    process.wait()


def stopped(pid: int, seconds: float = 1.0) -> None:
    """Wait until a process that was told to stop does: until then it may still start another."""
    at_rest = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    until = time.monotonic() + seconds
    with contextlib.suppress(psutil.Error):
        while psutil.Process(pid).status() not in at_rest and time.monotonic() < until:
            time.sleep(0.0005)


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def send(process: psutil.Process, number: int) -> None:
    """A signal; to nobody when the process has ended."""
    try:
        process.send_signal(number)
    except psutil.Error:
        return
