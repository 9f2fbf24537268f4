"""Score a model on the frozen set: does it pick the tool, fill it in, tell the result, abstain?

    python -m finetune.pretrain.score                      # the embedded model, all 500 rows
    python -m finetune.pretrain.score --model DIR --part builtin --failures 5
    python -m finetune.pretrain.score --limit 20 --free-only

Greedy decoding through the product's own dialect and engine, twice: free, and with calls
constrained to the schemas of the tools. A table with Wilson 95 % intervals; the last line of stdout
is JSON: the figures of free decoding by part, and under "constrained" the others. The rules of
judging are in judge.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from finetune.pretrain.figures import PARTS, failures, fractions, table
from finetune.pretrain.frozen import rows as frozen_rows
from finetune.pretrain.judge import Observed, Result, Row, Turn, observe, verdict
from glm.chat import Options
from glm.checkpoint.recognise import ModelInfo
from glm.engines.base import Engine
from glm.errors import GlmError
from glm.manager import Manager
from glm.messages import Conversation, Event, Finish, Malformed, Message, Sampling, ToolSpec
from glm.opening import Opening
from tools.builtin import SPECS

FROZEN_SHA256 = "f8b634ba9ec5bc5f6b8e5634fea0f2d1008cca0f755ce9e1e02b8217a9dd8e0c"
GREEDY = Sampling(max_tokens=160, temperature=0.0)
WINDOW = 48  # answers under way at once; the engine's queue holds 64
NOBODY = Message("assistant")

Chat = Callable[[Conversation], Iterable[Event]]


# ---- asking ------------------------------------------------------------------------------


def conversation(row: Row) -> Conversation:
    """What is asked in this row: its tools, its history, the user's sentence."""
    history = [Message(turn["role"], turn["content"]) for turn in row.get("history", ())]
    return Conversation((*history, Message("user", row["user"])), offered(row))


def offered(row: Row) -> tuple[ToolSpec, ...]:
    """The tools of a row."""
    if row["tools"] == "builtin":
        return SPECS
    return tuple(ToolSpec(t["name"], t["description"], t["parameters"]) for t in row["tools"])


def play(chat: Chat, conversations: Iterable[Conversation]) -> list[Turn]:
    """The next turn of each conversation, many of them under way at once."""
    waiting: deque[Iterable[Event] | str] = deque()
    turns = []
    for one in conversations:
        if len(waiting) == WINDOW:
            turns.append(_read(waiting.popleft()))
        try:
            waiting.append(chat(one))
        except GlmError as error:
            waiting.append(str(error))
    return turns + [_read(stream) for stream in waiting]


def _read(stream: Iterable[Event] | str) -> Turn:
    if isinstance(stream, str):
        return Turn(NOBODY, False, stream)
    malformed = False
    for event in stream:
        malformed = malformed or isinstance(event, Malformed)
        if isinstance(event, Finish):
            clean = event.reason in ("stop", "calls") and not malformed
            return Turn(event.message, clean, event.error)
    return Turn(NOBODY, False, "the answer did not end")


def score(rows: Sequence[Row], chat: Chat) -> list[Result]:
    """Ask every row, give the model the observations of its own calls, judge."""
    asked = [conversation(row) for row in rows]
    firsts = play(chat, asked)
    every = frozen_rows()
    observed = [
        observe(row, turn.message.calls[0], one.tools, every) if _runs(row, turn, one) else None
        for row, turn, one in zip(rows, firsts, asked, strict=True)
    ]
    followed = {
        i: _follow(asked[i], firsts[i].message, seen) for i, seen in enumerate(observed) if seen
    }
    seconds = dict(zip(followed, play(chat, followed.values()), strict=True))
    results = []
    for i, row in enumerate(rows):
        turns = firsts[i], observed[i], seconds.get(i)
        results.append(Result(row, len(asked[i].tools), *turns, verdict(row, *turns)))
    return results


def _runs(row: Row, turn: Turn, asked: Conversation) -> bool:
    """Is a call due, and is there exactly one, of a tool that is offered?"""
    calls = turn.message.calls
    due = row["call"] is not None and turn.clean and len(calls) == 1
    return due and calls[0].name in [tool.name for tool in asked.tools]


def _follow(asked: Conversation, turn: Message, observed: Observed) -> Conversation:
    call = turn.calls[0]
    return asked.add(turn, Message("tool", observed.text, name=call.name, call_id=call.id))


# ---- the program -------------------------------------------------------------------------


def open_engine(info: ModelInfo, how: Opening) -> Engine:
    """An engine with more rows at once than a page needs. Brings torch."""
    from glm.engines.local import LocalEngine
    from glm.load import load_model

    return LocalEngine(load_model(info, how.device, how.dtype), context=info.context, slots=24)


def select(part: str | None, limit: int | None) -> list[Row]:
    """The rows of one part or all, the first `limit` of each."""
    return [
        row
        for name in PARTS
        if part in (None, name)
        for row in [r for r in frozen_rows() if r["part"] == name][:limit]
    ]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="finetune.pretrain.score", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", help="a model folder (default: the embedded model)")
    parser.add_argument("--part", choices=PARTS, help="only this part")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows of a part")
    parser.add_argument("--free-only", action="store_true", help="without constrained calls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the JSON there")
    parser.add_argument("--failures", type=int, default=0, metavar="N", help="show N per part")
    parser.add_argument("--device", default="cpu", help="cpu (default, reproducible), cuda, mps")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    manager = Manager(args.model, Opening(args.device), opener=open_engine)
    manager.start()
    state = manager.wait()
    if state.status != "ready":
        print(state.message, file=sys.stderr)
        return 1
    rows = select(args.part, args.limit)
    try:
        results = score(rows, lambda one: manager.chat(one, GREEDY))
        constrained = [] if args.free_only else score(rows, lambda one: _bound(manager, one))
    finally:
        manager.close()
    report(results, constrained, args)
    return 0


def _bound(manager: Manager, conversation: Conversation) -> Iterable[Event]:
    return manager.chat(conversation, GREEDY, options=Options(constrain=True))


def report(
    results: Sequence[Result], constrained: Sequence[Result], args: argparse.Namespace
) -> None:
    """Print the table, the failures wanted, the answers that failed, and the JSON line."""
    print(table(results, constrained))
    for kind, some in (("free", results), ("constrained", constrained)):
        if args.failures and some:
            print(f"\n{kind}:{failures(some, args.failures)}")
    both = [*results, *constrained]
    turns = [turn for r in both for turn in (r.first, r.second) if turn and turn.error]
    if turns:
        print(f"{len(turns)} answers failed, the first: {turns[0].error}", file=sys.stderr)
    line = json.dumps(as_json(results, constrained))
    if args.json:
        args.json.write_text(line + "\n", encoding="utf-8")
    print(line)


def as_json(results: Sequence[Result], constrained: Sequence[Result]) -> dict[str, Any]:
    """The figures by part; those of constrained calls, if there are any, in the same form."""
    bound = {"constrained": fractions(constrained)} if constrained else {}
    return {**fractions(results), **bound}


if __name__ == "__main__":
    sys.exit(main())
