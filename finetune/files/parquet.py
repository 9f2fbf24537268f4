"""Rows of a parquet file, one row group in memory at a time. Needs pyarrow, which is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune.formats.base import BadRow
from glm.errors import BadRequest


class ParquetRows:
    """The rows of a parquet file by number."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            from pyarrow import parquet
        except ImportError:
            raise BadRequest(
                f"reading {self.path} needs pyarrow: pip install pyarrow, or convert it to jsonl"
            ) from None
        try:
            self._file = parquet.ParquetFile(self.path, memory_map=True)
        except (OSError, ValueError) as error:  # pyarrow's errors are among them
            raise BadRequest(f"{self.path} is not a parquet file: {error}") from None
        groups = self._file.metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._group: tuple[int, Any] = (-1, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetRows, (self.path,)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> tuple[dict[str, Any], int]:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows")
        group = int(np.searchsorted(self._ends, number, side="right"))
        inside = number - (int(self._ends[group - 1]) if group else 0)
        if self._group[0] != group:
            self._group = group, self._file.read_row_group(group)
        try:
            row = self._group[1].slice(inside, 1).to_pylist()[0]
        except ValueError as error:
            raise BadRow(f"{self.place(number)}: {error}") from None
        return {key: _filled(value) for key, value in row.items()}, number + 1

    def place(self, number: int) -> str:
        return f"{self.path.name}, row {number + 1}"

    def size(self, number: int) -> int | None:
        return None


def _filled(value: Any) -> Any:
    """Without the nulls of objects: arrow gives every row all keys that any row has."""
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_filled(inner) for inner in value]
    return value
