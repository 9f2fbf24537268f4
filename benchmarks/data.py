"""What the training stream costs: time to a first batch, memory at 10 thousand and 1 million rows.

    python -m benchmarks.data                     # writes 1 M rows into a temporary folder
    python -m benchmarks.data --rows 200000

Each file is read in a process of its own, its index made anew: "first_batch_s" is from opening the
file to the first packed batch, "anonymous_mb" the most memory that is no file's pages over that of
the imports, up to the given number of batches. First a gate: every row of the small file once.
The bars: the first batch of the large file within 60 s, and at most 50 MB more memory than for the
small one. The vocabulary is the embedded model's, or that of a `tokenizer.model` given. Appended to
benchmarks/results/data.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.engine import git
from benchmarks.load import memory

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results" / "data.jsonl"
SMALL, LARGE, CAPACITY, BATCHES = 10_000, 1_000_000, 2048, 400
WORDS = "the weather in Lisbon is mild today we ask about 北京 的 天气 and other things"


def write(file: Path, rows: int) -> int:
    """Rows of 20 to 400 words in two turns, the middle about 120; the size of the file."""
    source = random.Random(0)
    texts = [" ".join(source.choices(WORDS.split(), k=400)) for _ in range(50)]
    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            size = min(400, int(20 + source.lognormvariate(4.3, 0.8)))
            question = f"{number} {texts[number % 50][: 3 * size]}"
            answer = texts[(number * 7) % 50][: 3 * size]
            turns = [("user", question), ("assistant", answer), ("user", "?"), ("assistant", "!")]
            conversations = [{"role": role, "content": text} for role, text in turns]
            out.write(json.dumps({"conversations": conversations}, ensure_ascii=False) + "\n")
    return file.stat().st_size


class Talks:
    """The conversations of a file of rows."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        from finetune.formats import read_row

        return read_row(self.rows[index][0])


def read(file: Path, tokenizer: Path, cache: Path, batches: int) -> dict[str, Any]:
    """Open a file in this process, take some batches, and say what that took."""
    from finetune.batches.loader import Loader
    from finetune.data import Plan, Source, Stream
    from finetune.files.rows import open_rows
    from finetune.layouts import Limits, choose
    from glm.dialects.chatglm3 import ChatGLM3
    from glm.tokenizer import Tokenizer

    dialect = ChatGLM3(Tokenizer(tokenizer))
    encode = partial(choose("auto", dialect).encode, dialect=dialect, limits=Limits(CAPACITY))
    before, began = memory()[0], time.perf_counter()
    rows = open_rows(str(file), cache)
    opened = time.perf_counter() - began
    loader = Loader(Stream([Source(Talks(rows))], encode, Plan(packing=True, capacity=CAPACITY)))
    reading: Iterator[Any] = iter(loader)
    next(reading)
    first, most = time.perf_counter() - began, memory()[0]
    room = 0
    for taken, batch in enumerate(reading, 2):
        most, room = max(most, memory()[0]), room + batch["input_ids"].numel()
        if taken == batches:
            break
    seconds = time.perf_counter() - began
    return {
        "rows": len(rows),
        "file_mb": round(file.stat().st_size / 1e6, 1),
        "open_s": round(opened, 2),
        "first_batch_s": round(first, 2),
        "batches": taken,
        "rows_per_s": round(loader.tally.rows / seconds),
        "tokens_per_s": round(loader.tally.tokens / seconds),
        "fill": round(room / ((taken - 1) * CAPACITY), 4),
        "anonymous_mb": round((most - before) / 1e6, 1),
    }


def every_row_comes_once(file: Path) -> bool:
    """The gate: an epoch of two processes is every row, once, whatever order it has."""
    from finetune.batches.order import Order, Share

    rows = sum(1 for _ in file.open("rb"))
    order = Order([Share(rows)], seed=1)
    seen = [row for number in range(order.windows) for _, row in order.window(0, number)]
    return sorted(seen) == list(range(rows)) and seen != sorted(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description="the training stream; see the top of the file")
    parser.add_argument("--rows", type=int, default=LARGE, help="rows of the large file")
    parser.add_argument("--batches", type=int, default=BATCHES, help="packed batches to take")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "assets/tiny/tokenizer.model")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        cache = options.read.parent / "cache"
        print(json.dumps(read(options.read, options.tokenizer, cache, options.batches)))
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("small", min(SMALL, options.rows)), ("large", options.rows)):
            file = Path(folder) / f"{name}.jsonl"
            write(file, rows)
            if name == "small" and not every_row_comes_once(file):
                sys.exit("the gate is shut: not every row comes once")
            figures[name] = one(file, options)
    grown = figures["large"]["anonymous_mb"] - figures["small"]["anonymous_mb"]
    result = {
        "when": time.strftime("%Y-%m-%d"),
        "commit": git("rev-parse", "--short", "HEAD"),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "tokenizer_bytes": options.tokenizer.stat().st_size,
        **figures,
        "grown_mb": round(grown, 1),
        "held": grown <= 50 and figures["large"]["first_batch_s"] < 60,
    }
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write(json.dumps(result) + "\n")
    print(json.dumps(result, indent=1))


def one(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`read` in a process of its own."""
    words = ["--read", str(file), "--tokenizer", str(options.tokenizer)]
    command = [sys.executable, "-m", "benchmarks.data", *words, "--batches", str(options.batches)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(file.name, found, flush=True)
    return found


if __name__ == "__main__":
    main()
