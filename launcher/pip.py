"""Run pip so that a person sees how far it is, and gets one sentence when it fails.

The whole output goes to a log file. Does not retry: pip does that itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from launcher.problems import NoDisk, NoNetwork, PipFailed, Problem

FULL = ("no space left on device", "errno 28", "not enough space on the disk", "disk quota")
OFFLINE = (
    "temporary failure in name resolution",
    "name or service not known",
    "nodename nor servname",
    "getaddrinfo failed",
    "newconnectionerror",
    "failed to establish a new connection",
    "network is unreachable",
    "connection refused",
    "connecttimeout",
    "read timed out",
    "proxyerror",
    "there was a problem confirming the ssl certificate",
)


def install(python: Path, arguments: Sequence[str], log: Path) -> None:
    """`python -m pip install arguments`, with progress on stderr.

    Raises NoDisk, NoNetwork or PipFailed. Ends pip when this process is asked to end.
    """
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", *arguments]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}  # else progress comes in blocks of 8 KB
    lines: list[str] = []
    show = Progress(sys.stderr)
    with (
        open(log, "a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environ,
        ) as process,
    ):
        file.write(f"$ {' '.join(command)}\n")
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines.append(line.strip())
                show.line(line.strip())
            code = process.wait()
        finally:
            show.close()
            if process.poll() is None:
                process.terminate()
    if code:
        raise explain(lines, log)


def explain(lines: Sequence[str], log: Path) -> Problem:
    """The sentence for a failed install, from what pip printed."""
    text = "\n".join(lines).lower()
    if any(sign in text for sign in FULL):
        return NoDisk(
            "the disk ran full while installing; the environment needs about 2 GB "
            "(up to 7 GB with CUDA): make room and start again"
        )
    if any(sign in text for sign in OFFLINE):
        return NoNetwork(
            "pip cannot reach its package index, and the packages are needed once: check the "
            f"network, or set a mirror with 'pip config set global.index-url URL' (log: {log})"
        )
    errors = [line for line in lines if line.startswith("ERROR:")] or list(lines[-1:])
    reason = errors[0].removeprefix("ERROR:").strip() if errors else "no output"
    return PipFailed(f"pip failed: {reason} (log: {log})")


class Progress:
    """One line that is rewritten on a terminal, with a clock; a line per step elsewhere."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._began = clock()
        self._text, self._packages = "asking pip", 0
        self._done = threading.Event()
        self._ticker: threading.Thread | None = None
        if stream.isatty():
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def line(self, line: str) -> None:
        """Take in one line of pip's output."""
        if line.startswith(("Collecting ", "Processing ")):
            self._packages += 1
            self._text = f"package {self._packages}: {line.split()[1].rpartition('/')[2]}"
            return
        if line.startswith("Installing collected"):
            self._text = f"unpacking {line.count(',') + 1} packages (about a minute)"
        elif line.startswith(("Downloading ", "Building wheel")):
            self._text = f"package {self._packages}: {_short(line)}"
        else:
            return
        if self._ticker is None:
            self._stream.write(f"  {self._text}\n")
            self._stream.flush()

    def close(self) -> None:
        self._done.set()
        if self._ticker:
            self._ticker.join()
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _tick(self) -> None:
        while not self._done.wait(0.2):
            seconds = int(self._clock() - self._began)
            text = f"  {seconds // 60}:{seconds % 60:02d}  {self._text}"[:78]
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()


def _short(line: str) -> str:
    """`Downloading torch-2.13.0-cp311-....whl (216 MB)` without the path and the tags."""
    match = re.match(r"Downloading (?:\S*/)?([^-\s]+-[^-\s]+)\S*( \(.*\))?", line)
    return f"downloading {match[1]}{match[2] or ''}" if match else line[:60]
