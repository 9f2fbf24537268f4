"""Training: tokens of the rows per CPU-second, ours against padded rows and against TRL's packing.

    python -m benchmarks.training                                     # all tables, about 15 minutes
    python -m benchmarks.training --only toolalpaca --rounds 3
    python -m benchmarks.training --trl-python /tmp/trl/bin/python    # with TRL beside
    python -m benchmarks.training --only first-step
    python -m benchmarks.training --gpu                               # benchmarks/training_gpu.py

The ways (benchmarks/training_ways.py), all LoRA on every linear layer by one AdamW, of one number
type, one model, one seed, without dropout (else losses could not be compared):
  ours      `python -m finetune.train --packing`: rows in lines of 2048, the head on what is learnt
  unfused   the same without finetune/training/fused.py
  official  ChatGLM3's finetune_demo on today's library: each row padded to 2048, one row a batch
            (DEV_BATCH_SIZE=1, GRAD_ACCUMULATION_STEPS rows a step), no attention mask, logits and
            loss of every position
  trl       trl 1.16.0 SFTTrainer, packing=True (bfd), max_length 2048, labels made before, sdpa, no
            gradient checkpointing. On a CPU its fused head scores every position, and it asks for
            flash attention to keep packed rows apart; sdpa keeps them apart too, by a mask
A step is all rows of the table once, in every way, so steps compare whatever a batch is. Each way
is a process that trains a step when it is told to: after one to warm up, rounds of A B C D D C B A.
A round gives the ratio of the sums; the figure is the median of the rounds, with least and most.
CPU-seconds are user and system time of the process, reading rows and optimizer included: a busy
machine disturbs them little. Wall seconds stand beside.

First the gate: every way saw the same ids and labels, and the losses of all steps agree (--rounds
give 2 steps each) to 1e-4 of their value in fp32, 5e-3 in bf16; else no time is printed.

The rows are taken at even steps of the length, so that they are as long as the file's on average;
the real vocabulary and the rows lie in ../shared, without which a table says so and is left out.
`first-step`: seconds from the start of `python -m finetune.train` to the end of its first step, on
a file of a million rows whose index is made anew (bar: 60). TRL: a venv of its own with trl==1.16.0
and what requirements.txt pins. Appended to benchmarks/results/training.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import training_gpu, training_start
from benchmarks.engine import ROOT, git
from benchmarks.quantise import machine
from finetune.batches.packing import fill, pack
from finetune.files.rows import open_rows
from finetune.formats import read_row
from finetune.layouts import Example, Limits, choose
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.dialects import DIALECTS
from glm.tokenizers.opening import open_tokenizer
from tests.shared_files import CHATGLM3_TOKENIZER, SHARED

RESULTS = ROOT / "benchmarks" / "results" / "training.jsonl"
LENGTH, MARK = 2048, "@step "
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}
# 312 million parameters, 133 of them embeddings and head of the real vocabulary
SHAPE = {"hidden_size": 1024, "num_attention_heads": 16, "kv_channels": 64, "num_layers": 14}


@dataclass(frozen=True, slots=True)
class Table:
    """`bars` are the least ratios of ours to another way that are promised."""

    data: Path
    size: str
    rows: int
    precision: str
    bars: dict[str, float]


TABLES = {
    "toolalpaca": Table(
        SHARED / "data/toolalpaca/rebuilt_formatted_tool_alpaca.jsonl",
        "random 0.3B, real vocabulary", 12, "bf16", {"official": 3.0, "trl": 1.1},
    ),
    "alpaca-zh": Table(
        SHARED / "data/llamafactory/alpaca_zh_demo.json",
        "embedded", 24, "fp32", {"official": 5.0, "trl": 1.1},
    ),
}  # fmt: skip


class Way:
    """A way to train, in a process of its own."""

    def __init__(self, name: str, python: str, job: Path) -> None:
        command = [python, "-W", "ignore", "-m", "benchmarks.training_ways", name, str(job)]
        self.name, self.log = name, (job.parent / f"{name}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.read()

    def step(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next line about a step. Exits with what was said when there is none."""
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return found
            said.append(line)
        self.log.seek(0)
        raise SystemExit("".join([*said[-20:], self.log.read()[-4000:], f"{self.name} ended"]))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.log.close()


