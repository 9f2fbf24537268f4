"""Data files as they are named in the options: `FILE`, or `FILE:WEIGHT` for more or less of one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_WEIGHTED = re.compile(r"(?P<path>.+):(?P<weight>\d+(\.\d*)?|\.\d+)\Z", re.DOTALL)
HEAVIEST = 1000.0


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a folder of rows. `weight` 2 takes its rows twice, 0.5 every other one."""

    path: Path
    weight: float = 1.0


def source(text: str, folder: str = "") -> Source:
    """Read one name; a path that exists as it is written has no weight.

    `folder` is where relative names are looked up. Raises ValueError for a weight out of range.
    """
    path = Path(folder, text).expanduser()
    weighted = _WEIGHTED.match(text)
    if weighted is None or path.exists():
        return Source(path)
    weight = float(weighted["weight"])
    if not 0 < weight <= HEAVIEST:
        raise ValueError(f"the weight is above 0 and at most {HEAVIEST:g}")
    return Source(Path(folder, weighted["path"]).expanduser(), weight)


def sources(texts: Iterable[str], folder: str = "") -> list[Source]:
    """Read all names. Raises ValueError."""
    return [source(text, folder) for text in texts]
