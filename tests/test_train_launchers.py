"""The launchers people type themselves, on two CPU processes; each must know that there are two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.training.launching import own_programs_first
from tests.shared_files import ROOT
from tests.training import measured, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROGRAMS = Path(sys.executable).parent
FLAGS = (
    "--device", "cpu", "--max-seq-length", "256", "--batch-size", "2", "--accumulation", "1",
    "--max-steps", "1", "--log-interval", "1",
)  # fmt: skip
ZERO_1 = {"train_batch_size": "auto", "zero_optimization": {"stage": 1}}
ON_CPU = {"device": "cpu"}
ZERO_3 = {
    "train_micro_batch_size_per_gpu": "auto",
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "offload_optimizer": ON_CPU,
        "offload_param": ON_CPU,
    },
}
TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "finetune.train")
ACCELERATE = ("accelerate", "launch", "--num_processes", "2", "-m", "finetune.train")
DEEPSPEED = ("deepspeed", "--num_gpus", "2", "--module", "finetune.train")


def typed(words, rows, folder, *flags, **environ):
    """Run in a shell whose environment is the activated one."""
    around = {**os.environ, "PATH": own_programs_first(os.environ), **environ}
    words = [*words, "--train-file", str(rows), "--output-dir", str(folder), *FLAGS, *flags]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=around)


@pytest.mark.parametrize(
    ("launcher", "flags", "own", "said"),
    [
        (TORCHRUN, (), None, "2 processes, DDP"),
        (TORCHRUN, (), ZERO_1, "2 processes, ZeRO stage 1"),
        (ACCELERATE, ("--num-gpus", "2"), None, "2 processes, DDP"),
        (DEEPSPEED, (), ZERO_3, "2 processes, ZeRO stage 3, optimizer on cpu, param on cpu"),
    ],
)
def test_a_launcher_by_hand_trains_in_two_processes(launcher, flags, own, said, tmp_path):
    if own:
        (tmp_path / "own.json").write_text(json.dumps(own))
        flags = (*flags, "--deepspeed", str(tmp_path / "own.json"))
    rows = write_rows(tmp_path / "rows.jsonl")
    done = typed(launcher, rows, tmp_path / "x", *flags, DS_ACCELERATOR="cpu")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert said in (tmp_path / "x" / "train.log").read_text()
    assert list(measured(tmp_path / "x")) == [1]


def test_accelerate_that_starts_one_process_of_two_trains_nothing(tmp_path):
    done = typed(ACCELERATE, write_rows(tmp_path / "rows.jsonl"), tmp_path / "x")
    assert done.returncode != 0
    assert "was asked for several processes and started one" in done.stderr
    assert not (tmp_path / "x").exists()


# ---- Slurm ----

SRUN = """#!/usr/bin/env python
import os, subprocess, sys
nodes = [{"SLURM_NODEID": str(rank), "SLURM_NNODES": "2"} for rank in range(2)]
both = [subprocess.Popen(sys.argv[1:], env={**os.environ, **node}) for node in nodes]
sys.exit(max(process.wait() for process in both))
"""


def test_the_slurm_example_trains_on_two_nodes(tmp_path):
    """As it stands in the documentation, with a Slurm that starts both nodes here."""
    text = (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8")
    block = text.partition("## Slurm\n\n")[2].partition("\n\nA job")[0]
    script = tmp_path / "job.sh"
    lines = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    rows = write_rows(tmp_path / "rows.jsonl")
    for old, new in {
        "--num-gpus 8": "--num-gpus 1",
        "--model /shared/chatglm3-6b ": "",
        "/shared/rows.jsonl": str(rows),
        "/shared/runs/": f"{tmp_path}/",
        '"$MASTER"': f'"$MASTER" {" ".join(FLAGS)}',
    }.items():
        assert old in lines
        lines = lines.replace(old, new)
    script.write_text(lines + "\n", encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, content in {
        "srun": SRUN,
        "scontrol": "#!/bin/sh\necho localhost\necho other\n",
    }.items():
        (programs / name).write_text(content, encoding="utf-8")
        (programs / name).chmod(0o755)
    path = f"{programs}:{own_programs_first(os.environ)}"
    around = {**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[0-1]"}
    done = subprocess.run(
        ["bash", str(script)], cwd=ROOT, capture_output=True, text=True, env=around
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "2 processes, DDP" in (tmp_path / "7" / "train.log").read_text()
