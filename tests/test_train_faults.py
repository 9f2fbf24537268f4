"""What goes wrong in a run ends it with a reason, an exit code and a checkpoint to go on from."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from finetune.training import checkpoints, ends, launching
from finetune.training.loop import Loop
from finetune.training.run_folder import outcome
from tests.shared_files import ROOT
from tests.training import SHORT, measured, train, write_rows

FLAGS = ("--max-steps", "6", "--save-interval", "2", "--log-interval", "1", "--lr", "1e-2")

ONCE = ("--accumulation", "1")


def log(folder):
    return (folder / "train.log").read_text(encoding="utf-8")


def loss_in_step(monkeypatch, step, change):
    """The loss of a step goes through `change`."""
    real = Loop.compute_loss

    def compute(self, *words, **named):
        return (
            change(real(self, *words, **named))
            if self.state.global_step + 1 == step
            else real(self, *words, **named)
        )

    monkeypatch.setattr(Loop, "compute_loss", compute)


def steps_saved(folder):
    return [found.step for found in checkpoints.complete(folder / "checkpoints")]


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_learnt_from(tmp_path, monkeypatch):
    """Row 44 of the bad inputs."""

    def nan(model, batch):
        return torch.tensor(float("nan"), requires_grad=True)

    real = Loop.compute_loss

    def compute(self, *words, **named):
        if self.state.global_step + 1 == 4:
            monkeypatch.setattr("finetune.training.loop.loss_sum", nan)
        return real(self, *words, **named)

    monkeypatch.setattr(Loop, "compute_loss", compute)
    assert train(tmp_path / "x", *FLAGS) == ends.NOT_FINITE
    found = outcome(tmp_path / "x")
    assert found.state == "failed" and found.reason.startswith("the loss is nan in step 4")
    assert "checkpoint-2; go on with: " in found.reason
    assert "python -m finetune.train --config" in found.reason
    assert found.reason in log(tmp_path / "x") and steps_saved(tmp_path / "x") == [2]


def test_a_gradient_that_is_no_number_ends_it_too(tmp_path, monkeypatch):
    """Row 44 of the bad inputs."""
    loss_in_step(monkeypatch, 3, lambda loss: loss * 1e38 * 1e38 * 0 + loss * 3e38)
    assert train(tmp_path / "x", *FLAGS) == ends.NOT_FINITE
    assert "the gradient is" in outcome(tmp_path / "x").reason
    assert steps_saved(tmp_path / "x") == [2]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(error, tmp_path, monkeypatch):
    def fail(loss):
        raise error

    loss_in_step(monkeypatch, 4, fail)
    assert train(tmp_path / "x", *FLAGS) == ends.NO_MEMORY
    reason = outcome(tmp_path / "x").reason
    assert reason.startswith("out of memory in step 4: lower --batch-size")
    assert "checkpoint-2; go on with" in reason


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("torch.save", OSError(errno.ENOSPC, "No space left on device")),
        ("torch.save", RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")),
        ("finetune.training.checkpoints.flush", OSError(errno.EDQUOT, "Disk quota exceeded")),
    ],
)
def test_a_full_disk_leaves_the_checkpoint_before(where, error, tmp_path, monkeypatch):
    """Row 38 of the bad inputs."""
    real, calls = Loop._write_checkpoint, []

    def fail(*_, **__):
        raise error

    def write(self, step):
        calls.append(step)
        if step == 4:
            monkeypatch.setattr(where, fail)
        real(self, step)

    monkeypatch.setattr(Loop, "_write_checkpoint", write)
    assert train(tmp_path / "x", *FLAGS) == ends.DISK_FULL
    assert calls == [2, 4] and steps_saved(tmp_path / "x") == [2]
    assert not list((tmp_path / "x" / "checkpoints").glob(".*"))
    reason = outcome(tmp_path / "x").reason
    assert reason.startswith("the disk is full, so step 4 could not be saved")


def test_an_error_of_ours_or_of_a_library_is_kept_with_its_traceback(tmp_path, monkeypatch):
    def fail(loss):
        raise KeyError("surprise")

    loss_in_step(monkeypatch, 1, fail)
    assert train(tmp_path / "x", *FLAGS) == ends.FAILED
    assert "Traceback" in log(tmp_path / "x")
    reason = outcome(tmp_path / "x").reason
    assert "KeyError: 'surprise'" in reason and "nothing was saved yet" in reason


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_obeyed_after_the_step_and_saved(number, tmp_path, monkeypatch):
    def told(loss):
        os.kill(os.getpid(), number)
        return loss

    with monkeypatch.context() as patch:
        loss_in_step(patch, 3, told)
        assert train(tmp_path / "x", *FLAGS, *ONCE) == 128 + number
    assert steps_saved(tmp_path / "x")[0] == 3
    assert "stopped after step 3" in outcome(tmp_path / "x").reason
    assert train(tmp_path / "whole", *FLAGS, *ONCE) == 0
    assert train(tmp_path / "x", *FLAGS, *ONCE, "--resume", "last") == 0
    assert measured(tmp_path / "x") == measured(tmp_path / "whole")


def test_of_a_trainer_that_was_killed_the_one_who_started_it_has_the_last_word(tmp_path, capsys):
    """Row 39 of the bad inputs, as the out-of-memory killer does it; what the trainer had is given
    back, so that another run may begin."""
    code = (
        "import os, sys, pathlib, finetune.training.run_folder as f\n"
        "with f.RunFolder(pathlib.Path(sys.argv[1])).claimed(): os.kill(os.getpid(), 9)"
    )
    place = tmp_path / "x"
    assert launching.start([sys.executable, "-c", code, str(place)], os.environ, place) == 128 + 9
    said = capsys.readouterr().err
    assert "killed, or the machine ran out of memory. nothing was saved yet: start it again" in said
    assert outcome(place).state == "killed"
    assert train(place, *FLAGS, "--resume", "last") == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="groups of processes are not there")
@pytest.mark.parametrize("several", [(), ("--num-gpus", "2")], ids=["alone", "two"])
def test_a_stop_ends_every_process_and_saves(several, tmp_path):
    """Row 42 of the bad inputs: with processes that tokenise, all told at once, as a terminal and
    torchrun do it."""
    rows = write_rows(tmp_path / "rows.jsonl", [f"hello {n}" for n in range(99)])
    words = [sys.executable, "-m", "finetune.train", "--train-file", str(rows), *SHORT, *several]
    words += ["--output-dir", str(tmp_path / "x"), "--dataloader-num-workers", "1"]
    words += ["--max-steps", "9999", "--log-interval", "1"]
    with subprocess.Popen(words, cwd=ROOT, text=True, start_new_session=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # fmt: skip
        assert process.stdout
        said = [next(line for line in process.stdout if line.startswith("global step 2"))]
        family = psutil.Process(process.pid).children(recursive=True)
        if several:
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGTERM)
        said += process.stdout.readlines()
    assert process.returncode == 128 + signal.SIGTERM, "".join(said)
    assert len(family) >= (5 if several else 1)
    assert not psutil.wait_procs(family, timeout=20)[1]
    found = checkpoints.complete(tmp_path / "x" / "checkpoints")
    assert found and f"stopped after step {found[0].step}" in outcome(tmp_path / "x").reason


def test_a_stop_in_a_save_waits_for_its_end(tmp_path, monkeypatch):
    """Row 42 of the bad inputs."""
    real = checkpoints.finish

    def told(part, step, result):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(part, step, result)

    monkeypatch.setattr(checkpoints, "finish", told)
    assert train(tmp_path / "x", *FLAGS) == 128 + signal.SIGTERM
    assert steps_saved(tmp_path / "x")[-1] == 2
    assert all(not found.damage() for found in checkpoints.complete(tmp_path / "x/checkpoints"))


def test_a_second_stop_ends_at_once(tmp_path, monkeypatch):
    def told(loss):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    loss_in_step(monkeypatch, 3, told)
    assert train(tmp_path / "x", *FLAGS) == 128 + signal.SIGTERM
    assert "stopped at once in step 3" in outcome(tmp_path / "x").reason
    assert steps_saved(tmp_path / "x") == [2]


def test_bad_options_are_all_told_and_nothing_is_written(tmp_path, capsys):
    """Row 45 of the bad inputs."""
    flags = ("--lr", "1e9", "--batch-size", "0", "--epochs", "-1")
    assert train(tmp_path / "x", *flags) == ends.REFUSED
    said = capsys.readouterr().err
    assert all(name in said for name in ("--lr", "--batch-size", "--epochs"))
    assert not (tmp_path / "x").exists()


def test_rows_that_cannot_be_trained_on_end_it_before_it_begins(tmp_path):
    """Row 43 of the bad inputs."""
    rows = tmp_path / "rows.jsonl"
    row = '{"conversations": [{"role": "user", "content": "hello"}]}\n'
    rows.write_text(f'{row}{{"conversations": []}}\n')
    assert train(tmp_path / "x", *FLAGS, rows=rows) == ends.REFUSED
    reason = outcome(tmp_path / "x").reason
    assert "no row can be trained on" in reason
    assert 'rows.jsonl, line 2: "conversations" is empty' in reason


@pytest.mark.parametrize(
    ("overlong", "sentence"),
    [
        ("skip", "longer than 8 tokens; raise --max-seq-length (8), or give --overlong cut-turns"),
        ("truncate", "nothing in it is learnt; raise --max-seq-length (8)"),
    ],
)
def test_rows_that_are_all_too_long_say_what_to_do(overlong, sentence, tmp_path):
    flags = ("--max-seq-length", "8", "--overlong", overlong)
    rows = write_rows(tmp_path / "rows.jsonl", ["a long question " * 9])
    assert train(tmp_path / "x", *FLAGS, *flags, rows=rows) == ends.REFUSED
    assert sentence in outcome(tmp_path / "x").reason


def test_bad_rows_among_good_ones_are_counted_with_their_lines(tmp_path):
    """Row 43 of the bad inputs."""
    rows = write_rows(tmp_path / "rows.jsonl")
    with rows.open("a", encoding="utf-8") as stream:
        stream.write('{"conversations": [}\n{"conversations": []}\n')
    assert train(tmp_path / "x", *FLAGS, rows=rows) == 0
    said = log(tmp_path / "x")
    assert "4 of 6 rows are trained on" in said and "line 5" in said


def test_what_a_kill_left_half_done_is_removed(tmp_path):
    place = tmp_path / "x" / "checkpoints"
    for name in (".partial-7", ".old-checkpoint-1"):
        (place / name).mkdir(parents=True)
    (place / "checkpoint-9").mkdir()  # without a mark
    assert train(tmp_path / "x", *FLAGS, "--resume", "last") == 0
    assert not list(place.glob(".*"))
    assert steps_saved(tmp_path / "x") == [6, 4]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_is_really_full(tmp_path):
    """Row 38 of the bad inputs: a tmpfs of 5 MB, where this system lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    rows = write_rows(tmp_path / "rows.jsonl")
    words = [sys.executable, "-m", "finetune.train", "--train-file", str(rows), *SHORT]
    words += ["--output-dir", str(disk / "x"), *FLAGS, "--keep-checkpoints", "9"]
    script = f'mount -t tmpfs -o size=5m x {disk} && "$@"; code=$?; '
    script += f"cp -r {disk}/x {tmp_path}/; exit $code"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words]
    if shutil.which("unshare") is None:
        return
    done = subprocess.run(alone, cwd=ROOT, capture_output=True, text=True)
    if "mount" in done.stderr or "unshare failed" in done.stderr:
        return
    assert done.returncode == ends.DISK_FULL, done.stdout + done.stderr
    found = outcome(tmp_path / "x")
    assert "the disk is full" in found.reason and steps_saved(Path(tmp_path / "x"))
