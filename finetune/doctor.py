"""Look a data file over before anything is trained on it.

    python -m finetune.doctor FILE
    python -m finetune.doctor train.jsonl --dev dev.jsonl --model models/chatglm3-6b --json

Names what is wrong by line: bad JSON, roles out of order, tool turns without tools, arguments
that break their schema, rows over the length with what would be cut, rows that teach nothing,
repeats, dev rows in the training data. Rows are looked at one after the other, in the same
memory for any size. Lengths are those of the model's own prompt language; without --model the
embedded model's. Exit code: 0 nothing wrong, 1 warnings, 2 errors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.checks import CHECKS, Problem, check, learns, repeats
from finetune.checks.lengths import Ruler, ruler
from finetune.files.rows import Rows, open_rows
from finetune.formats import AUTO, FORMATS, BadRow, named, recognise
from glm.errors import BadRequest, GlmError
from glm.messages import Conversation

KEPT = repeats.EXAMPLES  # places kept for each code
SHOWN = 5  # of them, printed
MAX_LENGTH = 2048  # as MAX_SEQ_LEN of the official multi-turn script


@dataclass(frozen=True)
class Question:
    """What to look at, and for which model."""

    rows: Rows
    ruler: Ruler
    dev: Rows | None = None
    format: str = AUTO


@dataclass
class Diagnosis:
    """What was found: for each code how often, and the first places with their sentences."""

    measured: str = ""
    rows: int = 0
    with_tools: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, code: str, place: str, said: str, count: int = 1) -> None:
        self.counts[code] += count
        found = self.places.setdefault(code, [])
        if len(found) < KEPT:
            found.append((place, said))

    @property
    def exit_code(self) -> int:
        weights = {CHECKS[code][0] for code in self.counts}
        return 2 if "error" in weights else int("warning" in weights)

    def to_json(self) -> dict[str, Any]:
        """The report as a value."""
        problems = [
            {
                "code": code,
                "weight": CHECKS[code][0],
                "meaning": CHECKS[code][1],
                "count": self.counts[code],
                "places": [{"place": place, "said": said} for place, said in self.places[code]],
            }
            for code in CHECKS
            if code in self.counts
        ]
        return {
            "rows": self.rows,
            "lengths_by": self.measured,
            "with_tools": self.with_tools,
            "formats": dict(self.formats),
            "problems": problems,
            "exit_code": self.exit_code,
        }

    def text(self) -> str:
        """The report for people."""
        formats = ", ".join(f"{name} {count}" for name, count in self.formats.most_common())
        lines = [f"{self.rows} rows ({formats or 'none could be read'})"]
        lines += [f"lengths as {self.measured} counts them"] if self.counts["too-long"] else []
        for code in CHECKS:
            if code not in self.counts:
                continue
            weight, meaning = CHECKS[code]
            shown = self.places[code][:SHOWN]
            times = f"{self.counts[code]} x " if shown[0][0] else ""  # of a row, or of the file
            lines.append(f"{weight}: {times}{meaning} [{code}]")
            lines += [f"    {place}: {said}" if place else f"    {said}" for place, said in shown]
            if self.counts[code] > len(shown) and shown[0][0]:
                lines.append(f"    and {self.counts[code] - len(shown)} more")
        if not self.counts:
            lines.append("nothing wrong was found")
        return "\n".join(lines)


def examine(question: Question) -> Diagnosis:
    """All checks over the file, and over the dev file where there is one."""
    out = Diagnosis(question.ruler.name)
    whole, asked = _look(question.rows, question, out)
    if question.dev is not None:
        dev_whole, dev_asked = _look(question.dev, question, out)
        _compare(question, (whole, dev_whole), "leak", out)
        _compare(question, (asked, dev_asked), "same-question", out)
        dev_whole.close()
        dev_asked.close()
    whole.close()
    asked.close()
    if out.formats and not out.with_tools and question.ruler.takes_tools():
        said = "the model can call tools and would forget it: mix some in (--mix-tools 10%)"
        out.add("tools-missing", "", said)
    return out


def _look(
    rows: Rows, question: Question, out: Diagnosis
) -> tuple[repeats.Fingerprints, repeats.Fingerprints]:
    """Every row by itself, then the repeats among them."""
    whole, asked = repeats.Fingerprints(len(rows)), repeats.Fingerprints(len(rows))
    for number in range(len(rows)):
        out.rows += 1
        conversation = _read(rows, number, question, out)
        if conversation is None:
            continue
        out.with_tools += bool(conversation.tools)
        problems = [*check(conversation), *_length(rows, number, conversation, question)]
        for problem in dict.fromkeys(problems):
            out.add(problem.code, rows.place(number), problem.said)
        whole[number] = repeats.whole(conversation)
        asked[number] = repeats.questions(conversation)
    count, found = whole.repeats()
    for again, first in found:
        out.add("duplicate", rows.place(again), f"the same as {rows.place(first)}")
    out.counts["duplicate"] += count - len(found)
    out.counts += Counter()  # drops a count of nothing
    return whole, asked


def _read(rows: Rows, number: int, question: Question, out: Diagnosis) -> Conversation | None:
    place = rows.place(number)
    try:
        row = rows[number][0]
    except BadRow as error:
        where, _, said = str(error).partition(": ")
        out.add("bad-json", where, said)
        return None
    try:
        name = recognise(row) if question.format == AUTO else question.format
        conversation = named(name).read(row)
    except BadRow as error:
        out.add("bad-row", place, str(error))
        return None
    out.formats[name] += 1
    return conversation


def _length(
    rows: Rows, number: int, conversation: Conversation, question: Question
) -> list[Problem]:
    measured = question.ruler
    if measured.fits(conversation, rows.size(number)):
        return []
    try:
        length = measured.measure(conversation)
    except BadRequest as error:
        return [Problem("not-for-model", str(error))]
    if length.tokens <= measured.limit:
        return []
    found = [Problem("too-long", length.said)]
    if length.kept == 0 and learns(conversation):
        said = f"nothing that is learnt stands in the first {measured.limit} tokens"
        found.append(Problem("nothing-learnt", said))
    return found


def _compare(
    question: Question,
    prints: tuple[repeats.Fingerprints, repeats.Fingerprints],
    code: str,
    out: Diagnosis,
) -> None:
    train, dev = prints
    count, found = dev.found_in(train)
    assert question.dev is not None
    for row, source in found:
        said = f"stands in {question.rows.place(source)}"
        out.add(code, question.dev.place(row), said)
    out.counts[code] += count - len(found)
    out.counts += Counter()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", nargs="+", help="data files or folders")
    parser.add_argument("--dev", help="the file that the run is measured on")
    parser.add_argument("--model", help="a checkpoint folder; the embedded model by default")
    parser.add_argument("--tokenizer", help="another folder to take the tokenizer from")
    parser.add_argument("--format", default=AUTO, choices=[AUTO, *FORMATS])
    parser.add_argument(
        "--max-length", type=int, default=MAX_LENGTH, help=f"tokens of a row ({MAX_LENGTH})"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    given = parser.parse_args(argv)
    try:
        measured = ruler(given.model, given.tokenizer, given.max_length)
        dev = open_rows(given.dev) if given.dev else None
        found = examine(Question(open_rows(given.file), measured, dev, given.format))
    except GlmError as error:
        print(error, file=sys.stderr)
        return 2
    report = found.to_json()
    print(json.dumps(report, ensure_ascii=False, indent=2) if given.json else found.text())
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main())
