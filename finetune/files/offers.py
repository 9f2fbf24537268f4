"""The tools that a data file teaches, so that what was trained can be asked with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetune.files.rows import Rows, open_rows
from finetune.formats import AUTO, BadRow, read_row, tool_specs
from glm.messages import ToolSpec

LOOKED = 100  # rows, at most


def offered(file: Path) -> tuple[ToolSpec, ...]:
    """The tools of the first row that has any; of a list of tools, all. Raises BadRequest."""
    rows = open_rows(file)
    first = list(_first(rows))
    if first and all(map(_is_tool, first)):
        return tool_specs.read(first)
    for row in first:
        try:
            tools = read_row(row, AUTO).tools
        except BadRow:
            continue
        if tools:
            return tools
    return ()


def _first(rows: Rows) -> Iterator[dict[str, Any]]:
    """The first rows, but those that cannot be read."""
    for number in range(min(len(rows), LOOKED)):
        with suppress(BadRow):
            yield rows[number][0]


def _is_tool(row: Mapping[str, Any]) -> bool:
    return "function" in row or ("name" in row and bool({"parameters", "description"} & row.keys()))
