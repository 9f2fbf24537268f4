"""query_table: SQL on an uploaded csv file. The query itself runs in `tools/table_query.py`.

A table is named as its file without the ending. Reading only; one SELECT; in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm.errors import BadRequest, ToolError
from glm.messages import Table, ToolResult, ToolSpec

if TYPE_CHECKING:
    from glm.cancel import Cancel


SPEC = ToolSpec(
    "query_table",
    "Run an SQL query on an uploaded table",
    {
        "type": "object",
        "properties": {"sql": {"type": "string", "description": "The SELECT statement"}},
        "required": ["sql"],
    },
)

SCRIPT = Path(__file__).parents[1] / "table_query.py"
ENDINGS = (".csv", ".tsv")
FILE_BYTES, ALL_BYTES = 10_000_000, 30_000_000
SQL = 10_000  # characters of a query
ROWS, CELL, TEXT = 20, 200, 3000  # what the model reads: rows, characters of a cell, of all
SECONDS = 50.0  # loading the tables included
TRUNCATED = " [truncated]"
_AGGREGATE = re.compile(r"(count|avg|sum|min|max)\s*\([^()]*\)", re.IGNORECASE)


def query_table(sql: str, files: Mapping[str, Path], cancel: Cancel | None = None) -> ToolResult:
    """Columns and rows as JSON for the model, and as a table for a person. Raises ToolError."""
    if not sql.strip():
        raise ToolError("the argument 'sql' is missing")
    if len(sql) > SQL:
        raise ToolError(f"the query is longer than {SQL} characters")
    tables = _tables(files)
    if not tables:
        raise ToolError("no csv files have been uploaded")
    wanted = {name: file for name, file in tables.items() if name.casefold() in sql.casefold()}
    if not wanted and re.match(r"\s*(select|with)\b", sql, re.IGNORECASE):
        named = re.search(r"\bfrom\s+([^\s;,()]+)", sql, re.IGNORECASE)
        which = named[1].strip("\"'`[]")[:80] if named else "in this query"
        raise ToolError(f"no table named '{which}'; tables: {', '.join(tables)}"[:1000])
    request = {
        "sql": sql,
        "tables": _texts(wanted, files),
        "spellings": {file: name for name, file in wanted.items()},
    }
    return _result(_asked(request, cancel))


def _tables(files: Mapping[str, Path]) -> dict[str, str]:
    """Table -> file, in the order of the uploads; of two with one stem one keeps its ending."""
    out: dict[str, str] = {}
    for file in files:
        if file.casefold().endswith(ENDINGS):
            stem = file[:-4]
            taken = stem.casefold() in {name.casefold() for name in out}
            out[file if taken or not stem else stem] = file
    return out


def _texts(wanted: Mapping[str, str], files: Mapping[str, Path]) -> dict[str, str]:
    from tools.uploads import read_text

    left = ALL_BYTES
    out = {}
    for name, file in wanted.items():
        try:
            out[name] = read_text(files[file], min(FILE_BYTES, left), file).replace("\r\n", "\n")
        except BadRequest as error:
            raise ToolError(str(error)) from None
        left = max(left - len(out[name]), 1)
    return {name: text.replace("\r", "\n") for name, text in out.items()}


def _asked(request: dict[str, Any], cancel: Cancel | None) -> dict[str, Any]:
    from tools import separate

    try:
        text = separate.answer(SCRIPT, data=json.dumps(request), seconds=SECONDS, cancel=cancel)
        answer: dict[str, Any] = json.loads(text)
    except separate.Ended as ended:
        why = "took too long" if ended.late else "needs too much memory"
        raise ToolError(f"the query {why}") from None
    if "problem" in answer:
        raise ToolError(answer["problem"])
    return answer


def _result(answer: dict[str, Any]) -> ToolResult:
    columns = tuple(_column_names(answer["columns"]))
    rows = tuple(tuple(row) for row in answer["rows"])
    shown: list[list[Any]] = []
    left = TEXT
    for row in rows[:ROWS]:
        cells = [cell[:CELL] + "…" if len(str(cell)) > CELL else cell for cell in row]
        left -= len(json.dumps(cells, ensure_ascii=False))
        if left < 0:
            break
        shown.append(cells)
    text = json.dumps({"columns": columns, "rows": shown}, ensure_ascii=False)
    if len(shown) < len(rows) or answer["more"]:
        text += TRUNCATED
    return ToolResult(text, table=Table(columns, rows))


def _column_names(names: list[str]) -> list[str]:
    """COUNT(*) is told as count, where that is the name of one column only."""
    short = [
        found[1].lower() if (found := _AGGREGATE.fullmatch(name.strip())) else name
        for name in names
    ]
    return [one if short.count(one) == 1 else name for one, name in zip(short, names, strict=True)]
