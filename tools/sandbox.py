"""Which isolation this machine offers, and how a program is started in it.

A program sees its conversation's folder, the system's libraries and Python, nothing else: no
network, no other process, no variable of ours. Memory, CPU seconds, file size and the number of
processes are limited, and all it started ends with it. `probe` tries the isolation before it is
trusted. Not promised: a defence against a hole in the Linux kernel, which host and program share.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tools import landlock, scratch, watch
from tools.watch import USUAL, Limits

Kind = Literal["bubblewrap", "landlock", "none", "off"]
Want = Literal["auto", "bubblewrap", "landlock", "none", "off"]
ROOT = Path(__file__).resolve().parent.parent
CONFINE, LANDLOCK = ROOT / "tools/confine.py", ROOT / "tools/landlock.py"
DATA = "/mnt/data"  # where ChatGLM3 expects the files of a conversation
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
SETTINGS = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
    "/etc/fonts",
    "/var/cache/fontconfig",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
FIRST_USER, USERS = 61_200, 4_000  # uids that no distribution gives to people
SCRATCH = 64 << 20

CHECK = """
import socket, sys
def fails(act):
    try:
        act()
    except OSError:
        return True
port = ("127.0.0.1", int(sys.argv[2]))
if not fails(lambda: open(sys.argv[1]).close()):
    sys.exit("it can read files outside its folder")
fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", port))
if not fails(lambda: socket.create_connection(port, 5).close()):
    sys.exit("it can reach the network")
open("written", "w").close()
print("isolated")
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A program and what it may see: its working `folder`, and `private` under its own path,
    both to write; `read` only to read."""

    program: tuple[str, ...]
    folder: Path
    private: Path | None = None
    read: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The isolation in force: one word, one sentence, and the way to start a program in it."""

    kind: Kind
    sentence: str
    limits: Limits = USUAL

    @property
    def isolated(self) -> bool:
        return self.kind in ("bubblewrap", "landlock")

    def inside(self, folder: Path) -> str:
        """The path by which a program knows its folder."""
        return DATA if self.kind == "bubblewrap" else str(folder.resolve())

    def command(self, job: Job) -> list[str]:
        """The command line. Raises RuntimeError when nothing may be started."""
        if self.kind == "off":
            raise RuntimeError(self.sentence)
        uid = user_of(job.folder) if self.isolated and is_root() else None
        wanted = {**asdict(self.limits), "uid": uid if self.kind == "bubblewrap" else None}
        confined = [sys.executable, "-I", "-S", str(CONFINE), json.dumps(wanted), *job.program]
        if self.kind == "bubblewrap":
            return [*bubblewrap(job, uid), "--", *confined]
        if self.kind == "landlock":
            rules = json.dumps(landlock_rules(job, uid))
            return [sys.executable, "-I", "-S", str(LANDLOCK), rules, *confined]
        return confined

    def environment(self, job: Job) -> dict[str, str]:
        """All a program learns from its variables; nothing of ours is among them."""
        home = "/tmp" if self.kind == "bubblewrap" else str((job.private or job.folder).resolve())
        return {
            "HOME": home,
            "TMPDIR": home,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            **({"SYSTEMROOT": os.environ.get("SYSTEMROOT", "")} if os.name == "nt" else {}),
            **job.environment,
        }

    def start(self, job: Job, **streams: Any) -> subprocess.Popen[bytes]:
        """Start it. The thread that calls must live as long as the program: it dies with it.

        `watch.end` ends it at any moment."""
        give(job)
        return subprocess.Popen(
            self.command(job),
            cwd=job.folder,
            env=self.environment(job),
            start_new_session=True,
            close_fds=True,
            **streams,
        )


def probe(want: Want = "auto", limits: Limits = USUAL, data: Path | None = None) -> Sandbox:
    """The best isolation that works here; "off" when none does.

    `want` is the operator's word: one of the two by name, "none" to run without, or "off".
    `data` is the folder that no program may read.
    """
    if want == "off":
        return Sandbox("off", "The operator has turned it off.", limits)
    if want == "none":
        return Sandbox("none", sentence("none", limits), limits)
    reasons = []
    for kind in ("bubblewrap", "landlock") if want == "auto" else (want,):
        sandbox = Sandbox(kind, sentence(kind, limits), limits)
        reason = shows(kind, data) or why_not(sandbox)
        if not reason:
            return sandbox
        reasons.append(f"{kind}: {reason}")
    return Sandbox("off", f"No isolation works here ({'; '.join(reasons)}).", limits)


def sentence(kind: Kind, limits: Limits) -> str:
    """What is promised, in English."""
    held = (
        f"{limits.memory >> 20} MiB of memory, {limits.cpu} s of CPU, files of "
        f"{limits.file_size >> 20} MiB and {limits.processes} processes"
    )
    if kind == "none":
        return f"No isolation: programs have this server's own rights; at most {held}."
    return f"Programs see their own folder only, without a network; at most {held}."


def shows(kind: str, data: Path | None) -> str:
    """Why programs could read `data`, which lies among what everybody may read; else empty."""
    if data is None or not within(data.resolve(), readable()):
        return ""
    hidden = [ROOT, *(path for path in pythons_folders() if path.is_relative_to(ROOT))]
    inner = [place for place in hidden if data.resolve().is_relative_to(place)]
    if kind == "bubblewrap" and inner == [ROOT]:  # which it covers
        return ""
    return f"the data folder lies among the files of the system or of Python, in {data}"


