"""Every method, from three steps to an answer by the command that the run itself ends with."""

from __future__ import annotations

import re
import shlex

import pytest

from finetune import inference
from tests.training import measured, train, write_rows

TOKENS = ("--method", "ptuning", "--pre-seq-len", "8")
PREFIX = (*TOKENS, "--lr", "5e-2")  # a table; an MLP would be torn by so large a rate
WAYS = {
    "lora": ("--method", "lora"),
    "dora": ("--method", "lora", "--dora"),
    "rslora": ("--method", "lora", "--rslora"),
    "qlora": ("--method", "qlora"),
    "ptuning": (*PREFIX, "--packing"),
    "ptuning with projection": (*TOKENS, "--prefix-projection"),
    "full": ("--method", "full", "--gradient-checkpointing"),
    "freeze": ("--method", "freeze"),
    "lora in 8 bits": ("--method", "lora", "--quantization-bit", "8"),
    "lora in 4 bits": ("--method", "lora", "--quantization-bit", "4"),
    "ptuning in 8 bits": (*PREFIX, "--quantization-bit", "8"),
    "ptuning in 4 bits": (*PREFIX, "--quantization-bit", "4"),
    "raw text": (*PREFIX, "--layout", "prompt-response"),
}
QUICK = ("lora", "qlora", "ptuning", "full")  # the others are slow together
FEW = ("--max-steps", "3", "--log-interval", "1", "--lr", "1e-3", "--warmup-ratio", "0")


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in QUICK else pytest.mark.slow) for way in WAYS]
)
def test_a_run_ends_with_the_command_that_asks_its_result(way, tmp_path, capsys):
    rows = write_rows(tmp_path / "rows.jsonl")
    flags = (*FEW, *WAYS[way], "--dev-file", str(rows))
    assert train(tmp_path / "a run", *flags, rows=rows) == 0
    losses = measured(tmp_path / "a run")
    assert losses[3] < losses[1]
    said = capsys.readouterr().out
    (command,) = re.findall(r"python -m finetune\.inference (.*)", said)
    words = [*shlex.split(command), "--prompt", "hello", "--max-new-tokens", "8"]
    assert inference.main(words) == 0
    answered = capsys.readouterr().out.strip()
    assert answered or "--raw" in words  # raw text is strange to it, and it may end at once
