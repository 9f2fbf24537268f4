"""Where each row of a text file begins and ends: an index on disk, so that memory stays flat.

An index is an array of int64, one (start, end, line) a row, in bytes and from line 1. Lines are
found at the speed of memory; JSON lists and pretty-printed values are decoded once, with the
whole text in memory. Indexes of large files are kept in the user's cache folder, under a name
that changes with the file, and are mapped, not read.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from glm.errors import BadRequest

Kind = Literal["lines", "values", "table"]
CHUNK = 1 << 22  # bytes looked at in one step
KEPT_FROM = 8 << 20  # bytes of a file from which its index is worth keeping
BOM = b"\xef\xbb\xbf"
_BLANK = 8  # a shorter line may be blank
_VERSION = 2
_LONE_RETURN = re.compile(r"\r(?!\n)")  # csv ends a record there, or refuses it
_NEXT = re.compile(r"\}\s*,\s*\{")


def index(file: Path, kind: Kind, cache: Path | None = None) -> np.ndarray:
    """The (start, end, line) of every row of a file; `cache` is a folder for large indexes."""
    if file.stat().st_size < KEPT_FROM:
        return _gathered(scan(file, kind))
    kept = _kept_name(file, kind, cache or cache_folder())
    found = _open(kept, file)
    if found is not None:
        return found
    try:
        _keep(kept, scan(file, kind))
    except OSError:  # no place to keep it: it stays in memory
        return _gathered(scan(file, kind))
    found = _open(kept, file)
    return _gathered(scan(file, kind)) if found is None else found


def cache_folder() -> Path:
    """Where indexes are kept: `XDG_CACHE_HOME`, else the system's place for such files."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(base).expanduser() / "glm-workbench" / "rows"


def scan(file: Path, kind: Kind) -> Iterator[np.ndarray]:
    """The index in parts. Raises BadRequest for a file that is not text."""
    return {"lines": _lines, "values": _values, "table": _table}[kind](file)


def _lines(file: Path) -> Iterator[np.ndarray]:
    start, line, base = 0, 1, 0
    with file.open("rb") as data:
        if data.read(len(BOM)) == BOM:
            start = len(BOM)
        data.seek(0)
        while chunk := data.read(CHUNK):
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + base
            base += len(chunk)
            if len(ends):
                rows = np.empty((len(ends), 3), np.int64)
                rows[:, 0] = np.concatenate(([start], ends[:-1] + 1))
                rows[:, 1] = ends
                rows[:, 2] = np.arange(line, line + len(ends))
                start, line = int(ends[-1]) + 1, line + len(ends)
                yield _without_blank(rows, file)
        if start < base:
            yield _without_blank(np.array([[start, base, line]], np.int64), file)


def _without_blank(rows: np.ndarray, file: Path) -> np.ndarray:
    short = np.flatnonzero(rows[:, 1] - rows[:, 0] <= _BLANK)
    if not len(short):
        return rows
    keep = np.ones(len(rows), bool)
    with file.open("rb") as data:
        for place in short:
            start, end, _ = rows[place]
            data.seek(start)
            keep[place] = bool(data.read(end - start).strip())
    return rows[keep]


def _values(file: Path) -> Iterator[np.ndarray]:
    """Items of a JSON list, or values one after the other, on any number of lines each.

    What is no JSON is a row too, up to the next line that begins as the first value did.
    """
    text = decoded(file.read_bytes(), file)
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    in_list = text.startswith("[", at)
    at = _skip(text, at + 1) if in_list else at
    place = _Place(text)
    margin = text[text.rfind("\n", 0, at) : at + 1] if "\n" in text[:at] else "\n{"
    decoder, rows = json.JSONDecoder(), []
    while at < len(text) and not (in_list and text[at] == "]"):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            found = text.find(margin, at + 1)
            end = len(text) if found < 0 else found + 1
            if found < 0 and (item := _NEXT.search(text, at + 1)):
                end = item.end() - 1
        rows.append(place.row(at, end))
        at = _skip(text, end)
    if in_list and not text.startswith("]", at):
        rows.append(place.row(len(text), len(text)))  # cut off: an empty row, which is no JSON
    yield np.array(rows, np.int64).reshape(-1, 3)


class _Place:
    """Characters -> bytes and lines, going forward only."""

    def __init__(self, text: str) -> None:
        self._text, self._plain = text, text.isascii()
        self._at = self._byte = 0
        self._line = 1

    def row(self, start: int, end: int) -> tuple[int, int, int]:
        first = self._move(start)
        line = self._line
        return first, self._move(end), line

    def _move(self, to: int) -> int:
        passed = self._text[self._at : to]
        self._byte += len(passed) if self._plain else len(passed.encode())
        self._line += passed.count("\n")
        self._at = to
        return self._byte


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _table(file: Path) -> Iterator[np.ndarray]:
    """Records of a csv or tsv file; a record may have line breaks inside quotes."""
    at, line = 0, 1

    with file.open("rb") as data:

        def texts() -> Iterator[str]:
            nonlocal at, line
            for raw in data:
                at, line = at + len(raw), line + 1
                yield _LONE_RETURN.sub(" ", raw.decode("utf-8", "replace"))

        rows, start, first = [], 0, 1
        for record in reader(texts(), file):
            if any(record):
                rows.append((start, at, first))
            start, first = at, line
            if len(rows) == CHUNK // 64:
                yield np.array(rows, np.int64)
                rows = []
    yield np.array(rows, np.int64).reshape(-1, 3)


def reader(lines: Iterator[str], file: Path) -> Any:
    """A csv reader with the file's separator and room for long cells."""
    csv.field_size_limit(1 << 30)
    return csv.reader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")


def decoded(data: bytes, file: Path) -> str:
    """Text of UTF-8 bytes. Raises BadRequest, naming the line."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRequest(f"{file}, line {line}: not UTF-8; save the file as UTF-8") from None


# ---- kept indexes --------------------------------------------------------------------------


def _gathered(parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, 3), np.int64), *parts])


def _kept_name(file: Path, kind: Kind, cache: Path) -> Path:
    about = file.stat()
    which = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    state = f"{_VERSION} {kind} {about.st_size} {about.st_mtime_ns} {about.st_ino}"
    return cache / f"{which}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.index"


def _open(kept: Path, file: Path) -> np.ndarray | None:
    """A kept index, mapped; None when there is none or it does not fit the file."""
    try:
        size = kept.stat().st_size
        if size == 0 or size % 24:
            return None
        rows = np.memmap(kept, np.int64, mode="r").reshape(-1, 3)
    except (OSError, ValueError):
        return None
    return rows if 0 <= rows[-1, 0] <= rows[-1, 1] <= file.stat().st_size else None


def _keep(kept: Path, parts: Iterator[np.ndarray]) -> None:
    """Written beside and renamed; older indexes of the same file go."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_suffix(f".{os.getpid()}.part")
    try:
        with beside.open("wb") as out:
            for rows in parts:
                out.write(rows.tobytes())
        beside.replace(kept)
    finally:
        beside.unlink(missing_ok=True)
    for other in kept.parent.glob(f"{kept.name.partition('-')[0]}-*.index"):
        if other != kept:
            other.unlink(missing_ok=True)
