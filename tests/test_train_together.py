"""Two processes train as one does, and go on as they were: DDP, ZeRO (offloaded too), FSDP2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from finetune.training import checkpoints
from finetune.training.machine import this_machine
from finetune.training.machines import Crew
from glm.errors import BadRequest
from tests.shared_files import ROOT
from tests.test_train_pickles import Trap
from tests.training import measured, write_rows
from tests.two_hosts import ADDRESSES, NAMES, finish, missing, two_hosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FLAGS = (
    "--device", "cpu", "--max-seq-length", "256", "--batch-size", "2", "--max-steps", "4",
    "--save-interval", "2", "--log-interval", "1", "--lr", "1e-3", "--warmup-ratio", "0",
    "--lora-dropout", "0",
)  # fmt: skip
NEAR = 2e-5
MASTER = f"{ADDRESSES[0]}:29501"
WAYS = {"DDP": (), "ZeRO stage 2": ("--zero", "2"), "ZeRO stage 3": ("--zero", "3"),
        "FSDP2": ("--fsdp",)}  # fmt: skip
CASES = [(way, method) for way in WAYS for method in ("lora", "full")]
CASES += [("ZeRO stage 3", "ptuning"), ("FSDP2", "ptuning")]
OFFLOAD = {
    "ZeRO stage 2, optimizer on cpu": ("--zero", "2", "--offload"),
    "ZeRO stage 3, optimizer on cpu, param on cpu": ("--zero", "3", "--offload"),
}
CASES += [(way, "lora") for way in OFFLOAD]


def start(folder, rows, *flags, **around):
    words = [sys.executable, "-m", "finetune.train", "--train-file", str(rows), "--dev-file"]
    words += [str(rows), "--output-dir", str(folder), *FLAGS, *flags]
    around = {**os.environ, **around}
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=around)


def run(folder, rows, *flags, **around):
    done = start(folder, rows, *flags, **around)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    asked = [f"{'hello ' * (n % 4 + 1)}{n}" for n in range(16)]
    write_rows(folder / "rows.jsonl", asked)
    for method in ("lora", "full", "ptuning"):
        run(folder / method, folder / "rows.jsonl", "--method", method, "--accumulation", "4")
    return folder


@pytest.mark.parametrize(("way", "method"), CASES)
def test_two_processes_have_the_losses_of_one_and_go_on_exactly(way, method, alone, tmp_path):
    if way in OFFLOAD and not this_machine().compiler:
        pytest.skip("deepspeed builds its optimizer with a C++ compiler: apt-get install g++")
    own = {**WAYS, **OFFLOAD}[way]
    two = ("--num-gpus", "2", "--accumulation", "2", "--method", method, *own)
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


def test_how_pythons_own_end_goes_is_no_part_of_a_run(alone, tmp_path):
    """Threads of the process group outlive it, and abort a process now and then as Python ends."""
    broken = "import atexit, os\nif 'RANK' in os.environ:\n    atexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(broken)
    run(tmp_path / "x", alone / "rows.jsonl", "--num-gpus", "2", PYTHONPATH=str(tmp_path))
    assert "trained 4 steps" in (tmp_path / "x" / "train.log").read_text()


@pytest.mark.parametrize("way", ["a hostfile", "options"])
def test_two_machines_have_the_losses_of_one_process(way, alone, tmp_path):
    if reason := missing():
        pytest.skip(reason)
    folder, rows = tmp_path / "x", str(alone / "rows.jsonl")
    (tmp_path / "hosts").write_text("".join(f"{name} slots=1\n" for name in NAMES))
    words = [sys.executable, "-m", "finetune.run", "finetune_lora", "--train-file", rows]
    words += ["--dev-file", rows, "--output-dir", str(folder), "--accumulation", "2", *FLAGS]
    words += ["--mix-tools", "0", "--weight-decay", "0"]  # no more than `alone` learns
    with two_hosts(tmp_path, named=way == "a hostfile") as hosts:
        started = []
        for rank, host in enumerate(hosts):
            place = ["--hostfile", str(tmp_path / "hosts")]
            if way == "options":
                place = ["--nodes", "2", "--node-rank", str(rank), "--master", MASTER]
            started.append(host.start([*words, *place], tmp_path / f"log-{rank}"))
        codes = finish(started, 400)
    said = "".join((tmp_path / f"log-{rank}").read_text() for rank in (0, 1))
    assert codes == [0, 0], said[-3000:]
    assert "2 processes, DDP" in (folder / "train.log").read_text()
    found, wanted = measured(folder), measured(alone / "lora")
    assert max(abs(found[step] - wanted[step]) for step in wanted) < NEAR


def test_another_number_of_processes_than_were_started_is_told():
    class Alone:
        world_size = 1

    with pytest.raises(BadRequest, match="2 processes were started and 1 train together"):
        Crew(0, 0, 2).check(Alone())


def test_a_checkpoint_with_code_in_deepspeeds_files_is_refused_before_anything_runs(tmp_path):
    folder, rows = tmp_path / "x", write_rows(tmp_path / "rows.jsonl")
    two = ("--num-gpus", "2", "--zero", "2")
    run(folder, rows, *two)
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    saved = checkpoints.complete(folder / "checkpoints")[0]
    part = saved.path.rename(folder / "checkpoints" / ".partial-2")
    (part / checkpoints.MARK).unlink()
    file = next(part.rglob("zero_pp_rank_1_*_optim_states.pt"))
    torch.save({"optimizer_state_dict": Trap(tmp_path / "sprung")}, file)
    checkpoints.finish(part, saved.step, saved.result)
    done = start(folder, rows, *two, "--resume", "last")
    assert done.returncode != 0
    assert f"{file.name} holds posix.mkdir, which no run saves" in done.stderr
    assert not (tmp_path / "sprung").exists()
