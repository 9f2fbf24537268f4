"""Commands as they can be typed where this runs: their Python, folder and quotes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from finetune.scripts import ROOT


def command(*words: str) -> str:
    """A command line of this program for the present folder, be it another than the program's."""
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    line = join([_python(), *words])
    return line if Path.cwd() == ROOT else f"cd {join([str(ROOT)])} && {line}"


def place(name: str | Path) -> str:
    """A file or folder named from the present one, for such a command; other words as they are."""
    inside = Path.cwd() == ROOT or not Path(name).exists()
    return str(name) if inside else str(Path(name).absolute())


def _python() -> str:
    """`python` where a shell finds this one, else its path."""
    own, found = Path(sys.executable), shutil.which("python")
    if found and Path(found).parent == own.parent:
        return "python"
    return str(own.relative_to(ROOT) if own.is_relative_to(ROOT) else own)
