"""Whether a path that somebody typed may be used: no tricks in it, and inside the allowed folders.

Whoever types a command may read and write where they may; the page passes `roots`, and outside
of those nothing is read or written, symbolic links followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

LONGEST = 255  # bytes of a name, on every usual file system
RUN_FILES = ("config.yaml", "command.json", "pid", "train.log")  # lie there before a run begins
BEGUN = ("checkpoints", "metrics.jsonl", "exit_code", "adapter")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHELL = re.compile(r"[;|&<>`\"'*?\\]|\$\(|\$\{")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z", re.IGNORECASE)


def path_problem(text: str, roots: Sequence[Path] = ()) -> str:
    """Why a path to read may not be used; "" when it may."""
    if _CONTROL.search(text):
        return "a path has no line breaks or other control characters"
    if text.startswith("-"):
        return f"a path that begins with - is taken for an option; write ./{text}"
    if any(len(os.fsencode(part)) > LONGEST for part in Path(text).parts):
        return f"a name in a path has at most {LONGEST} bytes"
    if roots and not inside(Path(text), roots):
        return f"it must lie in {' or '.join(map(str, roots))}"
    return ""


def new_path_problem(text: str, roots: Sequence[Path] = ()) -> str:
    """Why a folder may not be made; "" when it may."""
    if problem := path_problem(text, roots):
        return problem
    drive = os.name == "nt"
    if _SHELL.search(text.replace("\\", "/") if drive else text):
        return "a new folder's name has none of ; | & < > ` \" ' * ? \\ $( in it"
    if any(_DEVICE.match(part) for part in Path(text).parts):
        return "con, nul, com1 and the like are no names for folders on Windows"
    return ""


def inside(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path, links followed, lies in one of the folders."""
    real = path.expanduser().resolve()
    return any(real.is_relative_to(root.resolve()) for root in roots)


def run_folder_problem(text: str, resumes: bool, roots: Sequence[Path] = ()) -> str:
    """Why a run cannot be written to this folder; "" when it can."""
    if problem := new_path_problem(text, roots):
        return problem
    folder = Path(text).expanduser()
    if folder.exists() and not folder.is_dir():
        return "it is a file; name a folder"
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there & set(BEGUN):
        return "" if resumes else "a run is in it; --resume last goes on with that one"
    if there and not there & set(RUN_FILES):
        return "it is not empty, and what is in it is no run"
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        return f"you may not write in {parent}"
    return ""
