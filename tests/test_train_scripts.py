"""The scripts people know: their constants, what they start, and what they say at the end."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import run, scripts
from finetune.config import TrainConfig
from finetune.options.option import BadConfig, options
from finetune.scripts import CONSTANTS, SCRIPTS
from finetune.training import launching
from finetune.training.machine import Machine
from tests.train_desk import CPU, one_gpu, rows

ROOT = Path(__file__).resolve().parent.parent
KNOWN = [script for script in SCRIPTS.values() if not script.words]


@pytest.fixture
def file(tmp_path) -> str:
    return rows(tmp_path)


@pytest.fixture(autouse=True)
def samples(tmp_path, monkeypatch) -> Path:
    """The shipped samples, in small."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for script in KNOWN:
        for name in script.samples:
            rows(folder, name)
    monkeypatch.setattr(run, "SAMPLES", folder)
    return folder


def plan(name: str, words: str = "", machine: Machine = CPU, **environ: str) -> run.Plan:
    return run.plan_of(SCRIPTS[name], words.split(), environ, machine)


def config(name: str, words: str = "", machine: Machine = CPU, **environ: str) -> TrainConfig:
    return plan(name, words, machine, **environ).config


# ---- the table ----


@pytest.mark.parametrize("script", KNOWN, ids=lambda script: script.name)
def test_the_shell_script_is_what_the_table_says(script):
    file = ROOT / "finetune" / f"{script.name}.sh"
    assert file.read_text(encoding="utf-8") == scripts.shell(script), (
        "run python -m finetune.scripts"
    )
    assert os.access(file, os.X_OK) and subprocess.run(["bash", "-n", str(file)]).returncode == 0


@pytest.mark.parametrize("script", KNOWN, ids=lambda script: script.name)
def test_a_script_has_the_constants_people_know(script):
    lengths = {"MAX_SEQ_LEN"} if "MAX_SEQ_LEN" in script.constants else {"MAX_SOURCE_LEN"}
    every = {"LR", "NUM_GPUS", "DEV_BATCH_SIZE", "GRAD_ACCUMULATION_STEPS", "MAX_STEP"}
    assert every | lengths | {"SAVE_INTERVAL"} <= set(script.constants)
    assert set(script.official) | set(script.embedded) <= set(script.constants)
    assert {CONSTANTS[name] for name in script.constants} <= set(options(TrainConfig))


@pytest.mark.parametrize("script", KNOWN, ids=lambda script: script.name)
def test_a_script_typed_bare_trains_the_embedded_model_on_a_sample(script, samples):
    found = plan(script.name)
    assert found.config.model == "" and found.config.train_file == tuple(
        str(samples / name) for name in script.samples
    )
    assert found.config.num_gpus == 1 and found.config.zero == 0
    assert "the embedded model trains" in " ".join(found.notes)
    assert found.config.output_dir.startswith(str(ROOT / "runs" / found.config.method))


def test_a_bare_script_is_done_in_minutes():
    assert all(60 <= config(script.name).max_steps <= 180 for script in KNOWN)


def test_the_embedded_model_goes_on_learning_what_it_knew(file):
    found = plan("finetune_lora", f"--train-file {file}")
    assert found.config.mix_tools == 0.75
    assert "--mix-tools 75%" in " ".join(found.notes)
    assert config("finetune_lora", f"--train-file {file} --mix-tools 0").mix_tools == 0
    for words in ("--model THUDM/chatglm3-6b", "--preset official"):
        assert config("finetune_lora", f"--train-file {file} {words}").mix_tools == 0


