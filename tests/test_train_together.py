"""Two processes train as one does, and go on as they were: DDP, ZeRO-2, ZeRO-3, FSDP2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from finetune.machines import Crew
from glm.errors import BadRequest
from tests.shared_files import ROOT
from tests.training import measured, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FLAGS = (
    "--device", "cpu", "--max-seq-length", "256", "--batch-size", "2", "--max-steps", "4",
    "--save-interval", "2", "--log-interval", "1", "--lr", "1e-3", "--warmup-ratio", "0",
    "--lora-dropout", "0",
)  # fmt: skip
NEAR = 2e-5
WAYS = {"DDP": (), "ZeRO stage 2": ("--zero", "2"), "ZeRO stage 3": ("--zero", "3"),
        "FSDP2": ("--fsdp",)}  # fmt: skip

# One of five runs of FSDP2 with all weights failed here, and the cause is not found.
FSDP2 = pytest.param("FSDP2", marks=pytest.mark.unsteady)


def run(folder, rows, *flags):
    words = [sys.executable, "-m", "finetune.train", "--train-file", str(rows), "--dev-file"]
    words += [str(rows), "--output-dir", str(folder), *FLAGS, *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    asked = [f"{'hello ' * (n % 4 + 1)}{n}" for n in range(16)]
    write_rows(folder / "rows.jsonl", asked)
    for method in ("lora", "full"):
        run(folder / method, folder / "rows.jsonl", "--method", method, "--accumulation", "4")
    return folder


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("way", [*list(WAYS)[:3], FSDP2])
def test_two_processes_have_the_losses_of_one_and_go_on_exactly(way, method, alone, tmp_path):
    two = ("--num-gpus", "2", "--accumulation", "2", "--method", method, *WAYS[way])
    folder, rows = tmp_path / "x", alone / "rows.jsonl"
    run(folder, rows, *two)
    found, wanted = measured(folder), measured(alone / method)
    assert f"2 processes, {way}" in (folder / "train.log").read_text()
    assert found.keys() == wanted.keys()
    assert max(abs(found[step] - wanted[step]) for step in wanted) < NEAR
    dev = measured(folder, "dev_loss"), measured(alone / method, "dev_loss")
    assert max(abs(dev[0][step] - dev[1][step]) for step in dev[1]) < NEAR
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    run(folder, rows, *two, "--resume", "last")
    assert measured(folder) == found


def test_another_number_of_processes_than_were_started_is_told():
    class Alone:
        world_size = 1

    with pytest.raises(BadRequest, match="2 processes were started and 1 train together"):
        Crew(0, 0, 2).check(Alone())
