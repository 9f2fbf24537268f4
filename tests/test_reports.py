"""Where a run's measurements go beside metrics.jsonl. W&B and SwanLab themselves are not here:
what their programs do with it was looked at by hand (docs/training_options.md, versions)."""

from __future__ import annotations

import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from finetune.training import ends, reports, tensorboard
from finetune.training.run_folder import outcome
from tests.training import measured, train, write_rows

FEW = ("--max-steps", "2", "--log-interval", "1", "--lr", "1e-2", "--warmup-ratio", "0")


def events(folder):
    """The events of the files in a folder, without the checksums."""
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def records(folder):
    """What they log, {step: {name: value}}."""
    found: dict[int, dict[str, float]] = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(event.step, {})[value.tag] = value.simple_value
    return found


def test_what_is_logged_is_in_the_file_at_once(tmp_path):
    written = tensorboard.EventFile(tmp_path, 0)
    written.log({"a": 0.5}, 300)
    assert records(tmp_path) == {300: {"a": 0.5}}
    assert next(events(tmp_path)).file_version == "brain.Event:2"
    written.close()


def test_train_and_dev_losses_are_in_the_file_of_tensorboard(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    assert train(tmp_path / "x", *FEW, "--dev-file", str(rows), rows=rows) == 0
    found = records(tmp_path / "x" / "tensorboard")
    for step, loss in measured(tmp_path / "x").items():
        assert found[step]["train/loss"] == pytest.approx(loss)
    (dev,) = measured(tmp_path / "x", "dev_loss").values()
    assert found[2]["eval/loss"] == pytest.approx(dev)
    assert {"train/learning_rate", "train/grad_norm", "train/tokens_per_second"} <= set(found[2])


def test_steps_that_are_done_again_are_marked(tmp_path):
    tensorboard.EventFile(tmp_path, 3).close()
    _, again = events(tmp_path)
    assert again.step == 4 and again.session_log.status == SessionLog.START


class Book:
    """A log of somebody else's."""

    def __init__(self, folder, options):
        self.sends, self.rows, self.closed = True, {}, None
        self.options = options
        Book.last = self

    def log(self, values, step):
        self.rows.setdefault(step, {}).update(values)

    def close(self, failed):
        self.closed = failed


class Torn(Book):
    def log(self, values, step):
        raise OSError("the network is away.\nmore")


class Locked(Book):
    def __init__(self, folder, options):
        raise RuntimeError("No key.")


@pytest.fixture
def kept(monkeypatch):
    """Any program is there."""
    monkeypatch.setattr(reports, "find_spec", lambda name: True)
    return lambda kind: monkeypatch.setitem(reports.WRITERS, "wandb", kind)


def test_a_log_gets_what_was_measured_and_it_is_said_that_it_is_sent(tmp_path, kept):
    kept(Book)
    assert train(tmp_path / "x", *FEW, "--report-to", "wandb") == 0
    assert {s: v["train/loss"] for s, v in Book.last.rows.items()} == measured(tmp_path / "x")
    assert Book.last.options["lr"] == 1e-2 and Book.last.closed is False
    said = (tmp_path / "x" / "train.log").read_text(encoding="utf-8")
    assert "wandb sends losses, options and facts about this machine away" in said
    assert "WANDB_MODE=offline keeps everything here" in said


def test_no_run_is_lost_for_a_log_that_fails(tmp_path, kept):
    kept(Torn)
    assert train(tmp_path / "x", *FEW, "--report-to", "wandb") == 0
    said = (tmp_path / "x" / "train.log").read_text(encoding="utf-8")
    assert said.count("wandb is left out from here on: the network is away\n") == 1
    assert len(measured(tmp_path / "x")) == 2


def test_a_log_that_cannot_begin_is_refused_with_what_to_do(tmp_path, kept):
    kept(Locked)
    assert train(tmp_path / "x", *FEW, "--report-to", "wandb") == ends.REFUSED
    reason = outcome(tmp_path / "x").reason
    assert "wandb cannot begin: No key. Log in once with: wandb login" in reason


def test_nobody_elses_log_begins_unless_it_was_asked_for(tmp_path, kept):
    kept(Locked)
    assert train(tmp_path / "x", *FEW, "--report-to", "tensorboard") == 0
    assert train(tmp_path / "y", *FEW) == 0
    assert not {"wandb", "swanlab"} & set(sys.modules)
