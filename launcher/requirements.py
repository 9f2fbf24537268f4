"""What requirements*.txt ask for, and whether an environment has it. Standard library only.

Understands exactly the lines these files use: `name==version`, with an optional
`; sys_platform == "linux"`. A local build of the wanted version (`2.13.0+cpu`) satisfies it.
torch may also be another build of a user's own, when its version fits `TORCH_RANGE`.
Only direct dependencies are looked at; pip looks after the rest.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# Older torch has holes in weights_only loading (CVE-2026-24747); newer majors are untested.
TORCH_RANGE = ((2, 10), (3,))
LINE = re.compile(
    r"""(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)"""
    r"""\s*(;\s*sys_platform\s*(?P<op>==|!=)\s*["'](?P<platform>\w+)["'])?"""
)


@dataclass(frozen=True)
class Requirement:
    """One pinned package."""

    name: str
    version: str

    def met_by(self, installed: str | None) -> bool:
        if installed is None:
            return False
        if self.name == "torch" and fits(installed):
            return True
        public = installed if "+" in self.version else installed.partition("+")[0]
        return public == self.version


def read(files: Iterable[Path]) -> list[Requirement]:
    """The requirements of this platform, in order; ValueError names a line that is none."""
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = line.partition("#")[0].strip()
            if not line:
                continue
            match = LINE.fullmatch(line)
            if not match:
                raise ValueError(f"{path.name} line {number}: write name==version, not {line!r}")
            if match["op"] and (match["op"] == "==") != (sys.platform == match["platform"]):
                continue
            found.append(Requirement(normal(match["name"]), match["version"]))
    return found


def fits(torch_version: str) -> bool:
    """Whether this torch is in the supported range, whoever built it."""
    numbers = re.match(r"(\d+)\.(\d+)(\.\d+)?(\+.*)?$", torch_version)
    if not numbers:
        return False  # nightlies and release candidates are not promised to work
    low, high = TORCH_RANGE
    return low <= (int(numbers[1]), int(numbers[2])) < high


def accelerated(torch_version: str) -> bool:
    """Whether this is somebody's own build for an accelerator (`2.12.1+cu128`) that fits."""
    label = torch_version.partition("+")[2]
    return label.startswith(("cu", "rocm", "xpu")) and fits(torch_version)


def missing(wanted: list[Requirement], site_packages: Path | None = None) -> list[Requirement]:
    """The requirements that this interpreter, or that site-packages folder, does not meet."""
    versions = installed((item.name for item in wanted), site_packages)
    return [item for item in wanted if not item.met_by(versions.get(item.name))]


def installed(names: Iterable[str], site_packages: Path | None = None) -> dict[str, str]:
    """Versions of these packages in this interpreter, or in another environment's site-packages."""
    path = sys.path if site_packages is None else [str(site_packages)]
    versions: dict[str, str] = {}
    for name in names:
        for found in metadata.distributions(name=name, path=path):
            if found.metadata["Name"]:  # None in the remains of an interrupted install
                versions.setdefault(name, found.version)
    return versions


def normal(name: str) -> str:
    """PEP 503: `Huggingface.Hub` and `huggingface_hub` are one name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(path: Path) -> str:
    """What an install stamp remembers of a file; line endings do not count."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
