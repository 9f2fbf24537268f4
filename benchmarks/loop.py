"""What the tool loop adds to a round, beside the model and the tool.

    python -m benchmarks.loop
    python -m benchmarks.loop --rounds 50 --history 200

A scripted model calls a tool that answers at once, `--rounds` times in a row. Side A asks, runs
the tool and asks again by hand in one thread; side B is the loop, which runs each tool in a
thread with a time limit. First a gate: both must end with the same turns. Then the sides in the
order A B B A; the figure is the median of the differences, in ms a round, over all repeats. The
result is printed and appended to benchmarks/results/loop.jsonl. Limit: 5 ms.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from glm.cancel import Cancel
from glm.chat import chat
from glm.dialects.chatglm3 import ChatGLM3
from glm.engines.fake import FakeEngine
from glm.loop import LoopOptions, run
from glm.messages import (
    Conversation,
    Finish,
    Message,
    Policy,
    Returned,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from glm.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "loop.jsonl"
LIMIT = 5.0  # ms a round
Side = Callable[[], tuple[Message, ...]]


class Instant:
    """One tool that answers at once."""

    def specs(self) -> tuple[ToolSpec, ...]:
        number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        return (ToolSpec("count", "Count one more.", number),)

    def policy(self, name: str) -> Policy:
        return "allow" if name == "count" else "deny"

    def limit(self, name: str) -> float:
        return 0.0

    def call(self, call: ToolCall, cancel: Cancel) -> ToolResult:
        return ToolResult(str(call.arguments["n"]))


def script(dialect: ChatGLM3, rounds: int) -> list[tuple[int, ...]]:
    """The ids of `rounds` calls and of an answer, as the dialect would render them."""
    out = []
    calls = [ToolCall("count", {"n": n}) for n in range(rounds)]
    turns = [Message("assistant", calls=(call,)) for call in calls]
    for turn in (*turns, Message("assistant", "That was all.")):
        rendered = [i for piece in dialect.render(Conversation((turn,))) for i in piece.ids]
        body = rendered[rendered.index(dialect.prompt(Conversation())[-1]) + 1 : -1]
        out.append((*body, dialect.stop[-1 if turn.calls else 0]))
    return out


def past(turns: int) -> Conversation:
    """A question after `turns` questions and answers."""
    said = [Message(role, f"turn {n}") for n in range(turns) for role in ("user", "assistant")]  # type: ignore[arg-type]
    return Conversation((*said, Message("user", "Count.")))


def by_hand(dialect: ChatGLM3, answers: list[tuple[int, ...]], asked: Conversation) -> Side:
    """Ask, run, ask again: no threads, no events to anybody."""

    def side() -> tuple[Message, ...]:
        engine, toolbox = FakeEngine(answers), Instant()
        new: tuple[Message, ...] = ()
        for _ in answers:
            conversation = Conversation(asked.messages + new, toolbox.specs())
            for event in chat(engine, dialect, conversation):
                if isinstance(event, Finish):
                    new += (event.message,)
            for call in new[-1].calls:
                result = toolbox.call(call, Cancel())
                new += (Message("tool", result.text, name=call.name),)
        return new

    return side


def by_loop(dialect: ChatGLM3, answers: list[tuple[int, ...]], asked: Conversation) -> Side:
    """The loop, read as a page reads it."""

    def side() -> tuple[Message, ...]:
        engine = FakeEngine(answers)
        options = LoopOptions(rounds=len(answers))
        stream = run(lambda c: chat(engine, dialect, c), asked, Instant(), options)
        seen = 0
        while stream.ended is None:
            seen += sum(isinstance(event, Returned) for event in stream.next(0.05))
        assert seen == len(answers) - 1
        return stream.ended.messages

    return side


def milliseconds(side: Side, rounds: int) -> float:
    begun = time.perf_counter()
    side()
    return (time.perf_counter() - begun) * 1000 / rounds


def measure(a: Side, b: Side, rounds: int, repeats: int) -> dict[str, object]:
    """ms a round of each side, and the median of what b adds."""
    said = [[message.content for message in side()] for side in (a, b)]
    if said[0] != said[1] or len(said[0]) != 2 * (rounds - 1) + 1:
        raise SystemExit("the sides end with other turns: no figures")
    rows = []
    for _ in range(repeats):
        first, second, third, fourth = (milliseconds(side, rounds) for side in (a, b, b, a))
        rows.append(((first + fourth) / 2, (second + third) / 2))
    added = [loop - hand for hand, loop in rows]
    return {
        "by hand": round(statistics.median(row[0] for row in rows), 3),
        "loop": round(statistics.median(row[1] for row in rows), 3),
        "added": round(statistics.median(added), 3),
        "all": [round(value, 3) for value in added],
    }


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of the tool loop; see the top of the file")
    parser.add_argument("--rounds", type=int, default=20, help="calls in a row")
    parser.add_argument("--history", type=int, default=50, help="turns before the question")
    parser.add_argument("--repeats", type=int, default=7, help="A B B A repeats")
    options = parser.parse_args()
    dialect = ChatGLM3(Tokenizer(ROOT / "assets" / "tiny" / "tokenizer.model"))
    answers, asked = script(dialect, options.rounds), past(options.history)
    sides = by_hand(dialect, answers, asked), by_loop(dialect, answers, asked)
    figures = measure(*sides, options.rounds + 1, options.repeats)
    verdict = "within" if float(str(figures["added"])) < LIMIT else "OVER"
    print(
        f"by hand {figures['by hand']} ms a round, loop {figures['loop']} ms: "
        f"{figures['added']} ms added, {verdict} the limit of {LIMIT} ms"
    )
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python -m benchmarks.loop", *sys.argv[1:]]),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s", "glm") else ""),
        "machine": platform.processor() or platform.machine(),
        "load": Path("/proc/loadavg").read_text().split()[0] if sys.platform == "linux" else None,
        "figures": figures,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