# ---- rows ----


def even(lengths: list[int], count: int) -> list[int]:
    """The middle of each of `count` equal parts of the rows by length."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    count = min(count, len(order))
    return [order[(2 * part + 1) * len(order) // (2 * count)] for part in range(count)]


def prepare(table: Table, model: Path, folder: Path) -> dict[str, Any]:
    """Write rows.jsonl and job.json of a table; what the rows are like."""
    info = recognise(model)
    dialect = DIALECTS[info.dialect](open_tokenizer(info))
    layout = choose("auto", dialect)
    rows = open_rows(table.data)
    made: list[tuple[Any, Example]] = []
    for number in range(len(rows)):
        row, _ = rows[number]
        example = layout.encode(read_row(row, "auto"), dialect, Limits(LENGTH))
        if isinstance(example, Example):
            made.append((row, example))
    lengths = [len(example.ids) for _, example in made]
    chosen = [made[place] for place in even(lengths, table.rows)]
    random.Random(0).shuffle(chosen)
    taken = [len(example.ids) for _, example in chosen]
    bins = pack(taken, LENGTH)
    file = folder / "rows.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row, _ in chosen)
    file.write_text(text + "\n", encoding="utf-8")
    argv = [
        *("--model", str(model), "--train-file", str(file), "--device", "cpu"),
        *("--precision", table.precision, "--packing", "--max-seq-length", str(LENGTH)),
        *("--batch-size", "1", "--accumulation", str(len(bins)), "--lora-dropout", "0"),
        *("--schedule", "constant", "--warmup-ratio", "0", "--max-steps", "1000"),
        *("--log-interval", "1", "--save-interval", "0"),
    ]
    examples = [(example.ids, example.labels) for _, example in chosen]
    job = {"argv": argv, "rows": examples}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return {
        "model": table.size,
        "precision": table.precision,
        "rows": len(chosen),
        "tokens": sum(taken),
        "learnt": sum(example.learnt for _, example in chosen),
        "tokens a row": round(sum(taken) / len(taken), 1),
        "tokens a row of the file": round(sum(lengths) / len(lengths), 1),
        "lines": len(bins),
        "fill": round(fill(taken, bins, LENGTH), 3),
    }


def random_model(folder: Path) -> Path:
    """A ChatGLM3 checkpoint of 0.3 billion random numbers, in fp16 as the original."""
    from safetensors.torch import save_file

    from tests.tiny_checkpoint import CONFIG, weights, write_checkpoint

    own = {**SHAPE, "ffn_hidden_size": 3424, "seq_length": 8192, "torch_dtype": "float16"}
    write_checkpoint(folder, vocabulary=64, **own)  # config and tokenizer
    config = {**CONFIG, **own, "padded_vocab_size": 65024, "vocab_size": 65024}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {
        name: (weight if "norm" in name else weight * 0.25).half()
        for name, weight in weights(config).items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ---- measuring ----


def gate(steps: dict[str, list[dict[str, Any]]], tolerance: float) -> str:
    """ "" when all ways trained the same; else what differs."""
    first, *others = steps
    for name in others:
        if steps[name][0]["rows"] != steps[first][0]["rows"]:
            return f"{name} did not see the rows and labels that {first} saw"
        for number, (a, b) in enumerate(zip(steps[first], steps[name], strict=False), 1):
            if abs(a["loss"] - b["loss"]) > tolerance * abs(a["loss"]):
                return f"step {number}: loss {a['loss']} of {first}, {b['loss']} of {name}"
    return ""


def ratios(steps: dict[str, list[dict[str, Any]]], clock: str) -> dict[str, Any]:
    """Of each other way's seconds to those of ours, round by round; a round is two steps."""
    out = {}
    sums = {
        name: [a[clock] + b[clock] for a, b in zip(told[1::2], told[2::2], strict=True)]
        for name, told in steps.items()
    }
    for name in sums:
        if name != "ours":
            found = [b / a for a, b in zip(sums["ours"], sums[name], strict=True)]
            rounded = [round(value, 3) for value in found]
            median = round(statistics.median(found), 3)
            out[name] = {"median": median, "min": min(rounded), "max": max(rounded)}
    return out


