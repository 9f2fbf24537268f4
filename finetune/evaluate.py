"""Score a run or a model on rows that it has not learnt: text, JSON, tool calls.

    python -m finetune.evaluate runs/lora-20260101-120000 dev.jsonl
    python -m finetune.evaluate THUDM/chatglm3-6b dev.jsonl --adapter my/adapter --rows 500
    python -m finetune.evaluate assets/tiny dev.jsonl --no-constrained

Every recorded answer is predicted: greedily and freely, then, where tools are offered, with
calls held to the tools' schemas. Recorded observations are replayed (exchanges.py), metrics.py
says what is counted. Prints a table with 95 % intervals and writes report.json, into the run's
folder or, for a model, the current one, with each answer beside the recorded one. What a learnt
row answers says little: nothing here checks that DATA was not trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import metrics
from finetune.files.rows import Rows, open_rows
from finetune.formats import AUTO, BadRow, read_row
from finetune.scoring import scorecard
from finetune.scoring.answering import Manner, Opened, open_model
from finetune.scoring.exchanges import Exchange, Played, exchanges, play
from finetune.scoring.scorecard import Case, Figures
from finetune.scoring.subject import Subject, subject
from glm.adapters.card import replacing
from glm.errors import GlmError
from glm.loop import Ask

FREE, CONSTRAINED = "free", "constrained"
TOOL_KINDS = ("calls", "tools")
ROWS = 200
WORKERS = 16  # exchanges under way at once: twice what the engine answers together
SHOWN = 5  # rows that cannot be read, named one by one


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was played, and sentences about what was not."""

    cases: list[Case]
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> dict[str, Figures]:
        """By way; what is no call is not constrained."""
        free, bound = (scorecard.figures(self.cases, way) for way in (FREE, CONSTRAINED))
        return {FREE: free, CONSTRAINED: {k: v for k, v in bound.items() if k in TOOL_KINDS}}


def evaluate(
    rows: Iterable[tuple[int, str, Any]], free: Ask, constrained: Ask | None = None
) -> Evaluation:
    """Play and score every exchange of conversations, given as (number, place, conversation)."""
    asked = [
        (number, place, one)
        for number, place, conversation in rows
        for one in exchanges(conversation)
    ]
    notes: list[str] = []
    freely = _play_all([one for _, _, one in asked], free, FREE)
    cases = []
    for (number, place, one), played in zip(asked, freely, strict=True):
        cases.append(Case(number, place, one, {FREE: scorecard.score(one, played)}))
    if constrained is not None:
        notes += _constrain([case for case in cases if case.exchange.asked.tools], constrained)
    notes += _failures(cases)
    return Evaluation(cases, tuple(notes))


def _constrain(cases: Sequence[Case], ask: Ask) -> list[str]:
    """Play these once more; those whose tools make no grammar have no such figures."""
    left_out: list[str] = []
    again = _play_all([case.exchange for case in cases], ask, CONSTRAINED)
    for case, played in zip(cases, again, strict=True):
        refused = _refused(case, played)
        if refused:
            left_out.append(f"{case.place}: {refused}")
        else:
            case.ways[CONSTRAINED] = scorecard.score(case.exchange, played)
    if not left_out:
        return []
    return [f"{len(left_out)} exchanges cannot be constrained, the first: {left_out[0]}"]


def _refused(case: Case, played: Played) -> str:
    """Why nothing was asked, where freely it was."""
    freely = case.ways[FREE].played.given
    errors = [
        given.error
        for place, given in played.given.items()
        if given.error and not freely[place].error
    ]
    return errors[0] if errors else ""


def _failures(cases: Sequence[Case]) -> list[str]:
    failed = [
        f"{case.place}: {given.error}"
        for case in cases
        for scored in case.ways.values()
        for given in scored.played.given.values()
        if given.error
    ]
    if not failed:
        return []
    return [f"{len(failed)} answers failed and count as wrong, the first: {failed[0]}"]


def _play_all(some: Sequence[Exchange], ask: Ask, way: str) -> list[Played]:
    """Play many exchanges at once, which the engine answers together."""
    started, done = time.monotonic(), []
    with ThreadPoolExecutor(WORKERS, "evaluate") as pool:
        try:
            for played in pool.map(lambda one: play(one, ask), some):
                done.append(played)
                _progress(way, len(done), len(some), time.monotonic() - started)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done


def _progress(way: str, done: int, of: int, seconds: float) -> None:
    if not sys.stderr.isatty():
        return
    left = seconds / done * (of - done)
    print(f"\r{way}: {done} of {of}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
    if done == of:
        print(file=sys.stderr)


# ---- rows --------------------------------------------------------------------------------


def read(rows: Rows, format: str, most: int, notes: list[str]) -> Iterator[tuple[int, str, Any]]:
    """At most so many rows, evenly over the file; what cannot be read is noted."""
    number = len(rows) if most <= 0 else min(most, len(rows))
    if number < len(rows):
        notes.append(f"{number} of {len(rows)} rows, evenly over the file; --rows 0 takes all")
    bad: list[str] = []
    for n in range(number):
        place = n * len(rows) // number
        try:
            yield place, rows.place(place), read_row(rows[place][0], format)
        except BadRow as error:
            bad.append(f"{rows.place(place)}: {error}")
    if bad:
        notes.append(f"{len(bad)} rows cannot be read: {'; '.join(bad[:SHOWN])}")


# ---- the program -------------------------------------------------------------------------


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetune.evaluate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("subject", metavar="RUN|MODEL", help="a run's folder, a model or hub id")
    parser.add_argument("data", metavar="DATA", help="a file or folder of rows, in any format")
    parser.add_argument("--adapter", metavar="PATH", help="score the model with this adapter")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help="0: all (%(default)s)")
    parser.add_argument("--format", default=AUTO, help="format of the rows (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=512, help="of an answer (%(default)s)")
    parser.add_argument(
        "--constrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also with calls held to the tools' schemas (on)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    notes: list[str] = []
    try:
        metrics.require_libraries()
        wanted = subject(args.subject, args.adapter)
        rows = list(read(open_rows(args.data), args.format, args.rows, notes))
        with open_model(wanted, args.device) as model:
            found = _evaluate(model, wanted, rows, args)
    except GlmError as error:
        print(error, file=sys.stderr)
        return 1
    notes += found.notes
    print(scorecard.table(found.figures))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    place = args.json or (wanted.run or Path()) / "report.json"
    write_report(place, report(found, wanted, args.data, notes))
    print(f"each answer beside the recorded one: {place}")
    return 0


def _evaluate(
    model: Opened, wanted: Subject, rows: list[tuple[int, str, Any]], args: argparse.Namespace
) -> Evaluation:
    adapter = model.add(wanted.adapter) if wanted.adapter else None
    ways = [
        Manner(adapter, wanted.layout, constrain, args.max_tokens) for constrain in (False, True)
    ]
    free, constrained = (model.asker(way) for way in ways)
    return evaluate(rows, free, constrained if args.constrained else None)


def report(found: Evaluation, wanted: Subject, data: str, notes: Sequence[str]) -> dict[str, Any]:
    """The figures, and every answer with its scores."""
    return {
        "model": wanted.model,
        "adapter": str(wanted.adapter) if wanted.adapter else None,
        "layout": wanted.layout,
        "data": data,
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "notes": list(notes),
        "figures": {
            way: scorecard.figures_json(some) for way, some in found.figures.items() if some
        },
        "exchanges": [scorecard.case_json(case) for case in found.cases],
    }


def write_report(file: Path, value: dict[str, Any]) -> None:
    """Write it so that a reader never sees half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as passing:
        text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
        passing.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
