"""Convert a data file to another format, and say what that format cannot hold.

    python -m finetune.convert IN OUT --to openai
    python -m finetune.convert mine.csv mine.jsonl --to chatglm3 --from alpaca --strict

IN is a file or a folder of json, jsonl, csv or parquet; OUT ends in .jsonl or .json. What a
format has no place for is left out of the row and counted; a row that would teach something
else without it is left out as a whole, with its line and the reason. Exit code: 0 all rows are
there, 1 some are left out, 2 nothing could be converted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from finetune.files.rows import Rows, open_rows
from finetune.formats import (
    AUTO,
    FORMATS,
    BadRow,
    chosen_rejected,
    losses,
    named,
    read_row,
    recognise,
)
from finetune.formats.base import Format
from glm.errors import BadRequest
from glm.messages import Conversation

SHOWN = 5  # places named for each reason


@dataclass
class Report:
    """What was converted; what was lost in rows that are written, and the rows left out."""

    read: int = 0
    written: int = 0
    lost: Reasons = field(default_factory=lambda: Reasons())
    left_out: Reasons = field(default_factory=lambda: Reasons())

    def text(self) -> str:
        lines = [f"{self.written} of {self.read} rows written"]
        lines += self.lost.lines("no place for {reason}")
        lines += self.left_out.lines("left out: {reason}")
        return "\n".join(lines)


class Reasons:
    """Reasons with their counts and the first places of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: dict[str, list[str]] = {}

    def add(self, reason: str, place: str) -> None:
        self.counts[reason] += 1
        if self.counts[reason] <= SHOWN:
            self.places.setdefault(reason, []).append(place)

    def lines(self, form: str) -> Iterator[str]:
        for reason, count in self.counts.most_common():
            more = ", ..." if count > SHOWN else ""
            said = form.format(reason=reason)
            yield f"  {count} x {said} ({'; '.join(self.places[reason])}{more})"


@dataclass(frozen=True)
class Conversion:
    """What to convert to. `strict`: a row that loses anything is left out."""

    to: str
    source: str = AUTO
    strict: bool = False


def convert(rows: Rows, wanted: Conversion, report: Report) -> Iterator[dict[str, Any]]:
    """The rows in the wanted format; `report` is filled as they come."""
    target = named(wanted.to)
    for number in range(len(rows)):
        report.read += 1
        place = rows.place(number)
        try:
            given = rows[number][0]
            source = recognise(given) if wanted.source == AUTO else wanted.source
            conversation = read_row(given, source)
        except BadRow as error:
            report.left_out.add(_reason(error, place), place)
            continue
        try:
            row, missing = _row(given, source, conversation, target)
        except BadRequest as error:
            report.left_out.add(f"{target.name}: {error}", place)
            continue
        for what in missing:
            report.lost.add(f"{what} in {target.name}", place)
        if missing and wanted.strict:
            report.left_out.add("it would lose something", place)
            continue
        report.written += 1
        yield row


def _row(
    given: dict[str, Any], source: str, conversation: Conversation, target: Format
) -> tuple[dict[str, Any], list[str]]:
    """A row in the wanted format, and what it has no place for. Raises BadRow, CannotHold."""
    pair = source == chosen_rejected.name
    stays = pair and target.name == source
    both = chosen_rejected.both(given) if stays else None
    row = chosen_rejected.write_both(*both) if both else target.write(conversation)
    missing = losses(conversation, target.read(row))
    return row, [*missing, "the rejected answer"] if pair and not stays else missing


def write_file(rows: Iterator[dict[str, Any]], file: Path) -> None:
    """A .jsonl or .json file, written beside and renamed when it is complete; none without a row.

    Raises BadRequest where nothing can be written.
    """
    if file.suffix.lower() not in (".jsonl", ".json"):
        raise BadRequest(f"{file} has to end in .jsonl or .json")
    beside = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", newline="\n") as out:
            write = _lines if file.suffix.lower() == ".jsonl" else _listed
            count = write(rows, out)
        if count:
            beside.replace(file)
    except OSError as error:
        raise BadRequest(f"{file} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _lines(rows: Iterator[dict[str, Any]], out: TextIO) -> int:
    count = 0
    for row in rows:
        out.write(written(row) + "\n")
        count += 1
    return count


def _listed(rows: Iterator[dict[str, Any]], out: TextIO) -> int:
    count = 0
    for row in rows:
        out.write((",\n" if count else "[\n") + written(row))
        count += 1
    out.write("\n]\n")
    return count


def written(row: dict[str, Any]) -> str:
    """A row as one line of JSON; half a surrogate pair, which no file can hold, is escaped."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return text


def _reason(error: BadRow, place: str) -> str:
    """The sentence without the place, which stands beside it."""
    return str(error).removeprefix(f"{place}: ")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="IN", help="a data file or a folder of them")
    parser.add_argument("out", metavar="OUT", type=Path, help="a .jsonl or .json file")
    parser.add_argument("--to", required=True, choices=[*FORMATS], help="the format to write")
    parser.add_argument(
        "--from",
        dest="source_format",
        default=AUTO,
        choices=[AUTO, *FORMATS],
        help="the format of IN; told from each row by default",
    )
    parser.add_argument("--strict", action="store_true", help="leave out rows that lose anything")
    given = parser.parse_args(argv)
    report = Report()
    try:
        rows = open_rows(given.source)
        wanted = Conversion(given.to, given.source_format, given.strict)
        write_file(convert(rows, wanted, report), given.out)
    except BadRequest as error:
        print(error, file=sys.stderr)
        return 2
    print(report.text())
    if not report.written:
        return 2
    return 1 if report.left_out.counts else 0


if __name__ == "__main__":
    sys.exit(main())