def measure(table: Table, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of a table. Exits without any where the ways did not train the same."""
    model = EMBEDDED
    if table.size != "embedded":
        model = folder / "model"
        with get_context("spawn").Pool(1) as pool:  # its weights would stay in this memory
            pool.apply(random_model, (model,))
    about = prepare(table, model, folder)
    print(json.dumps(about), flush=True)
    pythons = dict.fromkeys(("ours", "unfused", "official"), sys.executable)
    pythons["trl"] = options.trl_python
    ways: list[Way] = []
    steps: dict[str, list[dict[str, Any]]] = {
        name: [] for name, python in pythons.items() if python
    }
    try:
        for name in steps:
            job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            job["argv"] += ["--output-dir", str(folder / name)]
            own = folder / f"{name}.json"
            own.write_text(json.dumps(job), encoding="utf-8")
            ways.append(Way(name, pythons[name], own))
            steps[name].append(ways[-1].step())
        for _ in range(options.rounds):
            for way in [*ways, *reversed(ways)]:
                steps[way.name].append(way.step())
    finally:
        for way in ways:
            way.close()
    losses = {name: [round(step["loss"], 5) for step in told] for name, told in steps.items()}
    if wrong := gate(steps, TOLERANCE[table.precision]):
        sys.exit(f"the gate is shut: {wrong}\n{json.dumps(losses)}")
    rate = {
        name: {
            clock: round(about["tokens"] / statistics.median(step[clock] for step in told[1:]), 1)
            for clock in ("cpu", "wall")
        }
        for name, told in steps.items()
    }
    cpu = ratios(steps, "cpu")
    held = all(cpu[name]["median"] >= bar for name, bar in table.bars.items() if name in cpu)
    return {
        **about,
        "losses": losses,
        "tokens per second": rate,
        "times ours, CPU": cpu,
        "times ours, wall": ratios(steps, "wall"),
        "bars": {name: bar for name, bar in table.bars.items() if name in cpu},
        "held": held,
    }


def tables(options: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for name, table in TABLES.items():
        if options.only not in ("", name):
            continue
        if not (table.data.exists() and CHATGLM3_TOKENIZER.exists()):
            print(f"{name}: left out, its rows or the real vocabulary are not in {SHARED}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            chosen = replace(table, rows=options.sample or table.rows)
            found[name] = measure(chosen, options, Path(folder))
        print(name, json.dumps(found[name], indent=1), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="training speed; see the top of the file")
    parser.add_argument("--only", default="", choices=[*TABLES, "first-step"], help="one table")
    parser.add_argument("--rounds", type=int, default=3, help="rounds forth and back")
    parser.add_argument("--sample", type=int, default=0, help="rows of a table; 0: its own")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large file")
    parser.add_argument("--trl-python", default="", help="a python with TRL and our libraries")
    parser.add_argument("--gpu", action="store_true", help="a random 6B on a card, nothing else")
    options = parser.parse_args()
    if options.gpu:
        figures = training_gpu.measure(lambda job: Way("ours", sys.executable, job))
        if figures:
            record({"gpu": figures})
        return
    if options.only != "first-step" and not options.trl_python:
        print("trl: left out, --trl-python names no python that has it")
    figures = tables(options)
    if options.only in ("", "first-step"):
        figures["first-step"] = training_start.measure(options.rows)
        print("first-step", json.dumps(figures["first-step"], indent=1), flush=True)
    record(figures)


def record(figures: dict[str, Any]) -> None:
    row = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python -m benchmarks.training", *shown(sys.argv[1:])]),
        "commit": git("rev-parse", "--short", "HEAD")
        + ("+" if git("status", "-s", "glm", "finetune") else ""),
        "machine": machine(),
        "figures": figures,
    }
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row, ensure_ascii=False) + "\n")


def shown(words: list[str]) -> list[str]:
    """The command without a path of this machine."""
    hidden = {place + 1 for place, word in enumerate(words) if word == "--trl-python"}
    return ["PYTHON" if place in hidden else word for place, word in enumerate(words)]


if __name__ == "__main__":
    main()
