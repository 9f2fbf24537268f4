"""Two machines that see each other by one cable and nothing else: Linux namespaces on this one.

Each has its own network, host name and /etc/hosts; disk and processors are shared. Needs Linux,
iproute2 and util-linux, and root or unprivileged user namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.shared_files import ROOT

NAMES = ("node0", "node1")
ADDRESSES = ("10.0.0.1", "10.0.0.2")
CABLE = "cable"
OWN = ("--net", "--uts", "--mount")
NEEDED = ("ip", "unshare", "nsenter", "mount", "hostname")
# Ends with its standard input, so with whoever made it; so do the namespaces.
HOLD = ("sh", "-c", "echo; exec cat")


@dataclass(frozen=True)
class Host:
    """A process that holds the namespaces."""

    pid: int
    enter: tuple[str, ...]

    def run(self, *words: str) -> None:
        done = subprocess.run([*self.enter, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start(self, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                [*self.enter, *words],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def missing() -> str:
    """Why there can be no two machines here; "" where there can."""
    if absent := [name for name in NEEDED if not shutil.which(name)]:
        return f"{', '.join(absent)} not installed (Debian: iproute2, util-linux)"
    done = subprocess.run(["unshare", *_rootless(), *OWN, "true"], capture_output=True, text=True)
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else ""


@contextmanager
def two_hosts(folder: Path, named: bool) -> Iterator[tuple[Host, Host]]:
    """node0 and node1. If not `named`, each knows only its own name, as loopback: Debian's way."""
    known = zip(ADDRESSES if named else ("127.0.1.1", "127.0.1.1"), NAMES, strict=True)
    other = dict(zip(NAMES, reversed(NAMES), strict=True))
    lines = ["127.0.0.1 localhost", *map(" ".join, known)]
    with ExitStack() as held:
        first = held.enter_context(_host([], _rootless()))
        user = ["nsenter", "-t", str(first.pid), "--user", "--preserve-credentials"]
        second = held.enter_context(_host(user if _rootless() else [], ()))
        peer = ("peer", "name", CABLE, "netns", str(second.pid))
        first.run("ip", "link", "add", CABLE, "type", "veth", *peer)
        for host, name, address in zip((first, second), NAMES, ADDRESSES, strict=True):
            host.run("hostname", name)
            file = folder / f"hosts-of-{name}"
            mine = [line for line in lines if named or not line.endswith(other[name])]
            file.write_text("\n".join(mine) + "\n", encoding="utf-8")
            host.run("mount", "--bind", str(file), "/etc/hosts")
            host.run("ip", "addr", "add", f"{address}/24", "dev", CABLE)
            host.run("ip", "link", "set", CABLE, "up")
            host.run("ip", "link", "set", "lo", "up")
        yield first, second


def finish(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int]:
    """Their exit codes; what still runs then is ended, with all it started."""
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _rootless() -> tuple[str, ...]:
    return () if os.geteuid() == 0 else ("--user", "--map-root-user")


@contextmanager
def _host(within: Sequence[str], flags: Sequence[str]) -> Iterator[Host]:
    words = [*within, "unshare", *flags, *OWN, *HOLD]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        user = ("--user", "--preserve-credentials") if _rootless() else ()
        enter = ("nsenter", "-t", str(process.pid), *user, *OWN, "--wd")
        yield Host(process.pid, enter)
