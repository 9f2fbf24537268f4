"""A run that was cut off goes on as if nothing had happened, or is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.training import checkpoints, ends
from finetune.training.run_folder import outcome
from tests.shared_files import ROOT
from tests.training import measured, train, write_rows

FLAGS = (
    "--max-steps", "8", "--save-interval", "4", "--log-interval", "1", "--lr", "1e-2",
    "--accumulation", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_rows(folder / "rows.jsonl", [f"hello {n}" for n in range(7)])
    write_rows(folder / "other.jsonl", [f"good day {n}" for n in range(7)])
    assert train(folder / "whole", *FLAGS, rows=folder / "rows.jsonl") == 0
    return folder


class Cut(BaseException):
    """Ends a run as a kill does: nothing of ours sees it."""


def cut_off(root, folder, step, monkeypatch, *flags):
    """A run that ends in a step, without a word."""
    from finetune.training.loop import Loop

    real = Loop.compute_loss

    def compute(self, *words, **named):
        if self.state.global_step + 1 == step:
            raise Cut
        return real(self, *words, **named)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(Loop, "compute_loss", compute)
        train(folder, *FLAGS, *flags, rows=root / "rows.jsonl")


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("method", ["lora", "ptuning", "full"])
def test_the_losses_go_on_to_the_last_digit(method, root, tmp_path, monkeypatch):
    flags = ("--method", method, "--lr", "1e-3", "--pre-seq-len", "4")
    assert train(tmp_path / "whole", *FLAGS, *flags, rows=root / "rows.jsonl") == 0
    cut_off(root, tmp_path / "cut", 7, monkeypatch, *flags)
    assert set(measured(tmp_path / "cut")) == set(range(1, 7))
    again = ("--resume", "last")
    assert train(tmp_path / "cut", *FLAGS, *flags, *again, rows=root / "rows.jsonl") == 0
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")
    log = (tmp_path / "cut" / "train.log").read_text()
    assert "going on after step 4" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--packing", "--max-seq-length", "128"),
        ("--accumulation", "2", "--schedule", "linear", "--warmup-steps", "3"),
        ("--dataloader-num-workers", "1"),
        ("--optimizer", "adafactor"),
        ("--gradient-checkpointing", "--dora"),
    ],
)
def test_they_do_with_other_options_too(flags, root, tmp_path, monkeypatch):
    assert train(tmp_path / "whole", *FLAGS, *flags, rows=root / "rows.jsonl") == 0
    cut_off(root, tmp_path / "cut", 6, monkeypatch, *flags)
    again = (*flags, "--resume", "last")
    assert train(tmp_path / "cut", *FLAGS, *again, rows=root / "rows.jsonl") == 0
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_line_tells_the_steps_since_the_last_one_and_the_end_has_one(root, tmp_path, monkeypatch):
    flags, again = ("--log-interval", "3"), ("--resume", "last")
    assert train(tmp_path / "whole", *FLAGS, *flags, rows=root / "rows.jsonl") == 0
    cut_off(root, tmp_path / "cut", 6, monkeypatch, *flags)
    assert train(tmp_path / "cut", *FLAGS, *flags, *again, rows=root / "rows.jsonl") == 0
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")
    assert list(measured(tmp_path / "whole")) == [3, 6, 8]


def test_what_may_change_is_as_it_is_given_now(root, tmp_path):
    """From step 4 on: other intervals, and what was saved later is neither lost nor in the way."""
    run, rows = tmp_path / "x", root / "rows.jsonl"
    flags = (*FLAGS, "--dev-file", str(rows), "--keep-checkpoints", "9")
    assert train(run, *flags, rows=rows) == 0
    now = ("--save-interval", "1", "--log-interval", "2", "--resume", "4")
    assert train(run, *flags, *now, rows=rows) == 0
    assert [found.step for found in checkpoints.complete(run / "checkpoints")] == [8, 7, 6, 5, 4]
    assert (run / "checkpoints" / "aside" / "checkpoint-8").is_dir()
    assert list(measured(run)) == [1, 2, 3, 4, 6, 8]
    after = (run / "train.log").read_text().split("going on after step 4")[1]
    assert "set aside: what was saved of step 8" in after
    assert "best dev loss: " in after and "best dev loss: none" not in after


def test_before_the_first_save_it_begins_anew(root, tmp_path, monkeypatch):
    cut_off(root, tmp_path / "cut", 3, monkeypatch)
    assert outcome(tmp_path / "cut").state in ("running", "killed")  # this process lives
    again = ("--resume", "last")
    assert train(tmp_path / "cut", *FLAGS, *again, rows=root / "rows.jsonl") == 0
    assert measured(tmp_path / "cut") == measured(root / "whole")


def test_a_finished_run_is_not_trained_further(root, tmp_path, monkeypatch):
    assert train(tmp_path / "x", *FLAGS, rows=root / "rows.jsonl") == 0
    assert train(tmp_path / "x", *FLAGS, "--resume", "last", rows=root / "rows.jsonl") == 0
    assert measured(tmp_path / "x") == measured(root / "whole")


@pytest.fixture(scope="module")
def once(root):
    """Cut off in step 6; step 4 is saved."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_off(root, root / "cut", 6, monkeypatch)
    return root / "cut"