@pytest.mark.parametrize("script", KNOWN, ids=lambda script: script.name)
def test_the_shipped_samples_are_rows_of_their_kind(script):
    for name in script.samples:
        lines = (scripts.SAMPLES / name).read_text(encoding="utf-8").splitlines()
        pairs = script.options.get("layout") == "prompt-response"
        kinds = {"prompt", "response"} if pairs else {"tools", "conversations"}
        assert lines and all(set(json.loads(line)) == kinds for line in lines)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finetune_pt_multiturn", ("ptuning", "chatglm3", 2e-2, 1, 16, 1000, 500, 0, 1)),
        ("finetune_pt", ("ptuning", "prompt-response", 2e-2, 1, 32, 1000, 500, 0, 1)),
        ("finetune_ds_multiturn", ("full", "chatglm3", 5e-5, 16, 1, 200, 50, 2, 4)),
        ("finetune_ds", ("full", "prompt-response", 1e-4, 4, 1, 500, 500, 2, 4)),
        ("finetune_lora", ("lora", "auto", 1e-4, 1, 1, 500, 50, 0, 4)),
        ("finetune_qlora", ("qlora", "eos-per-turn", 2e-4, 8, 2, 0, 500, 0, 1)),
    ],
)
def test_the_official_values_are_those_of_the_earlier_scripts(name, expected, file):
    """../shared/facts: the tables of THUDM/ChatGLM3 and Firefly."""
    words = f"--preset official --model THUDM/chatglm3-6b --train-file {file}"
    c = config(name, words, one_gpu(count=8))
    found = (c.method, c.layout, c.lr, c.batch_size, c.accumulation, c.max_steps)
    assert (*found, c.save_interval, c.zero, c.num_gpus) == expected
    lengths = (c.max_source_length, c.max_target_length)
    assert c.max_seq_length == (1024 if c.method == "qlora" else 2048)
    assert lengths == (1024, 128) or c.layout != "prompt-response"


# ---- constants ----


@pytest.mark.parametrize(
    ("words", "environ", "lr"),
    [
        ("", {}, 1e-4),
        ("LR=3e-4", {}, 3e-4),
        ("", {"LR": "3e-4"}, 3e-4),
        ("LR=3e-4", {"LR": "9e-4"}, 3e-4),
        ("LR=3e-4 --lr 1e-2", {}, 1e-2),
        ("--learning-rate 1e-2", {"LR": "3e-4"}, 1e-2),
        ("LR=", {}, 1e-4),
    ],
)
def test_constants_are_set_by_hand_and_flags_win(words, environ, lr, file):
    found = config("finetune_lora", words + " --model THUDM/chatglm3-6b", **environ)
    assert found.lr == lr


def test_a_file_wins_over_constants(file, tmp_path):
    written = tmp_path / "mine.yaml"
    written.write_text(f"learning_rate: 7e-4\ntrain_file: {file}\nmax_steps: 5\n")
    found = config("finetune_lora", f"MAX_STEP=9 --config {written}")
    assert (found.lr, found.train_file, found.max_steps) == (7e-4, (file,), 5)


def test_what_the_shell_script_passes_unchanged_is_not_by_hand():
    """A script passes all its constants; the embedded model still gets what it needs."""
    script = SCRIPTS["finetune_lora"]
    passed = " ".join(f"{name}={value}" for name, value in script.constants.items())
    assert config("finetune_lora", passed).lr == float(script.embedded["LR"])
    edited = passed.replace("LR=1e-4", "LR=2e-4")
    assert config("finetune_lora", edited).lr == 2e-4


def test_the_misspelt_constant_is_understood():
    assert config("finetune_pt", GRAD_ACCUMULARION_STEPS="3").accumulation == 3
    assert config("finetune_pt", "GRAD_ACCUMULARION_STEPS=3").accumulation == 3


def test_wrong_constants_and_flags_are_named_together():
    with pytest.raises(BadConfig) as caught:
        plan("finetune_pt", "LR=fast LORA_RANK=8 --epochs 0", MAX_STEP="x")
    found = "\n".join(caught.value.problems)
    assert "LR is 'fast'; a number is needed" in found and "MAX_STEP is 'x'" in found
    assert "LORA_RANK is no constant of finetune_pt; it has PRE_SEQ_LEN, LR" in found
    assert "--epochs is '0'" in found


# ---- the program ----


def test_a_script_is_named_as_it_is_or_as_its_file(monkeypatch):
    seen = []
    monkeypatch.setattr(run, "train", lambda script, words, environ: seen.append(script.name) or 0)
    for name in ("finetune_pt", "finetune_pt.sh", "finetune/finetune_pt.sh"):
        assert run.main([name]) == 0
    assert seen == ["finetune_pt"] * 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "finetune_qlora"),
        (["--help"], 0, "finetune_pt_multiturn"),
        (["finetune_sft"], 2, "no script 'finetune_sft'; there are:"),
        (["finetune_pt", "--help"], 0, "Constants: PRE_SEQ_LEN=128"),
        (["finetune_hf", "--help"], 0, "finetune_hf DATA_DIR MODEL CONFIG RESUME"),
    ],
)
def test_the_program_explains_itself(words, code, said, capsys):
    assert run.main(words) == code
    assert said in capsys.readouterr().out


