"""python -m glm.convert: a line of progress, the verdict, or one sentence and a code."""

import subprocess
import sys

import pytest

from glm.convert import main
from glm.errors import CheckpointError
from glm.export import TARGETS
from tests.shared_files import ROOT, TINY


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "glm.convert", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_the_command_writes_and_tells_the_verdict(tmp_path):
    done = run("assets/tiny", tmp_path / "out", "--to", "native")
    assert done.returncode == 0, done.stderr
    assert "69 tensors (float16) read back and equal to the source; logits differ by" in done.stdout
    assert "writing" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_an_error_is_one_sentence_and_a_code(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    cases = [
        (["assets/tiny", str(tmp_path / "there"), "--to", "hub"], "exists already"),
        ([str(tmp_path / "no"), str(tmp_path / "out"), "--to", "hub"], "no folder at"),
        (["assets/tiny", str(tmp_path / "a;b"), "--to", "hub"], "is no name for a folder"),
        (["assets/tiny", str(tmp_path / "out"), "--to", "peft"], "name it with --adapter"),
        (["assets/tiny", str(tmp_path / "out"), "--to", "hub", "--dtype", "q8_0"], "allowed: auto"),
    ]
    for words, sentence in cases:
        assert main(words) == 1
        said = capsys.readouterr().err.strip().splitlines()
        assert sentence in said[-1] and len(said) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_target_that_is_none_lists_those_that_are(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["assets/tiny", str(tmp_path / "out"), "--to", "onnx"])
    said = capsys.readouterr().err
    assert all(name in said for name in TARGETS)


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("glm.export.hub.check", interrupted)
    assert main([str(TINY), str(tmp_path / "out"), "--to", "hub"]) == 130
    assert "stopped; nothing was kept" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_comparison_that_fails_is_told(tmp_path, monkeypatch, capsys):
    def differs(*_):
        raise CheckpointError("the written model answers differently")

    monkeypatch.setattr("glm.export.hub.check", differs)
    assert main([str(TINY), str(tmp_path / "out"), "--to", "hub"]) == 1
    assert "answers differently" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
