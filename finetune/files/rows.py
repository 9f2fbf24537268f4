"""Rows of data files by their number: json, jsonl, csv, parquet, a folder, several with weights.

    rows = open_rows(["mine.jsonl", "chat.jsonl:0.5"])   # half of the second file's rows
    row, line = rows[12]                                 # BadRow: not JSON; the others still read

Text files are mapped, and only the rows that are asked for are decoded (row_index.py), so memory
does not grow with the file. JSON pretty-printed over many lines is read whatever its ending
says. Not covered: compressed files, spreadsheets.
"""

from __future__ import annotations

import csv
import json
import mmap
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from finetune.files import row_index
from finetune.files.sources import source as named
from finetune.formats import toolalpaca
from finetune.formats.base import BadRow
from glm.errors import BadRequest

ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".xlsx", ".xls", ".arrow")
_OTHER_UNICODE = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_HEAD = 1 << 16
Row = tuple[dict[str, Any], int]


class Rows(Protocol):
    """Rows by number. Getting one raises BadRow when it cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Row:
        """The row and its line in the file (its number, for files without lines)."""

    def place(self, number: int) -> str:
        """Where the row stands, for people: `mine.jsonl, line 12`."""

    def size(self, number: int) -> int | None:
        """Bytes of the row as it is written, never fewer than its texts have; None: not known."""


def open_rows(sources: str | Path | Sequence[str | Path], cache: Path | None = None) -> Rows:
    """The rows of files and folders. `PATH:0.5` takes half of its rows, `PATH:2` each twice.

    Raises BadRequest for what is missing, empty or of an unknown kind.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    parts = [(file, share) for source in given for file, share in _files(source)]
    if not parts:
        raise BadRequest("no data file was named")
    opened = [(open_file(file, cache), share) for file, share in parts]
    mixed = opened[0][0] if len(opened) == 1 and opened[0][1] == 1 else MixedRows(opened)
    if not len(mixed):
        raise BadRequest(f"no rows in {', '.join(str(file) for file, _ in parts)}")
    return mixed


def open_file(file: Path, cache: Path | None = None) -> Rows:
    """The rows of one file."""
    if file.suffix.lower() == ".parquet":
        from finetune.files.parquet import ParquetRows

        return ParquetRows(file)
    return RowFile(file, cache)


