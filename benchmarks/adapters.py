"""What adapters cost: choosing one of 1, 10, 100; opening one from its file; a mixed step.

    python -m benchmarks.adapters                # the embedded model, LoRAs of rank 8 everywhere
    python -m benchmarks.adapters --rounds 3 --new 64

First a gate: an answer with an adapter equals that of the model it was merged into. "A step" is one
id for 8 users at once: with the base, with one adapter for all, with 8 different ones of 100, in
rounds A B B A (`benchmarks.engine`). The bars: choosing under 1 ms and flat, opening under 50 ms, a
mixed step at most 2.2 times one of the base. Appended to benchmarks/results/adapters.jsonl.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import answers, compare, git, load, prompts, read
from glm.adapters.catalog import Catalog
from glm.adapters.opening import open_adapter
from glm.adapters.saving import save_peft_lora
from glm.adapters.shelf import Shelf
from glm.adapters.values import Adapter, AdapterInfo, LoraPart
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.messages import Sampling

RESULTS = Path(__file__).resolve().parent / "results" / "adapters.jsonl"
CONTEXT, RANK = 4096, 8


def lora(model: Any, seed: int) -> Adapter:
    """A random LoRA on every linear module but the head."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            a = torch.randn(RANK, module.in_features, generator=generator) * 0.02
            b = torch.randn(module.out_features, RANK, generator=generator) * 0.02
            parts[name] = LoraPart(a, b, 2.0)
    return Adapter(AdapterInfo(f"a{seed}", Path(), "LoRA", RANK), parts)


def choosing(engine: LocalEngine, made: list[Adapter]) -> dict[str, float]:
    """Milliseconds from an address to the seat it names, by how many adapters there are."""
    out = {}
    waiting = iter(made)
    shelf = Shelf(engine, "base", lambda path, alpha: next(waiting), Catalog())
    seats = engine._scheduler.seats
    for count in (1, 10, len(made)):
        while len(shelf.all()) < count:
            shelf.add(Path(f"/a{len(shelf.all())}"))
        names = [f"base:a{i * 7 % count}" for i in range(2000)]
        begin = time.perf_counter()
        for name in names:
            seats.get(shelf.key(name))
        out[str(count)] = round((time.perf_counter() - begin) / len(names) * 1e3, 4)
    return out


def opening(engine: LocalEngine, made: Adapter, rounds: int) -> dict[str, float]:
    """Milliseconds from a PEFT folder to an adapter that can be chosen."""
    info = recognise(EMBEDDED)
    found = []
    with tempfile.TemporaryDirectory() as place:
        save_peft_lora(made, Path(place), "assets/tiny")
        for number in range(rounds):
            begin = time.perf_counter()
            engine.add_adapter(f"file{number}", open_adapter(Path(place), info, engine.config))
            found.append((time.perf_counter() - begin) * 1e3)
            engine.remove_adapter(f"file{number}")
    return {"median": round(statistics.median(found), 2), "max": round(max(found), 2)}


def run(engine: LocalEngine, keys: list[str | None], new: int) -> int:
    """Eight answers at once; the ids they have."""
    sampling = Sampling(temperature=0, max_tokens=new)
    asked = prompts(engine.vocabulary)
    pairs = zip(asked, keys, strict=True)
    streams = [engine.submit(Request(ids, sampling, adapter=key)) for ids, key in pairs]
    return sum(len(read(stream)) for stream in streams)


def gate(model: Any, one: Adapter) -> None:
    """An answer with the adapter, and one of the merged model; the weights are put back."""
    asked = prompts(model.config.vocab_size)[:2]
    engine = LocalEngine(model, context=CONTEXT)
    engine.add_adapter("one", one)
    sampling = Sampling(temperature=0, max_tokens=32)
    with_it = [read(engine.submit(Request(ids, sampling, adapter="one"))) for ids in asked]
    engine.close()
    kept = {name: model.get_submodule(name).weight.detach().clone() for name in one.lora}
    with torch.no_grad():
        for name, part in one.lora.items():
            model.get_submodule(name).weight += part.scale * part.b @ part.a
        merged = LocalEngine(model, context=CONTEXT)
        same = answers(merged, asked, 32) == with_it
        merged.close()
        for name, weight in kept.items():
            model.get_submodule(name).weight.copy_(weight)
    print("equal to the merged model:", same)
    if not same:
        raise SystemExit("the answers differ: no figures")


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of adapters; see the top of the file")
    parser.add_argument("--new", type=int, default=128, help="ids per answer")
    parser.add_argument("--rounds", type=int, default=7, help="A B B A rounds per figure")
    options = parser.parse_args()
    torch.set_num_threads(1)  # what the engine takes for a model of this size
    name, model = load()
    made = [lora(model, seed) for seed in range(100)]
    gate(model, made[0])
    engine = LocalEngine(model, context=CONTEXT)
    figures: dict[str, Any] = {"choosing, ms": choosing(engine, made)}
    engine.close()
    engine = LocalEngine(model, context=CONTEXT)
    plain = partial(run, engine, [None] * 8, options.new)
    plain()
    before = compare(plain, plain, 1)
    for i, one in enumerate(made):
        engine.add_adapter(str(i), one)
    figures["opening a file, ms"] = opening(engine, made[0], 20)
    figures["noise, the base against itself"] = before
    for title, keys in {
        "one adapter for 8 users": ["5"] * 8,
        "8 different adapters of 100": [str(12 * i) for i in range(8)],
    }.items():
        mixed = partial(run, engine, keys, options.new)
        mixed()
        figures[f"base -> {title}"] = compare(plain, mixed, options.rounds)
    figures["memory of 100 adapters, MB"] = round(engine.adapter_bytes / 1e6, 1)
    engine.close()
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python -m benchmarks.adapters", *sys.argv[1:]]),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s", "glm") else ""),
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "load": Path("/proc/loadavg").read_text().split()[0] if sys.platform == "linux" else None,
        "model": name,
        "figures": figures,
    }
    print(json.dumps(row, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