@pytest.fixture
def stopped(once, tmp_path):
    """The run that was cut off, to go on with."""
    return shutil.copytree(once, tmp_path / "cut")


def refusal(stopped, root, capsys, *flags, rows="rows.jsonl"):
    assert train(stopped, *FLAGS, "--resume", "last", *flags, rows=root / rows) == ends.REFUSED
    return capsys.readouterr().err


def test_other_options_are_refused_by_name(stopped, root, capsys):
    """Row 46 of the bad inputs."""
    said = refusal(stopped, root, capsys, "--lr", "5e-3", "--lora-rank", "4")
    assert "--lr was 0.01 and is 0.005" in said and "--lora-rank was 8 and is 4" in said
    assert "begin a new run in another --output-dir" in said
    assert measured(stopped) and not (stopped / "exit_code").exists()


def test_other_data_are_refused(stopped, root, capsys):
    """Row 46 of the bad inputs."""
    said = refusal(stopped, root, capsys, rows="other.jsonl")
    assert "the training files hold other rows than they did" in said


def test_another_base_model_is_refused(stopped, root, tmp_path, capsys):
    """Row 46 of the bad inputs."""
    from tests.tiny_checkpoint import write_checkpoint

    base = write_checkpoint(tmp_path / "base")
    said = refusal(stopped, root, capsys, "--model", str(base))
    assert "the base model was tiny and is base with other weights" in said


def test_another_number_of_processes_is_refused(stopped, root, capsys):
    """Row 46 of the bad inputs."""
    file = stopped / "checkpoints" / "checkpoint-4" / "run.json"
    about = json.loads(file.read_text())
    changed = checkpoints.begin(stopped / "checkpoints", 4)
    for path in file.parent.iterdir():
        if path.name != checkpoints.MARK:
            (changed / path.name).write_bytes(path.read_bytes())
    (changed / "run.json").write_text(json.dumps({**about, "world": 2}))
    checkpoints.finish(changed, 4, ("adapter_model.safetensors",))
    assert "2 processes trained and 1 run now" in refusal(stopped, root, capsys)


def test_what_changes_no_number_may_change(stopped, root):
    flags = ("--resume", "last", "--log-interval", "2", "--save-interval", "3")
    assert train(stopped, *FLAGS, *flags, rows=root / "rows.jsonl") == 0
    assert max(measured(stopped)) == 8


def test_a_damaged_checkpoint_is_passed_over_and_told(root, tmp_path, monkeypatch):
    folder = tmp_path / "cut"
    cut_off(root, folder, 8, monkeypatch, "--save-interval", "3")
    file = folder / "checkpoints" / "checkpoint-6" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    flags = ("--save-interval", "3", "--resume", "last")
    assert train(folder, *FLAGS, *flags, rows=root / "rows.jsonl") == 0
    log = (folder / "train.log").read_text()
    assert f"passed over: {file} is not what was saved" in log and "going on after step 3" in log
    assert measured(folder) == measured(root / "whole")


def test_a_checkpoint_that_was_named_and_changed_is_refused(stopped, root, capsys):
    """Row 46 of the bad inputs."""
    file = stopped / "checkpoints" / "checkpoint-4" / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    said = refusal(stopped, root, capsys, "--resume", "4")
    assert f"{file} is not what was saved" in said


def test_a_step_that_is_not_there_is_refused_with_those_that_are(stopped, root, capsys):
    assert "is no complete checkpoint; there are 4" in refusal(
        stopped, root, capsys, "--resume", "5"
    )


def test_nothing_in_a_checkpoint_is_unpickled_as_code(stopped):
    """All that is loaded to go on opens with weights_only, in the safe types of the library."""
    from transformers.trainer_pt_utils import safe_globals

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with safe_globals():
            torch.load(stopped / "checkpoints" / "checkpoint-4" / name, weights_only=True)
    assert not list((stopped / "checkpoints").rglob("training_args.bin"))


# ---- kill -9 ----


def killed_runs(folder: Path, *moments: str):
    words = [sys.executable, "-m", "tests.kill_runs", str(folder), *moments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return {moment: found for moment, *found in lines}


def test_kill_9_in_a_step_and_in_a_save_leaves_a_run_that_goes_on_exactly(tmp_path):
    """Row 37 of the bad inputs."""
    found = killed_runs(tmp_path, "step:6", "torn:7")
    assert found and all(all((kill, code == 0, equal)) for kill, _, code, equal in found.values())
    assert {state for _, state, *_ in found.values()} == {"killed"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_9_at_every_file_boundary(tmp_path):
    """Row 37 of the bad inputs."""
    found = killed_runs(tmp_path, "all")
    wrong = {
        moment: row
        for moment, row in found.items()
        if not row[0] or row[2] != 0 or not row[3] or row[1] == "failed"
    }
    assert len(found) > 80 and not wrong
