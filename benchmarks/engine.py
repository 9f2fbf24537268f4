"""Speed of the engine against transformers' generate(), of 8 users against one, of reuse.

    python -m benchmarks.engine                  # the embedded model, else a random one of its size
    python -m benchmarks.engine --rounds 3 --new 64

First a gate: greedy ids of every way must be equal. Then rounds of the two sides in the order
A B B A; a round gives the ratio of the sums, the figure is the median of the rounds. Rates are
ids per second of wall time and per second of CPU time (steadier on a busy machine). The result
is printed and appended to benchmarks/results/engine.jsonl. It does not measure a GPU's best.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from glm.engines.base import Request, Stream, tokens
from glm.engines.local import LocalEngine
from glm.messages import Sampling

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "engine.jsonl"
CONTEXT = 4096
Ids = Sequence[int]
Side = Callable[[], int]  # does its work, returns how many ids that gave


def load() -> tuple[str, Any]:
    """The embedded model, or a random one of the same shape."""
    tiny = ROOT / "assets" / "tiny"
    if (tiny / "config.json").exists():
        from glm.checkpoint.recognise import recognise
        from glm.load import load_model

        return "assets/tiny", load_model(recognise(tiny), "cpu", "float32")
    from transformers import GlmConfig, GlmForCausalLM

    torch.manual_seed(0)
    config = GlmConfig(
        vocab_size=6016,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        attention_bias=True,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT,
        pad_token_id=2,
        eos_token_id=None,
        bos_token_id=None,
        initializer_range=0.1,
    )
    return "random L4 d256", GlmForCausalLM(config).eval()


def prompts(vocabulary: int) -> list[tuple[int, ...]]:
    """Eight prompts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    lengths = (40, 200, 75, 351, 600, 120, 30, 260)
    return [
        tuple(torch.randint(3, vocabulary, (n,), generator=generator).tolist()) for n in lengths
    ]


def generated(model: Any, prompt: Ids, new: int) -> list[int]:
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
    )
    return out[0, len(prompt) :].tolist()


def read(stream: Stream) -> list[int]:
    ids: list[int] = []
    while chunks := stream.next(600):
        ids += tokens(chunks)
        if chunks[-1].error:
            raise SystemExit(chunks[-1].error)
    return ids


def answers(engine: LocalEngine, asked: Sequence[Ids], new: int) -> list[list[int]]:
    sampling = Sampling(temperature=0, max_tokens=new)
    return [read(s) for s in [engine.submit(Request(tuple(p), sampling)) for p in asked]]


def conversation(engine: LocalEngine, parts: Sequence[Ids], new: int) -> list[list[int]]:
    """The parts as turns of one conversation, each after the answer to the one before."""
    said: list[int] = []
    out = []
    for part in parts:
        said += part
        out += answers(engine, [said], new)
        said += out[-1]
    return out


def rates(side: Side) -> tuple[float, float]:
    """Ids per second of wall time and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = side()
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def compare(a: Side, b: Side, rounds: int) -> dict[str, Any]:
    """Median over A B B A rounds of b's rate over a's."""
    found = []
    for _ in range(rounds):
        first, second, third, fourth = (rates(side) for side in (a, b, b, a))
        found.append([(first[i] + fourth[i], second[i] + third[i]) for i in (0, 1)])
    out: dict[str, Any] = {}
    for i, clock in enumerate(("wall", "cpu")):
        out[clock] = {
            "a": round(statistics.median(row[i][0] / 2 for row in found), 1),
            "b": round(statistics.median(row[i][1] / 2 for row in found), 1),
            "ratio": round(statistics.median(row[i][1] / row[i][0] for row in found), 3),
            "ratios": [round(row[i][1] / row[i][0], 3) for row in found],
        }
    return out


def measure(model: Any, new: int, rounds: int) -> dict[str, Any]:
    """All figures, after the gate."""
    asked = prompts(model.config.vocab_size)
    engine = LocalEngine(model, context=CONTEXT)
    plain = LocalEngine(model, context=CONTEXT, reuse=False)
    want = [generated(model, prompt, new) for prompt in asked]
    alone = [answers(plain, [prompt], new)[0] for prompt in asked]
    turns = [prompt[:60] for prompt in asked]
    equal = {
        "engine == generate()": sum(a == b for a, b in zip(alone, want, strict=True)),
        "8 users == generate()": sum(
            a == b for a, b in zip(answers(plain, asked, new), want, strict=True)
        ),
        "reuse == none": sum(
            a == b
            for a, b in zip(
                conversation(engine, turns, 8), conversation(plain, turns, 8), strict=True
            )
        ),
    }
    print("equal answers of 8:", equal)
    if any(count != len(asked) for count in equal.values()):
        raise SystemExit("the answers differ: no figures")
    one = asked[1]
    fresh = iter(range(3, model.config.vocab_size))  # another first id: nothing to reuse

    def talk(with_engine: LocalEngine) -> int:
        first = next(fresh)
        return sum(map(len, conversation(with_engine, [(first, *turns[0]), *turns[1:]], 8)))

    pairs: dict[str, tuple[Side, Side]] = {
        "generate() -> engine, one user": (
            lambda: len(generated(model, one, new)),
            lambda: len(answers(plain, [one], new)[0]),
        ),
        "one user -> 8 users, new prompts": (
            lambda: len(answers(plain, [one], new)[0]),
            lambda: sum(map(len, answers(plain, asked, new))),
        ),
        "one user -> 8 users, prompts kept": (
            lambda: len(answers(engine, [one], new)[0]),
            lambda: sum(map(len, answers(engine, asked, new))),
        ),
        "no reuse -> reuse, 8 turns": (lambda: talk(plain), lambda: talk(engine)),
    }
    out = {name: compare(a, b, rounds) for name, (a, b) in pairs.items()}
    engine.close()
    plain.close()
    return out


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="speed of the engine; see the top of the file")
    parser.add_argument("--new", type=int, default=128, help="ids per answer")
    parser.add_argument("--rounds", type=int, default=7, help="A B B A rounds per figure")
    options = parser.parse_args()
    torch.set_num_threads(1)  # what the engine takes for a model of this size
    name, model = load()
    figures = measure(model, options.new, options.rounds)
    for title, clocks in figures.items():
        wall, cpu = clocks["wall"], clocks["cpu"]
        print(
            f"{title}: {wall['a']} -> {wall['b']} ids/s, {wall['ratio']}x wall; {cpu['ratio']}x CPU"
        )
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python -m benchmarks.engine", *sys.argv[1:]]),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s", "glm") else ""),
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "load": Path("/proc/loadavg").read_text().split()[0] if sys.platform == "linux" else None,
        "model": name,
        "figures": figures,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