def why_not(sandbox: Sandbox) -> str:
    """What does not work, in a few words; empty when a program was isolated as promised."""
    if sandbox.kind == "bubblewrap" and not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    if sandbox.kind == "landlock" and not landlock.version():
        return "this kernel has no Landlock"
    if sandbox.kind == "landlock" and any(ROOT.is_relative_to(path) for path in readable()):
        return f"this program lies among the files of the system, in {ROOT}"
    place = tempfile.TemporaryDirectory(dir=scratch.folder(), prefix="probe-")
    with place as name, two_ears() as (stream, datagram):
        folder, canary = Path(name, "own"), Path(name, "canary")
        folder.mkdir()
        canary.write_text("canary")
        os.chmod(name, 0o755)
        port = str(stream.getsockname()[1])
        program = (sys.executable, "-I", "-S", "-c", CHECK, str(canary), port)
        return tried(sandbox, Job(program, folder)) or heard(datagram)


@contextmanager
def two_ears() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP and a UDP socket on one port of this machine's loopback."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        stream.bind(("127.0.0.1", 0))
        stream.listen()
        datagram.bind(stream.getsockname())
        datagram.setblocking(False)
        yield stream, datagram


def heard(datagram: socket.socket) -> str:
    try:
        datagram.recv(1)
    except BlockingIOError:
        return ""
    return "it can send over the network (UDP)"


def tried(sandbox: Sandbox, job: Job) -> str:
    """Run the check; its complaint, or nothing."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with sandbox.start(job, **streams) as process:
            try:
                out, error = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                watch.end(process)
                return "it did not answer"
    except OSError as failure:
        return str(failure)
    if process.returncode == 0 and out.strip() == b"isolated":
        return ""
    lines = error.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else f"it ended with {process.returncode}"


def bubblewrap(job: Job, uid: int | None) -> list[str]:
    """bwrap and its options. As root no user namespace: its root would escape the process limit."""
    line = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session"]
    line += ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    line += ["--unshare-cgroup-try", "--cap-drop", "ALL"]
    if uid is None:
        line += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    else:
        for capability in ("SETUID", "SETGID", "SYS_RESOURCE"):
            line += ["--cap-add", f"CAP_{capability}"]
    line += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/dev/shm", "/tmp"):
        line += ["--perms", "1777", "--size", str(SCRATCH), "--tmpfs", place]
    line += shown()  # after /tmp, which would hide a program that lies below it
    line += bound("--ro-bind", CONFINE, CONFINE)
    for path in job.read:
        line += bound("--ro-bind", path, path)
    if job.private is not None:
        line += bound("--bind", job.private.resolve(), job.private.resolve())
    line += bound("--bind", job.folder.resolve(), Path(DATA))
    return [*line, "--chdir", DATA, "--remount-ro", "/dev", "--remount-ro", "/"]


def shown() -> list[str]:
    """Options for the system and for Python, without the repository where it lies among them."""
    line: list[str] = []
    for name in SYSTEM:
        if os.path.islink(name):
            line += ["--symlink", os.readlink(name), name]
        elif os.path.exists(name):
            line += ["--ro-bind", name, name]
    pythons = [path for path in pythons_folders() if not within(path, SYSTEM)]
    outer = [path for path in pythons if not path.is_relative_to(ROOT)]
    for path in outer:
        line += bound("--ro-bind", path, path)
    if within(ROOT, [*SYSTEM, *outer]):
        line += ["--perms", "0755", "--tmpfs", str(ROOT)]
    for path in pythons_folders():
        if path.is_relative_to(ROOT):
            line += bound("--ro-bind", path, path)
    for path, target in links_to_python():
        if not within(path, [*SYSTEM, *pythons]):
            line += [*parents(path), "--symlink", target, str(path)]
    for name in SETTINGS:
        line += bound("--ro-bind-try", Path(name), Path(name))
    return line


def bound(option: str, source: Path, target: Path) -> list[str]:
    """A bind, with the folders above it open to every user: bwrap would close them."""
    return [*parents(target), option, str(source), str(target)]


def parents(path: Path) -> list[str]:
    line: list[str] = []
    for folder in reversed(path.parents):
        if folder not in (Path("/"), Path("/tmp")) and not within(folder, SYSTEM):
            line += ["--perms", "0755", "--dir", str(folder)]
    return line


def within(path: Path, places: Iterable[str | Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def pythons_folders() -> tuple[Path, ...]:
    """This environment and the Python it was made from."""
    return tuple(dict.fromkeys((Path(sys.base_prefix).resolve(), Path(sys.prefix))))


def links_to_python() -> list[tuple[Path, str]]:
    """The links from sys.executable to the program itself."""
    links: list[tuple[Path, str]] = []
    path = Path(sys.executable)
    while path.is_symlink() and len(links) < 20:
        target = os.readlink(path)
        links.append((path, target))
        path = path.parent / target
    return links


def readable() -> list[Path]:
    """Folders and files everybody may read."""
    return [*(Path(path).resolve() for path in SYSTEM), *pythons_folders(), *map(Path, SETTINGS)]


def landlock_rules(job: Job, uid: int | None) -> dict[str, Any]:
    """What the Landlock starter is told."""
    write = [job.folder, *([job.private] if job.private else [])]
    return {
        "uid": uid,
        "read": [*map(str, readable()), str(CONFINE), *map(str, job.read)],
        "write": [*(str(path.resolve()) for path in write), *DEVICES],
    }


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def user_of(folder: Path) -> int:
    """The user that programs of this folder are, where we are root. The same one every time, so
    that they keep their files."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).digest()
    return FIRST_USER + int.from_bytes(digest[:4], "big") % USERS


def give(job: Job) -> None:
    """Where we are root, the folders become the program's own, or it could not write."""
    if not is_root():
        return
    uid = user_of(job.folder)
    for folder in (job.folder, job.private):
        if folder is not None:
            os.chown(folder, uid, uid, follow_symlinks=False)
