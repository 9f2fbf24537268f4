"""Paths in the options of a run: tricks are refused, nothing is written over, weights are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.config import TrainConfig, read_config
from finetune.files.sources import Source, source
from finetune.options.checks import problems
from tests.train_desk import CPU, config, rows, wrong


@pytest.fixture
def file(tmp_path) -> str:
    return rows(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["a\0b", "CON", "runs/nul.txt", "x" * 300, "-rf", "$(x)", "a;b", "a\nb", "a|b", "`x`", "a*"],
)
def test_a_tricky_name_for_a_run_is_refused(name, file, tmp_path):
    assert "--output-dir" in wrong([f"--output-dir={name}"], file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize(
    "option",
    [
        "train-file",
        "dev-file",
        "adapter",
        "model",
        "tokenizer",
        "deepspeed",
        "hostfile",
        "data-dir",
        "resume",
        "loss-image",
    ],
)
@pytest.mark.parametrize("name", ["a\0b", "a\nb", "-rf", "x" * 300])
def test_a_tricky_name_of_a_file_is_refused(option, name, file):
    assert f"--{option} is" in wrong([f"--{option}={name}"], file)


def test_the_page_reads_and_writes_inside_its_folders_only(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    file = rows(outside)
    for folder in (str(outside / "run"), f"{inside}/../outside/run", f"{inside}/link/run", "/run"):
        asked = TrainConfig(train_file=(file,), output_dir=folder)
        found = problems(asked, {}, CPU, roots=(inside,))
        assert [line.partition(" is ")[0] for line in found] == ["--train-file", "--output-dir"]
    asked = TrainConfig(train_file=(rows(inside),), output_dir=str(inside / "run"))
    assert problems(asked, {}, CPU, roots=(inside,)) == []


def test_a_run_never_writes_over_another_one(file, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert "a run is in it; --resume last goes on" in wrong(["--output-dir", str(run)], file)
    assert config(["--output-dir", str(run), "--resume", "last"], file).resume == "last"


def test_a_folder_with_something_else_in_it_is_no_run(file, tmp_path):
    assert "what is in it is no run" in wrong(["--output-dir", str(tmp_path)], file)
    assert "it is a file; name a folder" in wrong(["--output-dir", file], file)


def test_a_folder_that_was_made_for_a_run_is_taken(file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").touch()
    folder = str(tmp_path / "run")
    assert config(["--output-dir", folder], file).output_dir == folder


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.jsonl", Source(Path("a.jsonl"))),
        ("a.jsonl:0.5", Source(Path("a.jsonl"), 0.5)),
        ("C:/a.jsonl:2", Source(Path("C:/a.jsonl"), 2.0)),
        ("C:/a.jsonl", Source(Path("C:/a.jsonl"))),
    ],
)
def test_a_data_file_may_have_a_weight(text, found):
    assert source(text) == found


def test_a_weight_of_nothing_is_refused(file):
    assert "the weight is above 0" in wrong(["--dev-file", f"{file}:0"], file)


def test_data_files_are_looked_up_in_their_folder(file, tmp_path):
    found = read_config(["--data-dir", str(tmp_path), "--train-file", "rows.jsonl:2"], {}, CPU)
    assert source(found.config.train_file[0], found.config.data_dir).path == Path(file)
