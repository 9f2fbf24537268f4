"""What constrained calls cost: tokens per second with and without, and the start of a schema.

    python -m benchmarks.constrain               # the embedded model
    python -m benchmarks.constrain --rounds 3 --new 64

Both sides continue the same prompts with the same number of ids, in rounds A B B A, for one user
and for eight, inside a plain answer and inside a string of a call (ids that would end either are
left out, so that lengths are equal). The bars: 0.95 for one user, 0.90 for eight, 20 ms for a new
schema. Appended to benchmarks/results/constrain.jsonl. It does not measure a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.engine import compare, git, read
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.constrain import Constrainer
from glm.dialects.chatglm3 import ChatGLM3
from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.load import load_model
from glm.messages import Conversation, Message, Sampling, ToolSpec
from glm.tokenizer import Tokenizer

RESULTS = Path(__file__).resolve().parent / "results" / "constrain.jsonl"
CONTEXT = 4096
KINDS = ("string", "integer", "number", "boolean")


def tool(number: int) -> ToolSpec:
    """A tool of six arguments, two of them required."""
    properties: dict[str, Any] = {f"p{i}": {"type": KINDS[i % 4]} for i in range(6)}
    schema = {"type": "object", "properties": properties, "required": ["p0", "p1"]}
    return ToolSpec(f"tool_{number}", f"does thing {number}", schema)


class Endless:
    """A constraint that never lets the answer end."""

    def __init__(self, constraint: Any, ends: np.ndarray) -> None:
        self.constraint, self.ends = constraint, ends

    def fill(self, bits: np.ndarray) -> None:
        self.constraint.fill(bits)
        bits &= self.ends

    def accept(self, id: int) -> None:
        self.constraint.accept(id)


def ends(tokenizer: Tokenizer, words: int) -> np.ndarray:
    """All bits but those of control tokens and of what closes a string."""
    keep = np.zeros(words * 32, dtype=np.uint8)
    for i in range(tokenizer.size):
        raw = tokenizer.raw(i)
        keep[i] = raw is not None and b"'" not in raw and b"\\" not in raw
    return np.packbits(keep, bitorder="little").view(np.int32)


def starts(dialect: ChatGLM3, rounds: int) -> dict[str, float]:
    """Milliseconds from eight tools nobody has seen to the first mask."""
    made = Constrainer()
    made.calls(dialect, (ToolSpec("warm"),))  # the tables of the vocabulary
    bits = np.zeros(dialect.tokenizer.size // 32 + 1, dtype=np.int32)
    found = []
    for number in range(rounds):
        tools = tuple(tool(number * 8 + i) for i in range(8))
        begin = time.perf_counter()
        constraint = made.calls(dialect, tools)
        assert constraint is not None
        constraint.fill(bits)
        found.append((time.perf_counter() - begin) * 1e3)
    return {"median": round(statistics.median(found), 2), "max": round(max(found), 2)}


def rates(new: int, rounds: int) -> dict[str, Any]:
    """Tokens per second, free (a) and constrained (b)."""
    model = load_model(recognise(EMBEDDED), "cpu", "float32")
    dialect = ChatGLM3(Tokenizer.open(EMBEDDED))
    engine, made = LocalEngine(model, context=CONTEXT), Constrainer()
    tools = tuple(map(tool, range(8)))
    keep = ends(dialect.tokenizer, engine.vocabulary // 32 + 1)
    encode = dialect.tokenizer.encode
    heads = {
        "plain answer": encode("\n"),
        "string of a call": [*encode("tool_3\n"), *encode("```python\ntool_call(p0='")],
    }

    def run(head: list[int], users: int, constrained: bool) -> int:
        streams = []
        for user in range(users):
            asked = Conversation((Message("user", f"Question {user}: tell me more"),), tools)
            prompt = (*dialect.prompt(asked), *head)
            constraint = None
            if constrained:
                inner = made.calls(dialect, tools)
                assert inner is not None
                for id in head:
                    inner.accept(id)
                constraint = Endless(inner, keep)
            sampling = Sampling(temperature=0, max_tokens=new)
            streams.append(engine.submit(Request(prompt, sampling, constraint=constraint)))
        return sum(len(read(stream)) for stream in streams)

    out: dict[str, Any] = {}
    for name, head in heads.items():
        for users in (1, 8):
            for constrained in (False, True):
                assert run(head, users, constrained) == users * new  # also warms both up
            free, bound = (lambda c=c, u=users, h=head: run(h, u, c) for c in (False, True))
            out[f"{name}, {users} user(s)"] = compare(free, bound, rounds)
    engine.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of constrained calls; see the file's top")
    parser.add_argument("--new", type=int, default=128, help="ids per answer")
    parser.add_argument("--rounds", type=int, default=7, help="A B B A rounds per figure")
    options = parser.parse_args()
    torch.set_num_threads(1)  # what the engine takes for a model of this size
    figures = {"new schema, ms": starts(ChatGLM3(Tokenizer.open(EMBEDDED)), options.rounds)}
    figures |= rates(options.new, options.rounds)
    row = {
        "command": " ".join([Path(sys.executable).name, "-m benchmarks.constrain", *sys.argv[1:]]),
        "commit": git("rev-parse", "--short", "HEAD"),
        "machine": platform.processor() or platform.machine(),
        "figures": figures,
    }
    print(json.dumps(row, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