def test_what_runs_is_said_and_is_the_trainer(monkeypatch, capsys, file):
    seen = {}

    def start(command, environ, folder):
        seen.update(command=command, environ=environ)
        return 7

    monkeypatch.setattr(launching, "start", start)
    words = ["--train-file", file, "--device", "cpu"]
    assert run.train(SCRIPTS["finetune_lora"], words, {"NUM_GPUS": "2"}) == 7
    assert "torch.distributed.run" in seen["command"] and "finetune.train" in seen["command"]
    assert (
        seen["environ"]["PYTHONPATH"] == str(ROOT) and int(seen["environ"]["OMP_NUM_THREADS"]) >= 1
    )
    assert "--nproc_per_node 2" in capsys.readouterr().err


def test_a_plan_that_cannot_be_ends_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(launching, "start", lambda *given: pytest.fail("it started"))
    assert run.train(SCRIPTS["finetune_lora"], ["--train-file", "nowhere"], {}) == run.BAD_OPTION
    assert "there is no file or folder nowhere" in capsys.readouterr().err


def test_without_the_packages_launch_prepares_them(monkeypatch):
    calls = []

    def fake(command, **about):
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="/made/python\n")

    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(run.subprocess, "run", fake)
    assert run.main(["finetune_pt", "LR=1"]) == 0
    assert calls[0][1:] == [str(ROOT / "launch.py"), "prepare"]
    assert calls[1] == ["/made/python", "-m", "finetune.run", "finetune_pt", "LR=1"]


def test_prepare_prints_the_python_that_has_everything():
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "prepare"], capture_output=True, text=True
    )
    assert done.returncode == 0 and Path(done.stdout.strip()) == Path(sys.executable)


