"""Time to the first step of training on a large file: for training.py."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import write
from benchmarks.engine import ROOT

BAR = 60.0
FIRST = re.compile(r"global step 1 .*loss: (?P<loss>[0-9.]+)")


def measure(rows: int) -> dict[str, Any]:
    """Seconds from the start of the trainer's process to the line about its first step."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / "rows.jsonl"
        size = write(file, rows)
        words = ["--train-file", str(file), "--output-dir", str(folder / "run")]
        flags = ["--packing", "--max-steps", "1", "--log-interval", "1", "--device", "cpu"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune.train", *words, *flags],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        )  # fmt: skip
        assert process.stdout is not None
        said, seconds, loss = [], 0.0, ""
        for line in process.stdout:
            said.append(line)
            if not seconds and (found := FIRST.match(line)):
                seconds, loss = time.perf_counter() - began, found["loss"]
        if process.wait() or not seconds:
            raise SystemExit("".join(said[-30:]) + "the run did not get to its first step")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # memory that maps the file counts too
    return {
        "rows": rows,
        "file_mb": round(size / 1e6, 1),
        "first_step_s": round(seconds, 2),
        "whole_run_cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "loss": float(loss),
        "whole_run_peak_mb": round(usage.ru_maxrss / 1e3),
        "bar_s": BAR,
        "held": seconds < BAR,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000), indent=1))
