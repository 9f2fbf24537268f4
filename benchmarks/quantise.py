"""Memory, speed and error of 32, 16, 8 and 4 bit; what opening a packed checkpoint takes.

    python -m benchmarks.quantise            # the embedded model and a random one of 98 million
    python -m benchmarks.quantise --rounds 1 --new 16

Rates are ids per second of wall time: rounds go through the kinds forth and back, the figure is
the median. One user: the answer of one prompt of 64 ids; 8 users: eight at once; reading: a prompt
of 512 ids. Errors are against fp32 on a fixed text. The packed checkpoint is the random model in
the family's int4 layout; its figure is the largest anonymous memory while it is opened as bf16,
over the size of the opened weights. The result is printed and appended to
benchmarks/results/quantise.jsonl. Not measured: a GPU, and quality on real weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.engine import ROOT, answers, git
from glm.checkpoint.recognise import EMBEDDED, ModelInfo, recognise
from glm.dialects import DIALECTS
from glm.engines.local import LocalEngine
from glm.load import load_model
from glm.quantisation.error import SAMPLE, logit_error, weight_error
from glm.quantisation.quantise import quantised_modules
from glm.tokenizer import Tokenizer
from tests.packed_checkpoint import pack_folder
from tests.tiny_checkpoint import write_checkpoint

RESULTS = ROOT / "benchmarks" / "results" / "quantise.jsonl"
KINDS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "8 bit fp32": {"dtype": "float32", "bits": 8},
    "8 bit bf16": {"dtype": "bfloat16", "bits": 8},
    "4 bit bf16": {"dtype": "bfloat16", "bits": 4},
}
SHAPE = {"hidden_size": 768, "num_attention_heads": 12, "kv_channels": 64, "num_layers": 14}


def random_checkpoint(folder: Path) -> Path:
    """98 million weights, the quantised ones 85 of them, small enough to keep signals in range."""
    write_checkpoint(folder, vocabulary=8000, ffn_hidden_size=2048, seq_length=2048, **SHAPE)
    file = folder / "model.safetensors"
    state = {name: w if "norm" in name else w * 0.4 for name, w in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})
    return folder


def prompts(info: ModelInfo, count: int, length: int, seed: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)
    top = info.config["padded_vocab_size"]
    return [
        tuple(torch.randint(3, top, (length,), generator=generator).tolist()) for _ in range(count)
    ]


def rate(engine: LocalEngine, asked: list[tuple[int, ...]], new: int, counted: int) -> float:
    begun = time.perf_counter()
    answers(engine, asked, new)
    return counted / (time.perf_counter() - begun)


def speeds(info: ModelInfo, models: dict[str, Any], new: int, rounds: int) -> dict[str, Any]:
    """Medians by kind: {"one user": ids/s, "8 users": ids/s, "reading": ids/s}."""
    engines = {k: LocalEngine(m, context=1024, reuse=False) for k, m in models.items()}
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in engines}
    for number in range(-1, rounds):  # the first round only warms up
        for kind in [*engines, *reversed(engines)]:
            engine = engines[kind]
            figures = {
                "one user": rate(engine, prompts(info, 1, 64, number), new, new),
                "8 users": rate(engine, prompts(info, 8, 64, number), new, 8 * new),
                "reading": rate(engine, prompts(info, 1, 512, number), 1, 512),
            }
            if number >= 0:
                for name, value in figures.items():
                    found[kind].setdefault(name, []).append(value)
    for engine in engines.values():
        engine.close()
    return {
        kind: {name: round(statistics.median(values), 1) for name, values in rows.items()}
        for kind, rows in found.items()
    }


def errors(info: ModelInfo, models: dict[str, Any], ids: tuple[int, ...]) -> dict[str, Any]:
    """Against fp32: relative error of the logits, of the weights, the same next tokens."""
    out = {}
    for kind, model in models.items():
        relative, largest, same = logit_error(model, models["fp32"], ids)
        names = [name for name, _ in quantised_modules(model)]
        out[kind] = {
            "logits": round(relative, 4),
            "largest": round(largest, 3),
            "same": f"{same}/{len(ids)}",
            "weights": round(weight_error(model, info, names), 4) if names else None,
        }
    return out


def measure(info: ModelInfo, ids: tuple[int, ...], new: int, rounds: int) -> dict[str, Any]:
    models = {kind: load_model(info, "cpu", **options) for kind, options in KINDS.items()}
    wrong = errors(info, models, ids)
    fast = speeds(info, models, new, rounds)
    return {
        kind: {"MB": round(model.get_memory_footprint() / 1e6, 1), **fast[kind], **wrong[kind]}
        for kind, model in models.items()
    }


@contextmanager
def anonymous_memory() -> Iterator[list[int]]:
    """The largest anonymous memory of this process within, over that at its beginning; bytes."""

    def now() -> int:
        status = Path("/proc/self/status").read_text().partition("RssAnon:")[2]
        return int(status.split()[0]) * 1024

    before, largest, done = now(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            largest[0] = max(largest[0], now() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        done.set()
        thread.join()


def packed(folder: Path) -> dict[str, Any]:
    """What it takes to open an int4 checkpoint as bf16, in a process that has freed nothing yet."""
    pack_folder(folder, 4, binary=True)
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(opened, (folder,))


def opened(folder: Path) -> dict[str, Any]:
    info = recognise(folder)
    load_model(recognise(EMBEDDED), "cpu", "bfloat16")  # what the first load of a process brings
    begun = time.perf_counter()
    with anonymous_memory() as largest:
        model = load_model(info, "cpu", "bfloat16")
    seconds = time.perf_counter() - begun
    size = model.get_memory_footprint()
    return {
        "file MB": round(info.weights[0].stat().st_size / 1e6, 1),
        "opened MB": round(size / 1e6, 1),
        "peak / opened": round(largest[0] / size, 3),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="memory, speed and error; see the top of the file")
    parser.add_argument("--new", type=int, default=48, help="ids per answer")
    parser.add_argument("--rounds", type=int, default=3, help="rounds forth and back")
    options = parser.parse_args()
    embedded = recognise(EMBEDDED)
    sample = DIALECTS[embedded.dialect](Tokenizer(embedded.tokenizer)).prompt(SAMPLE)
    with tempfile.TemporaryDirectory() as place:
        info = recognise(random_checkpoint(Path(place) / "random-98m"))
        figures = {
            "assets/tiny": measure(embedded, sample, options.new, options.rounds),
            "random 98M": measure(info, prompts(info, 1, 200, 0)[0], options.new, options.rounds),
            "packed int4 of it": packed(info.path),
        }
    for name, rows in figures.items():
        print(name, json.dumps(rows, indent=2))
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": f"python -m benchmarks.quantise --new {options.new} --rounds {options.rounds}",
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s", "glm") else ""),
        "machine": machine(),
        "figures": figures,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def machine() -> str:
    import platform

    kind = platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    load = Path("/proc/loadavg").read_text().split()[0]
    return f"{kind} {capability}, torch {torch.__version__}, load {load}"


if __name__ == "__main__":
    main()