def test_the_shell_script_hands_over_constants_and_flags(tmp_path):
    """A Python that prints what it was asked stands in for the real one."""
    fake = tmp_path / "python"
    fake.write_text(
        "#!/usr/bin/env bash\n"
        'if [[ "$2" == prepare ]]; then echo "$0"; else printf "%s\\n" "$@" "at $PYTHONPATH"; fi\n'
    )
    fake.chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "PYTHON": str(fake), "LR": "3e-3"}
    environ["GRAD_ACCUMULARION_STEPS"] = "5"
    done = subprocess.run(
        ["bash", str(ROOT / "finetune" / "finetune_pt.sh"), "--train-file", "my rows.jsonl"],
        cwd=tmp_path, env=environ, capture_output=True, text=True,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert done.returncode == 0 and said[:3] == ["-m", "finetune.run", "finetune_pt"]
    assert {"LR=3e-3", "GRAD_ACCUMULATION_STEPS=5", "MAX_STEP=1000"} <= set(said)
    assert said[-3:] == ["--train-file", "my rows.jsonl", f"at {ROOT}"]


def test_a_python_that_cannot_be_prepared_ends_the_script(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/usr/bin/env bash\necho too old >&2\nexit 3\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "finetune" / "finetune_pt.sh")],
        env={**os.environ, "PYTHON": str(fake)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3 and done.stderr == "too old\n"


@pytest.mark.parametrize("script", KNOWN, ids=lambda script: script.name)
def test_a_script_explains_itself_with_its_constants(script):
    file = ROOT / "finetune" / f"{script.name}.sh"
    environ = {"PATH": "/usr/bin:/bin", "LR": "0.5"}  # no Python is needed for it
    done = subprocess.run(
        ["bash", str(file), "--help"], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0 and script.about in done.stdout
    assert "LR=0.5" in done.stdout and "set -" not in done.stdout


@pytest.mark.parametrize(
    ("words", "resume"), [("", ""), ("yes", "last"), ("500", "500")], ids=["fresh", "yes", "step"]
)
def test_finetune_hf_takes_its_words_in_order(words, resume, tmp_path, file):
    written = tmp_path / "lora.yaml"
    written.write_text(
        f"data_config:\n  train_file: rows.jsonl\ntraining_args:\n  output_dir: {tmp_path}/out\n"
        "peft_config:\n  peft_type: LORA\n"
    )
    found = config("finetune_hf", f"{tmp_path} assets/tiny {written} {words} --lr 1e-3")
    assert (found.data_dir, found.model, found.resume) == (str(tmp_path), "assets/tiny", resume)
    assert (found.method, found.lr, found.output_dir) == ("lora", 1e-3, f"{tmp_path}/out")


def test_a_command_that_is_said_runs_where_it_is_said(tmp_path, monkeypatch):
    here = tmp_path / "a 目录"
    (here / "x").mkdir(parents=True)
    monkeypatch.chdir(here)
    said = run.farewell(TrainConfig(output_dir="x", model="THUDM/chatglm3-6b")).splitlines()[-1]
    (here / "x" / "adapter").mkdir()
    full = run.farewell(TrainConfig(output_dir="x", model="THUDM/chatglm3-6b")).splitlines()[-1]
    line = full.partition(":")[2].strip()
    assert line.startswith(f"cd {ROOT} && ") and shlex.split(line)[-1] == f"{here}/x/adapter"
    assert "--model THUDM/chatglm3-6b" in line and said.endswith("--adapter x/adapter")
    done = subprocess.run(["bash", "-c", f"{line} --help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: python -m finetune.inference" in done.stdout


def test_the_result_is_chatted_with_by_a_command_that_is_said():
    lora = TrainConfig(output_dir="runs/a", model="THUDM/chatglm3-6b")
    said = run.farewell(lora)
    assert "python launch.py --model THUDM/chatglm3-6b --adapter runs/a/adapter" in said
    assert "python -m finetune.inference --model THUDM/chatglm3-6b --adapter runs/a/adapter" in said
    assert '"Models" / "模型", put runs/a/adapter\n' in said and "--raw" not in said
    assert (
        'under "Folder or file of an adapter" / "适配器的文件夹或文件" and press "Add" / "添加"'
        in said
    )
    assert run.farewell(lora, "my rows.jsonl").endswith(
        "--adapter runs/a/adapter --tools 'my rows.jsonl'"
    )
    moved = run.farewell(replace(lora, tokenizer="words"))
    assert "--tokenizer words --adapter runs/a/adapter" in moved
    pairs = replace(lora, layout="prompt-response", method="full")
    said = run.farewell(pairs)
    assert "python -m finetune.inference --model runs/a/model --raw" in said
    assert 'under "Folder on this machine, or a hub id"' in said
    assert 'press "Look" / "查看", then "Open" / "打开"' in said


def test_scripts_take_no_more_processes_than_cards_unless_told(file):
    words = f"--model THUDM/chatglm3-6b --train-file {file}"
    two = plan("finetune_ds", words, one_gpu(count=2))
    assert (two.config.num_gpus, two.config.zero) == (2, 2)
    assert "NUM_GPUS=2" in " ".join(two.notes)
    alone = plan("finetune_ds", words)
    assert (alone.config.num_gpus, alone.config.zero) == (1, 0)
    assert "trains without deepspeed" in " ".join(alone.notes)
    told = config("finetune_ds", words, NUM_GPUS="2")
    assert (told.num_gpus, told.zero) == (2, 2)
    assert config("finetune_ds", f"NUM_GPUS=2 {words} --fsdp").zero == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="bash is not there")
@pytest.mark.parametrize("script", KNOWN, ids=lambda script: script.name)
def test_a_script_typed_bare_really_trains(script, tmp_path):
    """One step, by a constant in the environment; the rest as it stands."""
    around = {**os.environ, "PYTHON": sys.executable, "MAX_STEP": "1"}
    command = ["bash", str(ROOT / "finetune" / f"{script.name}.sh"), "--output-dir", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python launch.py --" in done.stdout and done.stdout.count("Chat with it here:") == 1
    assert (tmp_path / "out" / "exit_code").read_text().startswith("0\n")