class RowFile:
    """A json, jsonl, csv or tsv file. Safe to hand to other processes: it opens itself again."""

    def __init__(self, path: str | Path, cache: Path | None = None) -> None:
        self.path, self._cache = Path(path), cache
        self._data = _mapped(self.path)
        self._kind = _kind(self.path, bytes(self._data[:_HEAD]))
        self._index: Any = []
        if len(self._data):
            self._index = row_index.index(self.path, self._kind, cache)
        self._columns = self._header() if self._kind == "table" else []
        self._instances = self._split()

    def __reduce__(self) -> tuple[Any, ...]:
        return RowFile, (self.path, self._cache)

    def __len__(self) -> int:
        if self._instances is not None:
            return len(self._instances)
        return len(self._index) - (self._kind == "table" and len(self._index) > 0)

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows")
        if self._instances is None:
            return self._row(number)
        item, which = self._instances[number]
        row, line = self._row(item)
        return toolalpaca.only(row, which) if which >= 0 else row, line

    def place(self, number: int) -> str:
        if self._instances is None:
            return f"{self.path.name}, line {self._line(number)}"
        item, which = self._instances[number]
        return f"{self.path.name}, line {self._line(item)}, instance {which + 1}"

    def size(self, number: int) -> int:
        item = number if self._instances is None else self._instances[number][0]
        start, end, _ = self._index[item + (self._kind == "table")]
        return int(end - start)

    def _line(self, item: int) -> int:
        return int(self._index[item + (self._kind == "table")][2])

    def _row(self, item: int) -> Row:
        start, end, line = (int(n) for n in self._index[item + (self._kind == "table")])
        data, table = self._data[start:end], self._kind == "table"
        try:
            text = data.decode("utf-8")
            row = self._record(text) if table else json.loads(text)
        except UnicodeDecodeError as error:
            raise self._bad(line, f"not UTF-8 at byte {error.start}") from None
        except json.JSONDecodeError as error:
            raise self._bad(line, _said(error, data, line)) from None
        except (ValueError, RecursionError) as error:
            raise self._bad(line, str(error) if table else f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise self._bad(line, f"a row is an object, not a {type(row).__name__}")
        return row, line

    def _bad(self, line: int, why: str) -> BadRow:
        return BadRow(f"{self.path.name}, line {line}: {why}")

    def _header(self) -> list[str]:
        if not len(self._index):
            return []
        start, end, _ = self._index[0]
        text = row_index.decoded(self._data[start:end], self.path).lstrip("\ufeff")
        try:
            return self._cells(text)
        except ValueError:
            raise BadRequest(
                f"{self.path}, line 1: a carriage return stands alone; save the file with "
                "line feeds at the ends of lines"
            ) from None

    def _record(self, text: str) -> dict[str, Any]:
        cells = self._cells(text)
        if len(cells) > len(self._columns):
            raise ValueError(f"{len(cells)} cells, and the header has {len(self._columns)}")
        return dict(zip(self._columns, cells, strict=False))

    def _cells(self, text: str) -> list[str]:
        """Lines end in line feeds alone, as the index has them; other separators are text."""
        lines = iter(StringIO(text, newline="\n"))
        try:
            cells: list[str] = next(row_index.reader(lines, self.path))
        except csv.Error as error:
            raise ValueError("a carriage return stands alone in a cell without quotes") from error
        return cells

    def _split(self) -> list[tuple[int, int]] | None:
        """(item, instance) of a file of ToolAlpaca APIs, each of which holds many rows."""
        if self._kind == "table" or not len(self._index) or not self._holds_apis():
            return None
        out = []
        for item in range(len(self._index)):
            out += [(item, which) for which in range(self._many(item))] or [(item, -1)]
        return out

    def _holds_apis(self) -> bool:
        """Whether the first row is one, be it without an instance."""
        start, end, _ = self._index[0]
        data = self._data[start:end]
        if not any(key.encode() in data for key in toolalpaca.KEYS):
            return False
        try:
            return toolalpaca.looks_like(self._row(0)[0])
        except BadRow:
            return False

    def _many(self, item: int) -> int:
        """How many instances an API has; 0 for any other row."""
        try:
            row, _ = self._row(item)
        except BadRow:
            return 0
        return toolalpaca.count(row)


class MixedRows:
    """Rows of several files, one file after the other, each with its share."""

    def __init__(self, parts: Sequence[tuple[Rows, float]]) -> None:
        self._parts = [rows for rows, _ in parts]
        self._shares = [share for _, share in parts]
        counts = [max(round(len(rows) * share), len(rows) > 0) for rows, share in parts]
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Row:
        part, inside = self._find(number)
        return self._parts[part][inside]

    def place(self, number: int) -> str:
        part, inside = self._find(number)
        return self._parts[part].place(inside)

    def size(self, number: int) -> int | None:
        part, inside = self._find(number)
        return self._parts[part].size(inside)

    def _find(self, number: int) -> tuple[int, int]:
        """Less than all rows are taken at even distances; more than all begin again."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} rows")
        part = int(np.searchsorted(self._ends, number, side="right"))
        inside = number - (int(self._ends[part - 1]) if part else 0)
        share, size = self._shares[part], len(self._parts[part])
        return part, (min(int(inside / share), size - 1) if share < 1 else inside % size)


def _files(source: str | Path) -> list[tuple[Path, float]]:
    """The files of a source, with its weight."""
    try:
        found = named(str(source))
    except ValueError as error:
        raise BadRequest(f"{source}: {error}") from None
    path, share = found.path, found.weight
    if not path.exists():
        raise BadRequest(f"no data file at {path}")
    if path.is_file():
        return [(path, share)]
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in ENDINGS
        and file.name != "dataset_info.json"
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not files:
        raise BadRequest(f"no data files in {path}; expected {', '.join(ENDINGS)}")
    return [(file, share) for file in files]


def _mapped(path: Path) -> Any:
    if path.suffix.lower() in _PACKED:
        raise BadRequest(f"{path} is packed; make json, jsonl, csv or parquet of it")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}") from None


def _kind(path: Path, head: bytes) -> row_index.Kind:
    """How a file is laid out, told from its beginning, not from its ending."""
    if head.startswith(_OTHER_UNICODE):
        raise BadRequest(f"{path} is UTF-16 or UTF-32; save it as UTF-8")
    if b"\x00" in head:
        raise BadRequest(f"{path} is not a text file")
    if path.suffix.lower() in (".csv", ".tsv"):
        return "table"
    text = head.removeprefix(row_index.BOM).lstrip()
    if text.startswith(b"["):
        return "values"
    first, newline, rest = text.partition(b"\n")
    if not newline or not text.startswith(b"{") or _is_json(first):
        return "lines"
    # broken, or the beginning of a value of many lines?
    if _begins_with_json(text):
        return "values"
    second = rest.lstrip().partition(b"\n")[0]
    one_a_line = first.strip() != b"{" and second.startswith(b"{")
    return "lines" if one_a_line and (_is_json(second) or b"\n" not in rest) else "values"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _begins_with_json(data: bytes) -> bool:
    try:
        json.JSONDecoder().raw_decode(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return True


def _said(error: json.JSONDecodeError, data: bytes, line: int) -> str:
    if not data:
        return "not JSON: the file ends inside a list"
    if error.msg == "Extra data":
        return f"two values on one line: a line break is missing at column {error.colno}"
    deeper = f"line {line + error.lineno - 1}, " if error.lineno > 1 else ""
    return f"not JSON: {error.msg} at {deeper}column {error.colno}"
