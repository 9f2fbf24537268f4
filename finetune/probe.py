"""Has a model forgotten what it could do? A fixed set of tool calls and plain chat, zh and en.

    python -m finetune.probe runs/lora-20260101-120000           # its base, then the run
    python -m finetune.probe THUDM/chatglm3-6b --adapter my/adapter
    python -m finetune.probe assets/tiny                         # the model alone

100 rows of assets/probe.jsonl, answered greedily: is the call right, does the answer tell
what the tool said, is no tool called where none fits, does a plain answer say what it must.
Scored before and after a run, what is lost shows. It is made to compare a model with itself: it
looks for words in answers, and is too small to tell two good models apart.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.evaluate import write_report
from finetune.pretrain.figures import wilson
from finetune.pretrain.judge import Result
from finetune.pretrain.score import score
from finetune.scoring.answering import Manner, Opened, open_model
from finetune.scoring.subject import Subject, subject
from glm.errors import GlmError
from glm.messages import Conversation, Event

FILE = Path(__file__).parent.parent / "assets" / "probe.jsonl"
OWN = ""  # the dialect's own prompts, whatever layout an adapter learnt in
MAX_TOKENS = 160
PARTS = {
    "calls": "the right call",
    "answers": "tells the result",
    "abstain": "calls nothing",
    "chat": "plain chat",
    "facts": "common knowledge",
}
Chat = Callable[[Conversation], Iterable[Event]]


@dataclass(frozen=True, slots=True)
class Mark:
    """Right or wrong in one part of one row, and what was said."""

    row: str
    part: str
    right: bool
    said: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What a model got right. `problem` is why an answer failed, the first of them."""

    marks: tuple[Mark, ...]
    problem: str = ""

    def share(self, part: str = "") -> float:
        """Of one part, or of all marks."""
        right, of = self.counts(part)
        return right / of if of else 0.0

    def counts(self, part: str = "") -> tuple[int, int]:
        """How many are right, of how many."""
        marks = [mark.right for mark in self.marks if part in ("", mark.part)]
        return sum(marks), len(marks)


def rows(file: Path = FILE) -> list[dict[str, Any]]:
    """The rows, in the form of the pre-training's scorer; `says` are words of which an answer
    needs one."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def probe(chat: Chat, some: Sequence[dict[str, Any]] | None = None) -> Probe:
    """Ask every row."""
    results = score(rows() if some is None else some, chat)
    turns = [turn for result in results for turn in (result.first, result.second) if turn]
    problem = next((turn.error for turn in turns if turn.error), "")
    return Probe(tuple(mark for result in results for mark in _marks(result)), problem)


def _marks(result: Result) -> list[Mark]:
    row, verdict = result.row, result.verdict
    said = json.dumps(
        {
            "content": result.first.message.content,
            "calls": [[c.name, dict(c.arguments)] for c in result.first.message.calls],
        },
        ensure_ascii=False,
    )
    if row["call"] is not None:
        then = result.second.message.content if result.second else ""
        call = Mark(row["id"], "calls", verdict["arguments"], said)
        return [call, Mark(row["id"], "answers", verdict["answer"], then)]
    right = verdict["abstain"]
    if "says" in row:
        right = right and _says(result.first.message.content, row["says"])
    return [Mark(row["id"], row["part"], right, said)]


def _says(answer: str, words: Sequence[str]) -> bool:
    """Whether one of the words is there; a Latin word is not the middle of another."""
    pattern = "|".join(re.escape(word) for word in words)
    return re.search(rf"(?<![a-z])(?:{pattern})", answer, re.IGNORECASE) is not None


def before_and_after(model: Opened, adapter: str) -> tuple[Probe, Probe]:
    """A base, and the same with an adapter, by its key."""
    return measure(model), measure(model, adapter)


def measure(model: Opened, adapter: str | None = None) -> Probe:
    """Probe an open model."""
    return probe(model.asker(Manner(adapter, OWN, max_tokens=MAX_TOKENS)))


# ---- the program -------------------------------------------------------------------------


def table(before: Probe | None, after: Probe) -> str:
    """Shares with 95 % intervals; with what was before, the change in points."""
    head = f"{'':18}{'before':26}" if before else f"{'':18}"
    lines = [f"{head}{'after' if before else 'right':26}{'change' if before else ''}".rstrip()]
    for part, label in {**PARTS, "": "all"}.items():
        if not after.counts(part)[1]:
            continue
        cells = [f"{label:18}", *([_cell(before, part)] if before else []), _cell(after, part)]
        change = f"{points(before, after, part):+.1f}" if before else ""
        lines.append("".join([*cells, change]).rstrip())
    if before:
        was = {(mark.row, mark.part): mark.right for mark in before.marks}
        turned = [mark for mark in after.marks if was.get((mark.row, mark.part)) != mark.right]
        gained = sum(mark.right for mark in turned)
        lines.append(f"{len(turned) - gained} lost, {gained} gained")
    return "\n".join(lines)


def points(before: Probe, after: Probe, part: str = "") -> float:
    """The change in percentage points; below 0 something was forgotten."""
    return 100 * (after.share(part) - before.share(part))


def _cell(some: Probe, part: str) -> str:
    right, of = some.counts(part)
    low, high = wilson(right, of)
    return f"{f'{some.share(part):.3f} [{low:.2f}-{high:.2f}] {right}/{of}':26}"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetune.probe", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("subject", metavar="RUN|MODEL", help="a run's folder, a model or hub id")
    parser.add_argument("--adapter", metavar="PATH", help="probe the model with this adapter, too")
    parser.add_argument("--failures", type=int, default=0, metavar="N", help="show N wrong answers")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        wanted = subject(args.subject, args.adapter)
        before, after = _both(wanted, args.device)
    except GlmError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(before, after))
    for mark in [mark for mark in after.marks if not mark.right][: args.failures]:
        print(f"{mark.row} {mark.part}: {mark.said}")
    if after.problem:
        print(f"note: an answer failed and counts as wrong: {after.problem}", file=sys.stderr)
    if args.json:
        write_report(args.json, as_json(before, after))
    return 0


def _both(wanted: Subject, device: str) -> tuple[Probe | None, Probe]:
    """The base where there is one, and what is made of it."""
    if wanted.base:
        with open_model(wanted.of_base(), device) as model:
            before = measure(model)
        with open_model(wanted, device) as model:
            return before, measure(model)
    with open_model(wanted, device) as model:
        if wanted.adapter is None:
            return None, measure(model)
        return before_and_after(model, model.add(wanted.adapter))


def as_json(before: Probe | None, after: Probe) -> dict[str, Any]:
    """Shares by part, the change in points, and every answer."""
    out: dict[str, Any] = {"after": _json(after)}
    if before:
        out = {"before": _json(before), **out, "change": round(points(before, after), 2)}
    return out


def _json(some: Probe) -> dict[str, Any]:
    shares = {part: round(some.share(part), 4) for part in PARTS if some.counts(part)[1]}
    marks = [{"row": m.row, "part": m.part, "right": m.right, "said": m.said} for m in some.marks]
    return {"all": round(some.share(), 4), **shares, "marks": marks}


if __name__ == "__main__":
    sys.exit(main())
