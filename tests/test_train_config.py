"""Options of a training run: flags, files, presets, checks, what is saved, what is written down."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.config import TrainConfig, load_config, read_config, save, to_argv
from finetune.options import page as options_page
from finetune.options import presets
from finetune.options.option import BadConfig, named, options, shown
from finetune.training.machine import Gpu, Machine, cpu_has_bf16, read_card, visible
from tests.train_desk import CPU, H100, V100, config, one_gpu, reading, rows, wrong

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def file(tmp_path) -> str:
    return rows(tmp_path)


# ---- the command line ----


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        ("--lr 1e-3", "lr", 1e-3),
        ("--learning_rate=1e-3", "lr", 1e-3),
        ("--learning-rate 1e-3", "lr", 1e-3),
        ("--LEARNING_RATE 1e-3", "lr", 1e-3),
        ("--lr 1 --lr 0.5", "lr", 0.5),
        ("--packing", "packing", True),
        ("--packing True", "packing", True),
        ("--packing False", "packing", False),
        ("--packing=false", "packing", False),
        ("--no-packing", "packing", False),
        ("--no_group_by_length", "group_by_length", False),
        ("--group-by-length False", "group_by_length", False),
        ("--gradient-checkpointing auto", "gradient_checkpointing", None),
        ("--gradient_checkpointing True", "gradient_checkpointing", True),
        ("--max-steps -1", "max_steps", 0),
        ("--mix-tools 5%", "mix_tools", 0.05),
        ("--warmup-ratio 0.1", "warmup_ratio", 0.1),
        ("--lora-targets q_proj,v_proj", "lora_targets", ("q_proj", "v_proj")),
        ("--lora-targets q_proj v_proj", "lora_targets", ("q_proj", "v_proj")),
        ("--report-to none", "report_to", ()),
        ("--report-to tensorboard,wandb", "report_to", ("tensorboard", "wandb")),
        ("--optim adamw_torch", "optimizer", "adamw"),
        ("--precision bfloat16 --device auto", "precision", "bf16"),
        ("--quantization_bit 4", "quantization_bit", 4),
        ("--resume False", "resume", ""),
    ],
)
def test_a_flag_is_read_as_people_write_it(words, option, value, file):
    machine = one_gpu()
    assert getattr(config(words, file, machine), option) == value


def test_a_list_takes_all_its_values_and_grows(tmp_path):
    first, second, third = (rows(tmp_path, f"{n}.jsonl") for n in "abc")
    found = read_config(["--train-file", first, second, "--train_path", third], {}, CPU).config
    assert found.train_file == (first, second, third)


def test_everything_that_is_wrong_is_named_at_once(file):
    """Row 45 of the bad inputs."""
    given = "--lr 0 --lr-x 1 --batch-size 0 --epochs -1 --method lorra --packing perhaps --seed 1.5"
    found = wrong(given, file)
    assert "--lr is '0'; a number is needed, 1e-08 to 1" in found
    assert "--lr-x: no option has this name; did you mean lr" in found
    assert "--batch-size is '0'; a whole number is needed, 1 to 65536" in found
    assert "--epochs is '-1'; a number is needed, 0.001 to 100000" in found
    assert "--method is 'lorra'; allowed: lora, qlora, ptuning, full, freeze" in found
    assert "--packing is 'perhaps'; allowed: true, false" in found
    assert "--seed is '1.5'; a whole number is needed, 0 to 4294967295" in found
    assert len(found.splitlines()) == 7


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--lr 1e9", "--lr is '1e9'; a number is needed"),
        ("--lr nan", "--lr is 'nan'"),
        ("--lr inf", "--lr is 'inf'"),
        ("--lr", "--lr needs a value"),
        ("--lr 1 2", "--lr is '1 2'"),
        ("--no-packing 3", "--no-packing takes no value"),
        ("--no-lr", "--no-lr: no option has this name"),
        ("--config", "--config needs a file"),
        ("--config nowhere.yaml", "--config nowhere.yaml: it cannot be read"),
        ("--early-stopping 3", "--early-stopping goes by the dev loss: give a --dev-file"),
        ("--max-steps 10 --warmup-steps 10", "would never get to its peak"),
        ("--report-to mlflow", "--report-to is mlflow; allowed: none, tensorboard"),
        ("--method full --quantization-bit 4", "quantised weights cannot learn"),
        ("--method qlora --quantization-bit 8", "qlora is 4 bits"),
        ("--method ptuning --dora", "--dora is a kind of LoRA; the method is ptuning"),
        ("--prefix-projection", "--prefix-projection belongs to --method ptuning"),
        ("--method full --adapter assets/tiny", "merge the adapter first"),
        ("--adapter nowhere", "--adapter is 'nowhere'; there is nothing of this name"),
        ("--method freeze --preset official", "the earlier systems did not train by freeze"),
        ("--device gpu", "--device is 'gpu'; allowed: auto, cpu, cuda"),
        ("--device cuda", "GPUs visible here: 0"),
        ("--precision fp16", "--precision is fp16, which this CPU does not train in"),
        ("--precision bf16", "--precision is bf16 and this CPU has no bf16 instructions"),
        ("--attention flash_attention_2", "needs a GPU; use auto"),
        ("--optimizer paged_adamw_8bit", "which needs a GPU; use --optimizer adamw"),
        ("--resume last", "give the run's folder too, as --output-dir"),
        ("--model nowhere/at/all", "--model: no folder at nowhere/at/all"),
        ("--lora-rank 300", "--lora-rank is 300 and the matrices of tiny have 256"),
        ("--max-seq-length 5000", "--max-seq-length is 5000 and the context of tiny is 4096"),
        (
            "--layout prompt-response --max-source-length 4000 --max-target-length 97",
            "together is 4097 and the context of tiny is 4096",
        ),
        ("--method freeze --trainable-layers 7", "--trainable-layers is 7 of 6"),
        ("--layout chatglm1", "--layout is chatglm1; tiny"),
        ("--format csv", "--format is 'csv'; allowed: auto, "),
        ("--zero 2 --fsdp", "--zero and --fsdp exclude each other"),
        ("--offload", "--offload belongs to --zero 2 or --zero 3"),
        ("--zero 1", "--zero is '1'; allowed: 0, 2, 3"),
        ("--train-file nowhere.jsonl", "there is no file or folder nowhere.jsonl"),
        ("--dev-file nowhere.jsonl", "--dev-file is 'nowhere.jsonl'; there is no file"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(words, sentence, file):
    """Row 45 of the bad inputs."""
    assert sentence in wrong(words, file)


def test_a_word_before_any_option_is_asked_about():
    with pytest.raises(BadConfig, match="'rows.txt' stands before any option"):
        read_config(["rows.txt"], {}, CPU)


def test_without_data_there_is_nothing_to_learn():
    with pytest.raises(BadConfig, match="there is nothing to learn: give --train-file FILE"):
        read_config([], {}, CPU)


def test_bf16_is_refused_on_a_card_without_it_and_taken_on_one_with_it(file):
    """Row 45 of the bad inputs."""
    assert "NVIDIA V100 has no bf16" in wrong("--precision bf16", file, one_gpu(V100))
    assert config("--precision bf16", file, one_gpu(H100)).precision == "bf16"
    with_amx = dataclasses.replace(CPU, cpu_bf16=True)
    assert config("--precision bf16", file, with_amx).precision == "bf16"


def test_a_model_of_the_hub_is_not_looked_for_before_it_is_downloaded(file):
    assert config("--model THUDM/chatglm3-6b --lora-rank 300", file).lora_rank == 300


# ---- presets, files, order ----


def test_later_words_win(tmp_path, file):
    run = tmp_path / "run.yaml"
    run.write_text("method: ptuning\nlr: 1e-4\nbatch-size: 8\n", encoding="utf-8")
    found = config(["--config", str(run), "--batch-size", "4"], file)
    usual = presets.values("default", "ptuning")
    assert found.accumulation == usual["accumulation"] != TrainConfig().accumulation
    assert (found.lr, found.batch_size, found.max_seq_length) == (1e-4, 4, 2048)


def test_only_the_length_of_a_prefix_means_p_tuning(file):
    assert config("--pre-seq-len 64", file).method == "ptuning"
    assert config("--pre-seq-len 64 --method lora", file).method == "lora"


def test_the_official_learning_rate_is_taken_on_request_only(file):
    assert config("--method ptuning", file).lr == 5e-3
    assert config("--method ptuning --preset official", file).lr == 2e-2
    assert config("--method ptuning --preset official --lr 1e-3", file).lr == 1e-3
    assert config("--method full", file).lr == 1e-5


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_preset_holds_allowed_values_and_trains_here(preset, file):
    for method in presets.PRESETS[preset]:
        found = config(f"--method {method} --preset {preset}", file, one_gpu())
        for name, value in presets.values(preset, method).items():
            assert getattr(found, name) == value and type(value) is type(getattr(found, name))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lr: [1\n", "it is not YAML"),
        ("- lr\n", "option: value pairs are needed"),
        ("lr: {a: 1}\n", "run.yaml: lr is"),
        ("leraning_rate: 1\n", "run.yaml: leraning_rate: no option has this name; did you mean"),
        ("lora_rank: 8.5\n", "run.yaml: lora_rank is 8.5; a whole number is needed"),
        ("packing: 3\n", "run.yaml: packing is 3; allowed: true, false"),
        ("batch_size: true\n", "run.yaml: batch_size is True"),
    ],
)
def test_a_bad_file_is_told_by_its_name_and_key(text, sentence, tmp_path, file):
    run = tmp_path / "run.yaml"
    run.write_text(text, encoding="utf-8")
    assert sentence in wrong(["--config", str(run)], file)


def test_a_file_with_a_mark_at_its_start_and_numbers_as_text_is_read(tmp_path, file):
    run = tmp_path / "run.yaml"
    run.write_bytes(b"\xef\xbb\xbflr: 1e-5\r\nlora_rank: '16'\r\nadapter: null\r\n")
    found = config(["--config", str(run)], file)
    assert (found.lr, found.lora_rank, found.adapter) == (1e-5, 16, "")


def changed(file: str) -> TrainConfig:
    """A configuration in which every kind of value differs from its default."""
    words = (
        f"--dev-file {file} --method qlora --preset official --gradient-checkpointing False "
        "--lora-targets q_proj v_proj --lr 3e-5 --max-steps 700 --no-group-by-length "
        "--mix-tools 5% --report-to wandb --zero 2 --offload --resume= "
        "--model THUDM/chatglm3-6b --max-rows 3"
    )
    return config(words, file, one_gpu())


def test_what_is_saved_loads_again_to_the_same(tmp_path, file):
    before = changed(file)
    save(before, tmp_path / "config.yaml")
    assert read_config(["--config", str(tmp_path / "config.yaml")], {}, one_gpu()).config == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "rows.jsonl"]


def test_automatic_values_stay_automatic_in_a_saved_file(tmp_path, file):
    words = "--method qlora --preset official --gradient-checkpointing auto"
    before = config(words, file, one_gpu())
    save(before, tmp_path / "config.yaml")
    after = read_config(["--config", str(tmp_path / "config.yaml")], {}, one_gpu()).config
    assert before.gradient_checkpointing is None and after == before


def test_the_command_line_of_a_configuration_gives_it_again(file):
    for before in (changed(file), config("", file), config("--pre-seq-len 8", file)):
        assert read_config(to_argv(before), {}, one_gpu()).config == before


# ---- the table of options ----


def test_no_name_stands_for_two_options():
    names = [name for o in options(TrainConfig).values() for name in (o.name, *o.aliases)]
    assert len(names) == len(set(names)) == len(named(TrainConfig))


def test_every_option_is_explained(capsys):
    with pytest.raises(SystemExit) as caught:
        load_config(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    for option in options(TrainConfig).values():
        assert option.flag in said and option.help and not option.help.endswith(".")


def test_every_default_is_an_allowed_value():
    for option in options(TrainConfig).values():
        if option.choices:
            assert option.default in option.choices
        if option.kind in ("whole", "number"):
            assert option.minimum <= option.default <= option.maximum


def test_the_docs_page_is_what_the_options_say():
    assert options_page.FILE.read_text(encoding="utf-8") == options_page.page(), (
        "run python -m finetune.options.page"
    )


def test_the_docs_page_names_every_option_with_its_default():
    text = options_page.page()
    for option in options(TrainConfig).values():
        assert f"| `{option.flag}` |" in text
        assert shown(option.default) in text


def test_notes_are_said_by_the_first_process_only(file, capsys):
    words = ["--train-file", file, "--overwrite_cache"]
    load_config(words, {"LOCAL_RANK": "1"})
    assert capsys.readouterr().err == ""
    load_config(words, {"LOCAL_RANK": "0"})
    assert "without effect here: there is no cache" in capsys.readouterr().err


def test_every_given_name_is_known_by_our_own(file):
    assert reading("--learning_rate 1e-3", file).given == {"train_file", "lr"}


# ---- the machine ----


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, "abc"),
        ("", ""),
        ("1", "b"),
        ("2,0", "ca"),
        ("0,7,1", "a"),
        ("-1", ""),
        ("GPU-1234", "a"),
    ],
)
def test_only_visible_cards_count(chosen, names):
    cards = tuple(Gpu(name, 1) for name in "abc")
    environ = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert "".join(card.name for card in visible(cards, environ)) == names


def test_a_card_is_read_from_what_nvidia_smi_prints():
    assert read_card("NVIDIA H100 80GB HBM3, 81559, 9.0") == Gpu(
        "NVIDIA H100 80GB HBM3", 81559 << 20, 9.0
    )
    assert read_card("Tesla K80, 11441, [N/A]") == Gpu("Tesla K80", 11441 << 20)
    assert read_card("No devices were found") is None


def test_bf16_of_a_cpu_is_told_from_its_flags():
    assert cpu_has_bf16("processor: 0\nflags\t\t: fpu avx512_bf16 sse\n")
    assert cpu_has_bf16("Features : fp asimd bf16 i8mm\n")
    assert not cpu_has_bf16("flags : fpu avx2\nmodel name : amx_bf16\n")


def test_a_machine_without_cards_has_no_bf16_on_cards():
    assert not Machine().gpu_bf16


def test_the_module_of_options_explains_itself():
    done = subprocess.run(
        [sys.executable, "-c", "from finetune.config import load_config; load_config(['-h'])"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "--train-file" in done.stdout
