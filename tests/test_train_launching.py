"""How many processes start, where, and with which deepspeed or FSDP: without starting any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from finetune.config import TrainConfig, read_config
from finetune.options.option import named
from finetune.training import launching, network
from finetune.training.launching import Place, command, place
from finetune.training.machine import Machine
from tests.shared_files import ROOT
from tests.train_desk import CPU, one_gpu, rows, wrong


@pytest.fixture
def file(tmp_path) -> str:
    return rows(tmp_path)


ADDRESS = ("--master_addr", "node0", "--master_port")
SIX = ("--master_addr", "fe80::1", "--master_port")

# ---- processes ----


@pytest.mark.parametrize(
    ("where", "launcher"),
    [
        (Place(0), []),
        (Place(1), []),
        (Place(2), ["--nproc_per_node", "2", "--standalone", "--nnodes", "1"]),
        (
            Place(8, 2, 1, "node0:29501"),
            [
                "--nproc_per_node",
                "8",
                "--nnodes",
                "2",
                "--node_rank",
                "1",
                "--master_addr",
                "node0",
                "--master_port",
                "29501",
            ],
        ),
        (
            Place(1, 2, 0, "[fe80::1]"),
            [
                "--nproc_per_node",
                "1",
                "--nnodes",
                "2",
                "--node_rank",
                "0",
                "--master_addr",
                "fe80::1",
                "--master_port",
                "29500",
            ],
        ),
    ],
)
def test_the_command_of_a_machine(where, launcher):
    torchrun = ["-m", "torch.distributed.run", *launcher, "-m", "--"] if launcher else ["-m"]
    expected = [sys.executable, *torchrun, "finetune.train", "--lr", "1"]
    assert command(where, ["--lr", "1"]) == expected


def test_torchrun_leaves_every_option_to_the_trainer():
    from torch.distributed.run import parse_args

    words = [part for name in named(TrainConfig) for part in (f"--{name}", "1")]
    found = parse_args(command(Place(2, 2, 1, "node0:29501"), words)[3:])
    assert (found.training_script, found.training_script_args) == ("finetune.train", words)
    assert (found.nnodes, found.node_rank, found.master_addr) == ("2", 1, "node0")
    assert found.module and found.nproc_per_node == "2"


def several(words: str, file: str, machine: Machine = CPU, **environ: str) -> TrainConfig:
    return read_config(["--train-file", file, *words.split()], environ, machine).config


def test_a_hostfile_says_where_this_machine_stands(tmp_path, file):
    hosts = tmp_path / "hosts"
    hosts.write_text("# ours\nnode0 slots=8\n\n10.0.0.2 slots=8  # the other\n")
    asked = TrainConfig(hostfile=str(hosts))
    assert place(asked, ["x", "10.0.0.2"]) == Place(8, 2, 1, "node0:29500")
    assert place(asked, ["node0"]).rank == 0
    with pytest.raises(ValueError, match="does not name this machine, which is x, y"):
        place(asked, ["x", "y"])


def test_a_machine_finds_itself_by_an_address_its_name_does_not_tell(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.1 slots=2\n127.0.0.1 slots=2\n")
    found = place(TrainConfig(hostfile=str(hosts)))
    assert (found.rank, found.master, found.peer) == (1, "192.0.2.1:29500", "192.0.2.1")


def test_each_machine_of_a_list_looks_at_another_one(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("node0\nnode1\nnode2\n")
    asked = TrainConfig(hostfile=str(hosts))
    peers = [place(asked, [f"node{rank}"]).peer for rank in range(3)]
    assert peers == ["node2", "node0", "node0"]


def test_processes_of_several_machines_talk_by_the_network_that_reaches_the_others(
    file, monkeypatch
):
    monkeypatch.setattr(network, "interface_to", {"node0": "eth7"}.get)
    asked = several("--device cpu", file)
    far = Place(1, 2, 1, "node0:29500", "node0")
    assert launching.environment(asked, far, CPU, {})["GLOO_SOCKET_IFNAME"] == "eth7"
    own = {"GLOO_SOCKET_IFNAME": "mine"}
    assert launching.environment(asked, far, CPU, own)["GLOO_SOCKET_IFNAME"] == "mine"
    assert "GLOO_SOCKET_IFNAME" not in launching.environment(asked, Place(2), CPU, {})


def test_a_network_is_not_told_of_what_cannot_be_reached():
    assert network.interface_to("127.0.0.1") == ""
    assert network.interface_to("no..name") == ""
    assert network.is_here("127.0.0.1") and not network.is_here("no..name")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no machine"),
        ("a slots=two\n", "line 1: `HOST slots=N` is needed"),
        ("a slots=2\nb slots=4\n", "all machines need the same number of slots"),
    ],
)
def test_a_bad_hostfile_is_refused_with_the_line(text, sentence, tmp_path, file):
    hosts = tmp_path / "hosts"
    hosts.write_text(text)
    assert sentence in wrong(f"--hostfile {hosts}", file)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--nodes 2", "--nodes is 2: give --master HOST:PORT"),
        ("--nodes 2 --master a:1 --node-rank 2", "--node-rank is 2 of 2"),
        ("--nodes 2 --master a:b:c --output-dir o", "--master is 'a:b:c'; HOST:PORT is needed"),
        ("--nodes 2 --master a:1", "give --output-dir, on a disk they share"),
    ],
)
def test_machines_that_cannot_find_each_other_are_refused(words, sentence, file):
    assert sentence in wrong(words, file)


def test_more_processes_than_cards_are_refused_and_a_cpu_takes_any_number(file):
    assert "--num-gpus is 4 and 2 are visible" in wrong("--num-gpus 4", file, one_gpu(count=2))
    assert several("--num-gpus 4", file).num_gpus == 4
    assert several("--num-gpus 4 --device cpu", file, one_gpu()).num_gpus == 4


@pytest.mark.parametrize(
    ("words", "world", "fits"),
    [
        ("--num-gpus 2", "2", True),
        ("--num-gpus 2", "1", False),
        ("--num-gpus 2 --nodes 2 --master a:1 --output-dir o", "4", True),
        ("--num-gpus 2 --nodes 2 --master a:1 --output-dir o", "2", False),
        ("", "2", True),
    ],
)
def test_the_number_of_processes_that_run_is_compared(words, world, fits, file):
    if fits:
        several(words, file, WORLD_SIZE=world)
    else:
        found = wrong(words, file, WORLD_SIZE=world)
        assert f"processes were asked for and {world} run" in found


def test_accelerate_that_starts_one_process_of_several_is_told(file):
    asked = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}
    assert "accelerate launch was asked for several" in wrong("", file, **asked)
    assert several("--num-gpus 2", file, **asked).num_gpus == 2
    assert several("", file, WORLD_SIZE="2", **asked)
    assert several("", file, ACCELERATE_USE_CPU="True")


def test_deepspeed_builds_with_the_programs_beside_this_python():
    own = os.path.dirname(sys.executable)
    found = launching.own_programs_first({"PATH": f"/bin:{own}:/usr/bin"})
    assert found.split(":") == [own, "/bin", "/usr/bin"]


def test_a_launcher_is_needed_once_only(file):
    asked = several("--num-gpus 2", file)
    assert launching.needs_launcher(asked, {})
    assert not launching.needs_launcher(asked, {"WORLD_SIZE": "2"})
    assert not launching.needs_launcher(several("", file), {})


def test_threads_are_shared_out_and_deepspeed_is_told_of_the_cpu(file):
    asked = several("--num-gpus 2 --zero 2", file)
    found = launching.environment(asked, Place(2), CPU, {"A": "b"})
    assert found == {"A": "b", "OMP_NUM_THREADS": "2", "DS_ACCELERATOR": "cpu"}
    own = launching.environment(asked, Place(2), CPU, {"OMP_NUM_THREADS": "7"})
    assert own["OMP_NUM_THREADS"] == "7"
    assert "DS_ACCELERATOR" not in launching.environment(asked, Place(1), one_gpu(), {})


def test_what_runs_ends_with_its_code(tmp_path, capsys):
    program = [sys.executable, "-c", "import os, sys; sys.exit(int(os.environ['CODE']))"]
    assert launching.start(program, {**os.environ, "CODE": "5"}, tmp_path) == 5
    assert not capsys.readouterr().err


# ---- deepspeed and FSDP ----


def test_without_a_compiler_deepspeed_on_a_cpu_is_refused_in_one_sentence(file):
    bare = replace(CPU, compiler="")
    found = wrong("--zero 2 --num-gpus 2", file, bare)
    assert "there is no compiler: install one" in found and found.count("\n") == 0
    assert several("--fsdp --num-gpus 2", file, bare).fsdp


def test_a_path_without_compilers_ends_in_that_sentence_before_anything_starts(tmp_path, file):
    words = ["-m", "finetune.run", "finetune_ds", "NUM_GPUS=2", "--zero", "2", "--device", "cpu"]
    words += ["--train-file", file, "--output-dir", str(tmp_path / "x")]
    bare = {name: value for name, value in os.environ.items() if name != "CXX"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**bare, "PATH": str(tmp_path)},
    )
    assert done.returncode == 2 and not (tmp_path / "x").exists()
    assert "there is no compiler: install one" in done.stderr and done.stderr.count("\n") == 1


def test_a_gpu_needs_no_compiler_for_our_own_files(file):
    bare = replace(one_gpu(), compiler="")
    for words in ("--zero 2", "--zero 3", "--zero 3 --offload"):
        assert several(words, file, bare).zero


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--zero 2", "zero2.json: ZeRO stage 2, bf16 auto, fp16 auto"),
        ("--zero 3", "zero3.json: ZeRO stage 3"),
        ("--zero 2 --offload", "ZeRO stage 2, optimizer on cpu"),
        ("--zero 3 --offload", "ZeRO stage 3, optimizer on cpu, param on cpu"),
    ],
)
def test_the_effective_stage_is_said(words, said, file):
    found = read_config(["--train-file", file, *words.split()], {}, one_gpu())
    assert said in " ".join(found.notes)


def test_what_is_trained_with_zero_3_is_saved_whole():
    for name in ("zero3.json", "zero3_offload.json"):
        values = json.loads((launching.CONFIGS / name).read_text())
        assert values["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_fsdp_wraps_the_layers_of_the_family():
    settings = launching.fsdp_settings()
    assert settings["version"] == 2
    assert settings["transformer_layer_cls_to_wrap"] == ["GlmDecoderLayer"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a deepspeed configuration"),
        ('{"zero_optimization": 3}', "is not a deepspeed configuration"),
        ('{"train_micro_batch_size_per_gpu": 4}', 'and --batch-size is 2; write "auto"'),
        ('{"gradient_accumulation_steps": 1}', "and --accumulation is 8"),
        ('{"gradient_clipping": 0.3}', "and --max-grad-norm is 1.0"),
    ],
)
def test_a_deepspeed_file_that_does_not_fit_is_refused(text, sentence, tmp_path, file):
    own = tmp_path / "own.json"
    own.write_text(text)
    assert sentence in wrong(f"--deepspeed {own}", file, one_gpu())


def test_an_own_deepspeed_file_is_taken_as_it_is(tmp_path, file):
    """The one of THUDM/ChatGLM3's finetune_demo."""
    own = tmp_path / "deepspeed.json"
    own.write_text(
        '{"train_micro_batch_size_per_gpu": "auto", "zero_allow_untested_optimizer": true, '
        '"fp16": {"enabled": "auto", "loss_scale": 0}, "zero_optimization": {"stage": 2}}'
    )
    found = read_config(["--train-file", file, "--deepspeed", str(own)], {}, one_gpu())
    assert launching.deepspeed_file(found.config) == own
    assert "ZeRO stage 2, fp16 auto" in " ".join(found.notes)
