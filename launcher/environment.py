"""Find or make the Python environment that has what requirements*.txt ask for.

The active environment is used when it satisfies them; else `.venv` beside launch.py, made once
and brought up to date when a requirements file changes. Standard library only.

`.venv/launch-stamp.json` (hashes of the requirements, Python, platform) is written after pip
succeeded. `.venv/launch-installing` lies there while pip writes: found at a start, it tells that
an install was killed in the middle, and the environment is made anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher import pip, requirements
from launcher.lock import locked
from launcher.options import ROOT
from launcher.problems import NoDisk, NotWritable, NoVenv

ROOM = 2 * 1024**3  # bytes; the CPU environment takes 1.9 GB
PROBE = (
    "import sys, sysconfig, pip; print('.'.join(map(str, sys.version_info[:3])), "
    "sysconfig.get_platform(), sysconfig.get_path('purelib'), sep='\\n')"
)


@dataclass(frozen=True)
class Probe:
    """What an environment's interpreter says of itself."""

    version: str
    platform: str
    site_packages: Path


class Environment:
    """The `.venv` folder of a project and its state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.python = folder / scripts / ("python.exe" if os.name == "nt" else "python")
        self.stamp = folder / "launch-stamp.json"
        self.installing = folder / "launch-installing"
        self.log = folder / "launch-install.log"

    def probe(self) -> Probe | None:
        """None when there is no interpreter, it does not run, or it has no pip."""
        try:
            done = subprocess.run(
                [str(self.python), "-I", "-c", PROBE], capture_output=True, text=True, timeout=60
            )
            version, platform, site = done.stdout.split("\n")[:3]
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None
        return Probe(version, platform, Path(site))

    def ready(self, files: Sequence[Path]) -> bool:
        """Whether everything `files` ask for is there, and was installed to the end."""
        if self.installing.exists() or not self.python.exists():
            return False
        probe = self.probe()
        if probe is None or self._stamped() != self._wanted(files, probe):
            return False
        return not requirements.missing(requirements.read(files), probe.site_packages)

    def bring_up_to_date(self, files: Sequence[Path]) -> None:
        """Make the folder when needed and run pip. Raises NoVenv, NoDisk, NoNetwork, PipFailed."""
        if self.installing.exists():
            say(f"the last install into {self.folder} was interrupted; making it anew")
            shutil.rmtree(self.folder)
        probe = self.probe()
        if probe is None or not self._fits_here(probe):
            self._make()
            probe = self.probe()
        if probe is None:
            raise NoVenv(f"the Python in {self.folder} does not run; delete the folder")
        self._install(files, probe)

    def _fits_here(self, probe: Probe) -> bool:
        """A folder copied from another machine, or whose Python was replaced, does not."""
        known = self._stamped()
        same = not known or (known["python"], known["platform"]) == (probe.version, probe.platform)
        return same and sysconfig.get_platform() == probe.platform

    def _make(self) -> None:
        say(f"making the Python environment {self.folder}")
        command = [sys.executable, "-m", "venv", "--clear", str(self.folder)]
        if keeps_torch_of_this_python():
            say("the torch of this Python is kept")
            command.insert(3, "--system-site-packages")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return
        text = done.stdout + done.stderr
        shutil.rmtree(self.folder, ignore_errors=True)
        if any(sign in text.lower() for sign in pip.FULL):
            raise NoDisk(f"no room to make {self.folder}: the disk is full")
        if "No module named venv" in text or "ensurepip" in text:
            package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
            raise NoVenv(
                f"this Python ({sys.executable}) comes without the venv module; install it "
                f"(Debian and Ubuntu: sudo apt install {package}) or use another Python"
            )
        last = text.strip().splitlines()[-1] if text.strip() else "no output"
        raise NoVenv(f"making {self.folder} failed: {last}")

    def _install(self, files: Sequence[Path], probe: Probe) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < ROOM and not self._stamped():
            raise NoDisk(
                f"{free // 1024**2} MB are free on the disk of {self.folder} and installing needs "
                f"about {ROOM // 1024**2} MB: make room and start again"
            )
        say("installing the packages (once, about 2 GB; Ctrl-C stops)")
        wanted = self._wanted(files, probe)
        self.installing.touch()
        self.stamp.unlink(missing_ok=True)
        failed_cleanly = False
        try:
            with pip_arguments(files, probe.site_packages) as arguments:
                pip.install(self.python, arguments, self.log)
        except (NoDisk, KeyboardInterrupt, SystemExit):
            raise  # pip may have been stopped between two files: the mark stays
        except Exception:
            failed_cleanly = True
            raise
        finally:
            if failed_cleanly:
                self.installing.unlink(missing_ok=True)
        written = self.stamp.with_suffix(".new")
        written.write_text(json.dumps(wanted), encoding="utf-8")
        written.replace(self.stamp)
        self.installing.unlink(missing_ok=True)

    def _wanted(self, files: Sequence[Path], probe: Probe) -> dict[str, str]:
        about = {"python": probe.version, "platform": probe.platform}
        known = self._stamped()
        kept = {name: known[name] for name in known if name.startswith("requirements")}
        return {**about, **kept, **{path.name: requirements.digest(path) for path in files}}

    def _stamped(self) -> dict[str, str]:
        try:
            found = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def find(files: Sequence[Path], root: Path = ROOT) -> Path:
    """The interpreter to run with; prepares `.venv` where needed.

    Raises a Problem with the sentence for the user.
    """
    if not requirements.missing(requirements.read(files)):
        return Path(sys.executable)
    environment = Environment(root / ".venv")
    if environment.ready(files):
        return environment.python
    try:
        with locked(root / ".venv.lock", lambda: say("another launch is installing; waiting")):
            if not environment.ready(files):
                environment.bring_up_to_date(files)
    except PermissionError as error:
        raise NotWritable(
            f"cannot write {error.filename or root}: give yourself the right to, or put the "
            "program into a folder of your own"
        ) from error
    except OSError as error:
        if error.errno == 28:
            raise NoDisk(f"the disk of {root} is full: make room and start again") from error
        raise
    return environment.python


def keeps_torch_of_this_python() -> bool:
    """Whether this (not virtual) Python has an accelerator build of torch that fits."""
    version = requirements.installed(["torch"]).get("torch", "")
    return sys.prefix == sys.base_prefix and requirements.accelerated(version)


@contextlib.contextmanager
def pip_arguments(files: Sequence[Path], site_packages: Path) -> Iterator[list[str]]:
    """`-r` arguments; a user's own torch that fits is named as it is, so that pip keeps it."""
    own = requirements.installed(["torch"], site_packages).get("torch", "")
    if not own and keeps_torch_of_this_python():
        own = requirements.installed(["torch"])["torch"]
    if not requirements.accelerated(own):
        yield [argument for path in files for argument in ("-r", str(path))]
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            f"torch=={own}" if line.startswith("torch==") else line
            for path in files
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        merged = Path(folder) / "requirements.txt"
        merged.write_text("\n".join(lines), encoding="utf-8")
        yield ["-r", str(merged)]


def is_current(python: Path) -> bool:
    """Whether `python` is the interpreter that runs now."""
    folder = python.parent.parent
    return python == Path(sys.executable) or Path(sys.prefix).resolve() == folder.resolve()


def hand_over(python: Path, argv: Sequence[str]) -> int:
    """Run launch.py again with another interpreter; on POSIX this process becomes it."""
    command = [str(python), str(ROOT / "launch.py"), *argv]
    if os.name != "nt":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(command[0], command)
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the child got it too and is ending


def say(sentence: str) -> None:
    """Progress for the person who started the program; results go to stdout."""
    print(sentence, file=sys.stderr, flush=True)
