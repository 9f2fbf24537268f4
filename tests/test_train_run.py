"""A training run from rows to an adapter that answers: its folder, its log, its end."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from finetune import probe
from finetune.data import Source
from finetune.pretrain.frozen import normal
from finetune.train import main
from finetune.training import ends, progress
from finetune.training.progress import clock
from finetune.training.run_folder import InUse, RunFolder, outcome
from finetune.training.wiring import with_tools
from glm.adapters.opening import describe
from glm.manager import Manager
from glm.messages import Conversation, Message, Sampling, Text
from glm.opening import Opening
from tests.training import ANSWER, logits_with, measured, train, write_rows

FAST = ("--lr", "1e-2", "--warmup-ratio", "0", "--log-interval", "1")
LINE = re.compile(
    r"global step (\d+) \((\d+\.\d+)%\), epoch: (\d+\.\d+), loss: (\d+\.\d+), "
    r"speed: [\d.]+ step/s, \d+ tokens/s, memory: \d+ MB, time left: \d+:\d\d:\d\d"
)


def log(folder):
    return (folder / "train.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Eight steps of a LoRA, the dev loss every four."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    rows = write_rows(folder.with_name("rows.jsonl"))
    flags = ("--max-steps", "8", "--save-interval", "4", "--dev-file", str(rows), *FAST)
    assert train(folder, *flags, rows=rows) == 0
    return folder


def test_a_run_is_a_folder(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.yaml", "command.json", "pid", "train.log", "metrics.jsonl", "exit_code",
        "loss.png", "tensorboard", "checkpoints", "adapter",
    }  # fmt: skip
    assert (finished / "exit_code").read_text() == "0\ntrained 8 steps\n"
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert outcome(finished).state == "finished"


def test_the_log_has_the_line_people_know(finished):
    found = LINE.findall(log(finished))
    assert [int(step) for step, *_ in found] == list(range(1, 9))
    assert found[0][1] == "12.50" and found[7][1] == "100.00"
    losses = [float(loss) for *_, loss in found]
    assert losses[7] < 0.5 * losses[0]
    written = measured(finished)
    assert all(abs(written[step + 1] - loss) < 1e-4 for step, loss in enumerate(losses))


def test_a_better_dev_loss_is_told_with_the_one_before_and_its_checkpoint(finished):
    dev = measured(finished, "dev_loss")
    place = finished / "checkpoints"
    first, second = f"{dev[4]:.5f}", f"{dev[8]:.5f}"
    assert f"best dev loss: none --> {first}, saved as {place / 'checkpoint-4'}" in log(finished)
    assert f"best dev loss: {first} --> {second}, saved as {place / 'checkpoint-8'}" in log(
        finished
    )


def test_the_adapter_opens_without_a_warning_and_knows_its_run(finished):
    assert logits_with(finished / "adapter").isfinite().all()
    info = describe(finished / "adapter")
    assert (info.run, info.layout, info.dialect) == (str(finished), "chatglm3", "chatglm3")
    assert info.base_hash and info.data_hash


def test_the_adapter_answers_what_it_learnt_and_the_base_does_not(finished):
    manager = Manager(how=Opening("cpu", "float32"))
    manager.start()
    assert manager.wait(60).status == "ready"
    try:
        name = manager.add_adapter(finished / "adapter", "mine").name
        answers = {}
        for model in ("base", f"base:{name}"):
            asked = Conversation((Message("user", "hello"),))
            greedy = Sampling(temperature=0, max_tokens=32)
            events = manager.chat(asked, greedy, model=model)
            answers[model] = "".join(e.text for e in events if isinstance(e, Text)).strip()
        assert answers["base:mine"].startswith(ANSWER)
        assert not answers["base"].startswith(ANSWER)
    finally:
        manager.close()


def test_rows_packed_or_apart_have_the_same_first_loss(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl")
    found = []
    for name, flags in (("apart", ()), ("packed", ("--packing",))):
        few = ("--max-steps", "1", "--method", "ptuning", "--pre-seq-len", "8", *flags)
        size = ("--batch-size", "4", "--accumulation", "1") if not flags else ("--batch-size", "1",
                "--accumulation", "1")  # fmt: skip
        assert train(tmp_path / name, *few, "--log-interval", "1", *size, rows=rows) == 0
        found.append(measured(tmp_path / name)[1])
    assert abs(found[0] - found[1]) < 2e-3  # the dropout of a prefix differs


def test_the_last_loss_is_of_the_last_steps_only(tmp_path):
    assert train(tmp_path / "x", "--max-steps", "6", *FAST, "--log-interval", "3") == 0
    losses = measured(tmp_path / "x")
    assert set(losses) == {3, 6} and losses[6] < losses[3] / 2


def test_the_resolved_options_are_saved_and_give_the_same_run(finished, tmp_path):
    again = tmp_path / "y"
    flags = ["--config", str(finished / "config.yaml"), "--output-dir", str(again)]
    assert main(flags) == 0
    assert measured(again) == measured(finished)
    weights = "adapter/adapter_model.safetensors"
    ours, theirs = load_file(again / weights), load_file(finished / weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_only_the_newest_checkpoints_and_the_best_stay(tmp_path):
    flags = ("--max-steps", "6", "--save-interval", "1", "--keep-checkpoints", "2", *FAST)
    assert train(tmp_path / "x", *flags) == 0
    kept = sorted(path.name for path in (tmp_path / "x" / "checkpoints").iterdir())
    assert kept == ["checkpoint-5", "checkpoint-6"]


def test_the_best_by_dev_loss_stays_and_is_the_result(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.5, 2.6, 2.7])
    monkeypatch.setattr("finetune.training.loop.Loop._dev_loss", lambda self: next(losses))
    rows = write_rows(tmp_path / "rows.jsonl")
    flags = ("--max-steps", "6", "--save-interval", "1", "--keep-checkpoints", "1", *FAST)
    assert train(tmp_path / "x", *flags, "--dev-file", str(rows), rows=rows) == 0
    kept = sorted(path.name for path in (tmp_path / "x" / "checkpoints").iterdir())
    assert kept == ["checkpoint-2", "checkpoint-6"]
    best = tmp_path / "x" / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors"
    assert best.read_bytes() == (tmp_path / "x/adapter/adapter_model.safetensors").read_bytes()


def test_it_stops_early_when_the_dev_loss_gets_no_better(tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 2.5, 0.1])
    monkeypatch.setattr("finetune.training.loop.Loop._dev_loss", lambda self: next(losses))
    rows = write_rows(tmp_path / "rows.jsonl")
    flags = ("--max-steps", "9", "--save-interval", "1", "--early-stopping", "2", *FAST)
    assert train(tmp_path / "x", *flags, "--dev-file", str(rows), rows=rows) == 0
    assert max(measured(tmp_path / "x")) == 3
    assert "no better dev loss in 2 measurements: stopping early" in log(tmp_path / "x")


def test_how_many_steps_there_are_comes_from_the_epochs(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [f"hello {n}" for n in range(10)])
    assert train(tmp_path / "x", "--epochs", "2", *FAST, rows=rows) == 0
    assert max(measured(tmp_path / "x")) == 5  # 10 rows, 4 a step


def test_the_picture_goes_where_the_earlier_system_put_it_too(tmp_path):
    image = tmp_path / "logs" / "Model Performance.png"
    assert train(tmp_path / "x", "--max-steps", "1", "--loss-image", str(image), *FAST) == 0
    assert image.read_bytes().startswith(b"\x89PNG")


def test_two_runs_do_not_write_into_one_folder(finished, capsys):
    """Row 41 of the bad inputs."""
    run = RunFolder(finished)
    with run.claimed():
        with pytest.raises(InUse, match="is being trained by process"), run.claimed():
            pass
        assert train(finished, "--resume", "last", *FAST) == ends.REFUSED
    assert "is being trained by process" in capsys.readouterr().err
    assert outcome(finished).state == "finished"


def test_a_number_that_another_process_has_now_is_not_the_run(tmp_path):
    run = RunFolder(tmp_path)
    with run.claimed():
        assert outcome(tmp_path).state == "running"
        about = json.loads(run.pid.read_text())
    run.pid.write_text(json.dumps({**about, "started": about["started"] - 100}))
    assert outcome(tmp_path).state == "killed"


def test_a_folder_without_a_run_is_empty(tmp_path):
    assert outcome(tmp_path).state == "empty"


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_shipped_rows_with_tools_are_mixed_in(share):
    mine = [Source([Conversation()] * 300, 2.0), Source([Conversation()] * 100)]
    sizes = [len(source.rows) * source.weight for source in with_tools(mine, share)]
    assert sizes[:2] == [600, 100]
    assert sum(sizes[2:]) / sum(sizes) == pytest.approx(share)
    assert with_tools(mine, 0) == mine
    assert all(source.rows[0].tools for source in with_tools(mine, share)[2:])


def test_the_embedded_model_rehearses_what_it_was_made_from():
    mine = [Source([Conversation()] * 300)]
    rehearsal = with_tools(mine, 0.5, embedded=True)[1]
    assert len(rehearsal.rows) * rehearsal.weight == pytest.approx(300)
    assert rehearsal.rows[7] == rehearsal.rows[7] != rehearsal.rows[8]
    found = [rehearsal.rows[number] for number in range(300)]
    assert any(talk.tools for talk in found) and any(not talk.tools for talk in found)
    asked = {normal(turn.content) for talk in found for turn in talk.messages}
    assert not asked & {normal(row["user"]) for row in probe.rows()}


def test_a_run_with_mixed_rows_learns_from_both(tmp_path):
    assert train(tmp_path / "x", "--max-steps", "2", "--mix-tools", "50%", *FAST) == 0
    assert re.search(r"^\d of 8 rows are trained on", log(tmp_path / "x"), re.MULTILINE)


def test_a_log_that_cannot_be_written_here_is_refused_before_anything(tmp_path, capsys):
    assert train(tmp_path / "x", "--report-to", "swanlab") == ends.REFUSED
    assert "swanlab is not installed; pip install swanlab" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_picture_has_both_losses(tmp_path):
    rows = [{"step": n, "loss": 3.0 - n} for n in (1, 2)] + [{"step": 2, "dev_loss": 1.0}]
    progress.draw(rows, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 5000


def test_a_line_that_a_kill_cut_in_two_is_no_measurement(tmp_path):
    run = RunFolder(tmp_path)
    run.measure({"step": 1, "loss": 2.0})
    run.measure({"step": 2, "loss": 1.0})
    with run.metrics.open("a") as stream:
        stream.write('{"step": 3, "lo')
    assert [row["step"] for row in run.measured()] == [1, 2]
    run.forget_after(1)
    assert [row["step"] for row in run.measured()] == [1]


def test_hours_minutes_seconds():
    assert clock(3723.4) == "1:02:03"


def test_the_first_row_is_shown_token_by_token_and_a_page_shows_more(tmp_path):
    assert train(tmp_path / "x", "--max-steps", "1", "--preview", "3", *FAST) == 0
    said = log(tmp_path / "x")
    assert "Sanity Check >>>>>>>>>>>>>" in said and "<<<<<<<<<<<<< Sanity Check" in said
    assert "What is learnt" in (tmp_path / "x" / "preview.html").read_text(encoding="utf-8")
