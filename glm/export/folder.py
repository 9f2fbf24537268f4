"""A folder that appears whole or not at all, under a name that is safe everywhere.

What is written goes to a hidden folder beside the target and is renamed when it is complete, so
that a kill or a full disk leaves no half export. Not promised: that the disk has the bytes when
the power fails.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm.errors import BadRequest, CheckpointError

_NAME = re.compile(r"[^\W_][\w.\- ]{0,99}\Z")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z", re.IGNORECASE)
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
FORGOTTEN = 3600.0  # seconds after which the hidden folder of a killed export is removed


def inside(root: str | Path, name: str) -> Path:
    """The folder `name` directly in `root`. Raises BadRequest for any name that is not plain."""
    if not _NAME.match(name) or _RESERVED.match(name) or name[-1] in ". ":
        raise BadRequest(
            f"{name[:60]!r} is no name for a folder; use letters, digits, spaces and . - _ "
            "(at most 100), beginning with a letter or digit"
        )
    return Path(root) / name


def place(target: str | Path) -> Path:
    """Where to write: the path, checked. Its folder must exist and it must not.

    Raises BadRequest for a bad name and CheckpointError for a bad place.
    """
    text = str(target)
    if "\0" in text:
        raise BadRequest(f"{text[:60]!r} is no path")
    path = Path(text).expanduser()
    path = inside(path.parent, path.name)
    if not path.parent.is_dir():
        raise CheckpointError(f"no folder at {path.parent}; make it first")
    if os.path.lexists(path):
        raise CheckpointError(f"{path} exists already; choose another name or remove it")
    return path


@contextmanager
def appearing(target: Path, bytes_needed: int = 0) -> Iterator[Path]:
    """A hidden folder beside `target` that takes its name at the end, or vanishes.

    Raises CheckpointError, in one sentence, when the disk is full or cannot be written.
    """
    _forget(target)
    free = shutil.disk_usage(target.parent).free
    if bytes_needed > free:
        raise CheckpointError(_full(target, f"{bytes_needed / 1e9:.1f} GB needed", free))
    try:
        hidden = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    except OSError as error:
        raise CheckpointError(f"{target.parent} cannot be written: {error.strerror}") from error
    try:
        yield hidden
        hidden.chmod(0o755)
        if os.path.lexists(target):
            raise CheckpointError(f"{target} has come to exist meanwhile; nothing was written")
        hidden.rename(target)
    except OSError as error:
        if error.errno in _NO_ROOM:
            shutil.rmtree(hidden, ignore_errors=True)
            left = shutil.disk_usage(target.parent).free
            raise CheckpointError(_full(target, "the disk is full", left)) from error
        raise CheckpointError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def size(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _full(target: Path, why: str, free: int) -> str:
    return f"{target} was not written: {why}, {free / 1e9:.1f} GB free on that disk"


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _forget(target: Path) -> None:
    """Remove what killed exports of this name left behind."""
    for old in target.parent.glob(f"{_escaped(_prefix(target))}*"):
        newest = max((p.lstat().st_mtime for p in [old, *old.rglob("*")]), default=0.0)
        if time.time() - newest > FORGOTTEN:
            shutil.rmtree(old, ignore_errors=True)


def _escaped(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
