"""What lies at a path is told without running or loading anything of it."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from glm.adapters.values import AdapterInfo
from glm.export import Wanted, export
from glm.inspect import inspect, lines, main
from tests.made_adapters import pretend
from tests.shared_files import GOLDEN, ROOT, TINY
from tests.tiny_checkpoint import write_checkpoint


@pytest.fixture
def folder(tmp_path):
    path = write_checkpoint(tmp_path / "chatglm3-tiny", vocabulary=6784)
    shutil.copy(TINY / "tokenizer.model", path / "tokenizer.model")
    return path


def test_a_model_in_one_screen():
    report = inspect(TINY)
    screen = list(lines(report))
    assert (report.kind, report.family, report.dialect) == ("model", "ChatGLM3", "chatglm3")
    assert report.parameters == 7_903_488 == sum(report.dtypes.values())
    assert report.context == 4096 and not report.faults
    assert report.memory["fp16"] == 2 * 7_903_488 > report.memory["int8"] > report.memory["int4"]
    assert report.next == f"python launch.py --model {TINY}"
    text = "\n".join(screen)
    for part in ("float16", "4,096 tokens", "base 10000", "6,729 pieces and 9 control tokens"):
        assert part in text
    assert len(screen) <= 24 and all(len(line) <= 120 for line in screen)


def test_rotation_is_told_for_both_long_models(tmp_path):
    for name, ratio, said in (
        ("chatglm2-6b-32k", 4, "base 10000, positions divided by 4"),
        ("chatglm3-6b-32k", 50, "base 500000 (rope_ratio 50)"),
    ):
        report = inspect(write_checkpoint(tmp_path / name, vocabulary=6784, rope_ratio=ratio))
        assert dict(report.facts)["rope"] == said


def test_the_memory_of_the_real_model_is_right(tmp_path):
    """ChatGLM3-6B: 12.5 GB in 16 bit, 28 kB of conversation a token."""
    sizes = dict(
        hidden_size=4096, ffn_hidden_size=13696, num_layers=28, num_attention_heads=32,
        kv_channels=128, padded_vocab_size=65024, seq_length=8192,
    )  # fmt: skip
    path = write_checkpoint(tmp_path / "chatglm3-6b", vocabulary=300)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | sizes))
    report = inspect(path)
    assert report.parameters == 6_243_584_000
    assert report.memory["fp16"] == 12_487_168_000
    assert "28.7 MB of memory each 1000" in dict(report.facts)["context"]
    assert any("config.json asks for 6,243,584,000" in fault for fault in report.faults)


def test_nothing_of_the_checkpoint_runs_and_its_code_is_named(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "modeling_chatglm.py").write_text(f"open({str(canary)!r}, 'w')")
    report = inspect(folder)
    assert report.notes[0] == "its program code (modeling_chatglm.py) is never run"
    assert not canary.exists() and not report.faults


def test_a_pickle_with_code_is_refused_and_does_not_run(folder, tmp_path):
    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")
    assert not any("would run" in fault for fault in inspect(folder).faults)
    torch.save({"a": Attack()}, folder / "pytorch_model.bin")
    report = inspect(folder)
    assert any(
        "pytorch_model.bin is refused: it would run posix.system" in f for f in report.faults
    )
    assert report.next == "" and not canary.exists()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Attack()}))
    assert "damaged or of a form before 2020" in inspect(folder).faults[0]
    assert not canary.exists()


def test_numbers_of_a_pickle_are_counted(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({k: v.to(torch.bfloat16) for k, v in weights.items()}, folder / "pytorch_model.bin")
    report = inspect(folder)
    assert report.dtypes == {"bfloat16": report.parameters} and not report.faults


def test_damage_is_named(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    assert "model.safetensors is damaged or cut off" in inspect(folder).faults[0]
    file.write_bytes(b"\xff" * 100)
    assert "model.safetensors is damaged or cut off" in inspect(folder).faults[0]
    file.write_bytes(whole)
    weights = load_file(file)
    weights.pop("transformer.output_layer.weight")
    save_file(weights, file, metadata={"format": "pt"})
    assert "config.json asks for" in inspect(folder).faults[0]


REFUSED = {
    "no config": ("config.json", "no config"),
    "no weights": ("model.safetensors", "no weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_opened_says_why(folder, case, capsys):
    name, sentence = REFUSED[case]
    (folder / name).unlink()
    report = inspect(folder)
    assert sentence in report.faults[0] and report.kind == "unknown"
    assert main([str(folder)]) == 1
    assert f"FAULT: {report.faults[0]}" in capsys.readouterr().out


def test_a_path_that_is_not_there_and_one_that_is(tmp_path, capsys):
    assert main([str(tmp_path / "nothing"), str(TINY)]) == 1
    out = capsys.readouterr().out
    assert "no file or folder at" in out and "ChatGLM3 model" in out


def test_an_adapter_is_told_with_its_base(tmp_path, monkeypatch):
    about = AdapterInfo(
        "poet", tmp_path, "LoRA", rank=8, base="THUDM/chatglm3-6b", base_hash="ab12",
        reason="adapter_config.json", warnings=("made for another tokenizer",), bytes=1000,
    )  # fmt: skip
    pretend(monkeypatch, "sources", looks_like_adapter=lambda path: "LoRA")
    pretend(monkeypatch, "opening", describe=lambda path: about)
    config = {"target_modules": ["query_key_value", "dense"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    report = inspect(tmp_path)
    facts = dict(report.facts)
    assert report.kind == "adapter" and facts["rank"] == "8"
    assert facts["targets"] == "query_key_value, dense"
    assert facts["made for"] == "THUDM/chatglm3-6b"
    assert report.notes == ("made for another tokenizer",)
    assert report.next.startswith("python -m glm.convert THUDM/chatglm3-6b NEW_FOLDER --to native")


def test_a_gguf_is_told(tmp_path, folder):
    export(Wanted(folder, tmp_path / "out", "gguf", dtype="q8_0"))
    report = inspect(tmp_path / "out")
    assert report.kind == "gguf" and set(report.dtypes) == {"Q8_0", "F32"}
    assert report.next.startswith("llama-server -m ")
    file = next((tmp_path / "out").glob("*.gguf"))
    assert inspect(file).what == report.what
    file.write_bytes(b"GGUF")
    assert "is damaged or no GGUF file" in inspect(file).faults[0]


def test_the_same_facts_for_programs(capsys):
    assert main([str(TINY), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["family"] == "ChatGLM3" and found["parameters"] == 7_903_488
    assert found["path"] == str(TINY) and found["memory"]["fp16"] == 15_806_976


def test_official_models_are_told(capsys):
    if not GOLDEN.exists():
        return
    for name in ("chatglm3", "chatglm3-32k"):
        report = inspect(GOLDEN / "models" / name)
        assert sum(report.dtypes.values()) > 300_000
        assert not any("damaged" in fault or "run" in fault for fault in report.faults)


def test_the_command_prints_the_screen():
    done = subprocess.run(
        [sys.executable, "-m", "glm.inspect", "assets/tiny"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "ChatGLM3 model, original layout" in done.stdout, done.stderr


def test_a_model_is_told_without_torch():
    code = (
        "import sys, glm.convert, glm.export; from glm.inspect import inspect\n"
        "assert inspect('assets/tiny').family == 'ChatGLM3'\n"
        "sys.exit('transformers' in sys.modules or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
