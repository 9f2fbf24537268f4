"""What finetune_lora.sh teaches the embedded model, and what is forgotten over it.

A shop's tool convention (order_rows.py) is taught by the script as anybody would type it. Scored
are rows that were held out, answered freely and greedily, and the forgetting probe.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from finetune import doctor
from finetune.evaluate import FREE, Evaluation, evaluate
from finetune.formats import AUTO, read_row
from finetune.pretrain.frozen import normal
from finetune.probe import Probe, measure, points
from finetune.scoring.answering import Manner, Opened, open_model
from finetune.scoring.subject import Subject
from glm.checkpoint.recognise import EMBEDDED
from tests import order_rows
from tests.order_rows import HELD_OUT, TRAIN

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (1, 2, 3)


# ---- the rows ----


def sentences(part: str) -> set[str]:
    """What is asked, without the numbers, the cities and the marks."""
    asked = {row["conversations"][0]["content"] for row in order_rows.rows(part)}
    return {re.sub(r"\d+", "", normal(text)) for text in asked}


def values(part: str) -> set[str]:
    """Order numbers, amounts and cities; of states there are three."""
    turns = [turn for row in order_rows.rows(part) for turn in row["conversations"]]
    found = [turn["observation"] for turn in turns if turn["role"] == "tool"]
    return {one[key] for one in found for key in ("number", "total", "city") if key in one}


def test_held_out_rows_have_sentences_and_values_of_their_own():
    assert len(values(TRAIN)) > 300 and len(values(HELD_OUT)) > 100
    assert not values(TRAIN) & values(HELD_OUT)
    assert not sentences(TRAIN) & sentences(HELD_OUT)
    languages = [bool(re.search("[\u4e00-\u9fff]", text)) for text in sentences(HELD_OUT)]
    assert 0.4 < sum(languages) / len(languages) < 0.6


def test_the_rows_are_the_same_every_time_and_nothing_is_wrong_with_them(tmp_path, capsys):
    assert order_rows.rows(TRAIN) == order_rows.rows(TRAIN)
    for part in (TRAIN, HELD_OUT):
        assert doctor.main([str(order_rows.write(part, tmp_path / f"{part}.jsonl"))]) == 0
    assert "error" not in capsys.readouterr().out


# ---- teaching ----


@dataclass(frozen=True)
class Score:
    """How a model does on the held-out rows, and in the probe."""

    rows: Evaluation
    probe: Probe

    def of(self, kind: str, metric: str) -> float:
        return self.rows.figures[FREE][kind][metric].value

    @property
    def calls(self) -> float:
        """The share of the recorded calls that came exactly so."""
        return self.of("calls", "exact")

    @property
    def said(self) -> str:
        parts = {
            "right calls": self.calls,
            "whole exchanges": self.of("tools", "replayed"),
            "right abstention": self.of("tools", "abstains"),
            "probe": self.probe.share(),
        }
        return ", ".join(f"{name} {100 * value:.1f} %" for name, value in parts.items())


def score(model: Opened, adapter: str | None = None) -> Score:
    rows = enumerate(order_rows.rows(HELD_OUT))
    talks = [(number, f"row {number}", read_row(row, AUTO)) for number, row in rows]
    return Score(evaluate(talks, model.asker(Manner(adapter))), measure(model, adapter))


def teach(folder: Path, seed: int) -> Path:
    """The script, as it is typed; returns the adapter."""
    rows = order_rows.write(TRAIN, folder / f"orders-{seed}.jsonl")
    script = [str(ROOT / "finetune" / "finetune_lora.sh"), "--train-file", str(rows)]
    run = folder / f"run-{seed}"
    done = subprocess.run(
        ["bash", *script, "--seed", str(seed), "--device", "cpu", "--output-dir", str(run)],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = f"python -m finetune.inference --adapter {run / 'adapter'} --tools {rows}"
    assert asked in done.stdout
    return run / "adapter"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_lora_teaches_a_convention_and_little_is_forgotten(tmp_path, capsys):
    with ThreadPoolExecutor(2) as pool:
        adapters = list(pool.map(partial(teach, tmp_path), SEEDS))
    with open_model(Subject(str(EMBEDDED)), "cpu") as model:
        before = score(model)
        after = {seed: score(model, model.add(a)) for seed, a in zip(SEEDS, adapters, strict=True)}
    with capsys.disabled():
        print(f"\nbefore: {before.said}")
        for seed, found in after.items():
            print(f"seed {seed}: {found.said}")
    assert before.calls < 0.5
    assert all(found.calls - before.calls >= 0.2 for found in after.values())
    changes = [points(before.probe, found.probe) for found in after.values()]
    assert all(change >= -2 for change in changes), changes
