"""The flags and files of four earlier systems mean what they meant, or are refused by name.

One table per system holds every option it had: what it is here, or a piece of the sentence that
refuses it or says that it has no effect.
"""

from __future__ import annotations

import json

import pytest

from finetune.config import TrainConfig, read_config
from finetune.options import earlier
from finetune.options.option import BadConfig, named, options
from tests.train_desk import CPU, one_gpu, reading, rows, wrong

# name, a value as it stood in the wild, what it becomes ({}: nothing to say)
THUDM_FINETUNE = [
    ("model_name_or_path", "THUDM/chatglm3-6b", {"model": "THUDM/chatglm3-6b"}),
    ("ptuning_checkpoint", "assets/tiny", {"adapter": "assets/tiny"}),
    ("config_name", "", {}),
    ("config_name", "x", "the model's own config.json is used"),
    ("tokenizer_name", "assets/tiny", {"tokenizer": "assets/tiny"}),
    ("cache_dir", "/x", "HF_HOME"),
    ("use_fast_tokenizer", "True", {}),
    ("model_revision", "main", {}),
    ("model_revision", "v1.0", "give its folder as model"),
    ("use_auth_token", "False", {}),
    ("use_auth_token", "True", "hf auth login"),
    ("resize_position_embeddings", "True", "no position table"),
    ("quantization_bit", "8", {"quantization_bit": 8}),
    ("pre_seq_len", "128", {"pre_seq_len": 128, "method": "ptuning"}),
    ("prefix_projection", "False", {"prefix_projection": False}),
    ("max_seq_length", "2048", {"max_seq_length": 2048}),
    ("max_source_length", "1024", {"max_source_length": 1024}),
    ("max_target_length", "128", {"max_target_length": 128}),
    ("train_format", "multi-turn", {"layout": "chatglm3"}),
    ("train_format", "input-output", {"layout": "prompt-response"}),
    ("train_format", "chat", "has no meaning here; allowed: multi_turn, input_output"),
    ("overwrite_cache", True, "note: there is no cache"),
    ("preprocessing_num_workers", "1", "note: nothing is prepared before"),
    ("pad_to_max_length", "True", "note: padded to the longest"),
    ("max_train_samples", "50", {"max_rows": 50}),
    ("per_device_train_batch_size", "1", {"batch_size": 1}),
    ("gradient_accumulation_steps", "16", {"accumulation": 16}),
    ("max_steps", "1000", {"max_steps": 1000}),
    ("logging_steps", "1", {"log_interval": 1}),
    ("save_steps", "500", {"save_interval": 500}),
    ("learning_rate", "2e-2", {"lr": 0.02}),
    ("fp16", True, {"precision": "fp16"}),
    ("deepspeed", "finetune/configs/zero2.json", {"deepspeed": "finetune/configs/zero2.json"}),
    ("resume_from_checkpoint", "assets/tiny", {"resume": "assets/tiny"}),
    ("overwrite_output_dir", True, "note: never writes over another"),
    ("prompt_column", "content", {}),
    ("prompt_column", "question", "python -m finetune.convert"),
    ("response_column", "summary", {}),
    ("history_column", "history", "write the turns as conversations"),
    ("trust_remote_code", "True", "code from a checkpoint never runs"),
    ("do_train", True, {}),
]
TRANSFORMERS_TASKS = [
    ("save_dir", "checkpoints/x", {"output_dir": "checkpoints/x"}),
    ("max_source_seq_len", "400", {"max_source_length": 400}),
    ("max_target_seq_len", "300", {"max_target_length": 300}),
    ("batch_size", "1", {"batch_size": 1}),
    ("learning_rate", "3e-5", {"lr": 3e-5}),
    ("weight_decay", "0.001", {"weight_decay": 0.001}),
    ("num_train_epochs", "3", {"epochs": 3.0}),
    ("warmup_ratio", "0.1", {"warmup_ratio": 0.1}),
    ("save_freq", "1000", {"save_interval": 1000}),
    ("logging_steps", "100", {"log_interval": 100}),
    ("device", "cuda:0", {"device": "cuda:0"}),
    ("lora_rank", "8", {"lora_rank": 8, "method": "lora"}),
    ("img_log_dir", "log/fine_tune_log", {"loss_image": "log/fine_tune_log/Model Performance.png"}),
    ("img_log_name", "ChatGLM", {"loss_image": "logs/ChatGLM.png"}),
    ("use_lora", "True", {"method": "lora"}),
    ("use_lora", "False", {"method": "full"}),
    ("use_ptuning", "True", {"method": "ptuning"}),
    ("use_ptuning", "False", {}),
    ("pre_seq_len", "128", {"pre_seq_len": 128}),
    ("prefix_projection", "False", {"prefix_projection": False}),
    ("preprocessing_num_workers", "1", "note: nothing is prepared before"),
    ("quantization_bit", "4", {"quantization_bit": 4}),
]
FIREFLY = [
    ("output_dir", "output/firefly-chatglm3-6b", {"output_dir": "output/firefly-chatglm3-6b"}),
    ("model_name_or_path", "THUDM/chatglm3-6b", {"model": "THUDM/chatglm3-6b"}),
    ("task_type", "", {}),
    ("task_type", "pretrain", "pre-training on plain text is not there"),
    ("task_type", "dpo", "training on preferences is not there"),
    ("eval_file", "", {"dev_file": ()}),
    ("num_train_epochs", 1, {"epochs": 1.0}),
    ("per_device_train_batch_size", 8, {"batch_size": 8}),
    ("gradient_accumulation_steps", 2, {"accumulation": 2}),
    ("learning_rate", 2e-4, {"lr": 2e-4}),
    ("max_seq_length", 1024, {"max_seq_length": 1024}),
    ("logging_steps", 200, {"log_interval": 200}),
    ("save_steps", 500, {"save_interval": 500}),
    ("save_total_limit", 1, {"keep_checkpoints": 1}),
    ("lr_scheduler_type", "constant_with_warmup", {"schedule": "constant_with_warmup"}),
    ("warmup_steps", 500, {"warmup_steps": 500}),
    ("lora_rank", 64, {"lora_rank": 64}),
    ("lora_alpha", 16, {"lora_alpha": 16.0}),
    ("lora_dropout", 0.05, {"lora_dropout": 0.05}),
    ("gradient_checkpointing", True, {"gradient_checkpointing": True}),
    ("disable_tqdm", False, {}),
    ("optim", "paged_adamw_32bit", {"optimizer": "paged_adamw_32bit"}),
    ("seed", 42, {"seed": 42}),
    ("fp16", True, {"precision": "fp16"}),
    ("report_to", "tensorboard", {"report_to": ("tensorboard",)}),
    ("dataloader_num_workers", 0, {"dataloader_num_workers": 0}),
    ("save_strategy", "steps", {}),
    ("save_strategy", "epoch", "give save_interval and eval_interval"),
    ("weight_decay", 0, {"weight_decay": 0.0}),
    ("max_grad_norm", 0.3, {"max_grad_norm": 0.3}),
    ("remove_unused_columns", False, {}),
    ("template_name", "chatglm3", {"layout": "eos-per-turn"}),
    ("train_mode", "full", {"method": "full"}),
    ("tokenize_num_workers", 8, "note: nothing is prepared before"),
    ("use_unsloth", False, {}),
    ("use_unsloth", True, "unsloth does not know this family"),
    ("adam_beta2", 0.999, {}),
    ("adam_beta2", 0.95, "beta 0.9 and 0.999"),
    ("push_to_hub", True, "nothing is sent anywhere"),
    ("neftune_noise_alpha", 5, "no noise is added"),
    ("no_such_argument", 1, "no option has this name"),
]
FINETUNE_HF = [
    ("val_file", "{rows}", {"dev_file": ("{rows}",)}),
    ("test_file", "{rows}", "note: python -m finetune.evaluate"),
    ("num_proc", 16, "note: nothing is prepared before"),
    ("max_input_length", 256, {"max_source_length": 256}),
    ("max_output_length", 512, {"max_target_length": 512}),
    ("output_dir", "./output/x", {"output_dir": "./output/x"}),
    ("max_steps", 3000, {"max_steps": 3000}),
    ("learning_rate", "5e-5", {"lr": 5e-5}),
    ("per_device_train_batch_size", 4, {"batch_size": 4}),
    ("dataloader_num_workers", 16, {"dataloader_num_workers": 16}),
    ("remove_unused_columns", False, {}),
    ("save_strategy", "steps", {}),
    ("save_steps", 500, {"save_interval": 500}),
    ("log_level", "info", {}),
    ("logging_strategy", "steps", {}),
    ("logging_steps", 10, {"log_interval": 10}),
    ("per_device_eval_batch_size", 16, {"eval_batch_size": 16}),
    ("evaluation_strategy", "steps", {}),
    ("eval_steps", 500, "give a --dev-file"),
    ("predict_with_generate", True, "note: scored after the run"),
    ("generation_config", {"max_new_tokens": 512}, "note: scored after the run"),
    ("use_cpu", False, {}),
    ("use_cpu", True, {"device": "cpu"}),
    ("peft_type", "LORA", {"method": "lora"}),
    ("peft_type", "PREFIX_TUNING", {"method": "ptuning"}),
    ("peft_type", "PROMPT_TUNING", "PREFIX_TUNING is P-Tuning v2"),
    ("task_type", "CAUSAL_LM", {}),
    ("r", 8, {"lora_rank": 8}),
    ("lora_alpha", 32, {"lora_alpha": 32.0}),
    ("num_virtual_tokens", 64, {"pre_seq_len": 64}),
    ("target_modules", ["query_key_value"], {"lora_targets": ("query_key_value",)}),
]
HF_SECTION = {
    **dict.fromkeys(["val_file", "test_file", "num_proc"], "data_config"),
    **dict.fromkeys(["max_input_length", "max_output_length"], ""),
    **dict.fromkeys(
        ["peft_type", "task_type", "r", "lora_alpha", "num_virtual_tokens", "target_modules"],
        "peft_config",
    ),
}


@pytest.fixture
def file(tmp_path) -> str:
    return rows(tmp_path)


def filled(value, file: str):
    """The row's own data file in the place of {rows}."""
    if isinstance(value, str):
        return value.replace("{rows}", file)
    return tuple(filled(item, file) for item in value) if isinstance(value, tuple) else value


def check(words: list[str], becomes, file: str) -> None:
    """The words become these options, end in this sentence, or in this note."""
    machine = one_gpu()
    if isinstance(becomes, dict):
        found = reading(words, file, machine)
        for name, value in becomes.items():
            assert getattr(found.config, name) == filled(value, file)
        assert not found.notes or "deepspeed" in becomes
    elif becomes.startswith("note: "):
        assert becomes[6:] in " ".join(reading(words, file, machine).notes)
    else:
        found = wrong(words, file, machine)
        assert becomes in found and len(found.splitlines()) == 1


def identity(row) -> str:
    return f"{row[0]}-{row[1]}"


@pytest.mark.parametrize("row", THUDM_FINETUNE + TRANSFORMERS_TASKS, ids=identity)
@pytest.mark.parametrize("dash", ["_", "-"])
def test_a_flag_of_an_earlier_system(row, dash, file):
    name, value, becomes = row
    words = [f"--{name.replace('_', dash)}", *([] if value is True else [str(value)])]
    check(words, becomes, file)


@pytest.mark.parametrize("row", FIREFLY, ids=identity)
def test_a_key_of_fireflys_file(row, file, tmp_path):
    name, value, becomes = row
    arguments = tmp_path / "sft.json"
    arguments.write_text(json.dumps({name: value}), encoding="utf-8")
    for flag in ("--train_args_file", "--train-args-file"):
        check([flag, str(arguments)], becomes, file)


@pytest.mark.parametrize("row", FINETUNE_HF, ids=identity)
def test_a_key_of_the_yaml_of_finetune_hf(row, file, tmp_path):
    name, value, becomes = row
    section = HF_SECTION.get(name, "training_args")
    inside = {name: filled(value, file)}
    written = tmp_path / "lora.yaml"  # JSON is YAML too
    written.write_text(json.dumps({section: inside} if section else inside), encoding="utf-8")
    check(["--config", str(written)], becomes, file)


def test_fireflys_whole_file_is_read(tmp_path, file):
    """chatglm3-6b-sft-qlora.json of November 2023."""
    values = {name: value for name, value, becomes in FIREFLY if isinstance(becomes, dict)}
    values |= {"train_file": file, "lr_scheduler_type": "constant_with_warmup"}
    values.pop("train_mode")
    arguments = tmp_path / "chatglm3-6b-sft-qlora.json"
    arguments.write_text(json.dumps(values), encoding="utf-8")
    found = read_config(["--train_args_file", str(arguments)], {}, one_gpu()).config
    assert (found.method, found.layout, found.lora_rank) == ("qlora", "eos-per-turn", 64)
    assert (found.train_file, found.dev_file, found.precision) == ((file,), (), "fp16")
    del values["gradient_accumulation_steps"]
    arguments.write_text(json.dumps(values), encoding="utf-8")
    alone = read_config(["--train_args_file", str(arguments)], {}, one_gpu()).config
    assert (found.accumulation, alone.accumulation) == (2, 1)


def test_a_flag_wins_over_fireflys_file_and_what_it_implies(tmp_path, file):
    arguments = tmp_path / "a.json"
    arguments.write_text(json.dumps({"train_file": file, "fp16": True}), encoding="utf-8")
    words = ["--precision", "fp32", "--layout", "chatglm3", "--train-args-file", str(arguments)]
    found = read_config(words, {}, CPU).config
    assert (found.method, found.layout, found.precision) == ("qlora", "chatglm3", "fp32")


def test_fireflys_file_on_a_cpu_names_all_that_cannot_be_at_once(tmp_path, file):
    arguments = tmp_path / "a.json"
    values = {"fp16": True, "optim": "paged_adamw_32bit", "beam": 3}
    arguments.write_text(json.dumps(values), encoding="utf-8")
    found = wrong(["--train-args-file", str(arguments)], file).splitlines()
    assert len(found) == 3 and f"{arguments}: beam: no option has this name" in found[0]
    assert "--precision is fp16" in found[1] and "--optimizer is paged_adamw_32bit" in found[2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{'lr': 1}", "it is not JSON: Expecting property name"),
        ('{"lr": 1,\n', "(line 2)"),
        ("[1]", "option: value pairs are needed"),
        ("\xff", "it is not UTF-8 text"),
    ],
)
def test_a_broken_file_says_where(text, sentence, tmp_path, file):
    arguments = tmp_path / "a.json"
    arguments.write_bytes(text.encode("latin-1"))
    assert sentence in wrong(["--train-args-file", str(arguments)], file)


def test_the_yaml_of_finetune_hf_is_read_as_a_whole(tmp_path, file):
    """lora.yaml of THUDM/ChatGLM3's last finetune_demo."""
    written = tmp_path / "lora.yaml"
    written.write_text(
        f"""
data_config:
  train_file: rows.jsonl
  val_file: rows.jsonl
  num_proc: 16
max_input_length: 256
max_output_length: 512
training_args:
  output_dir: {tmp_path}/output
  max_steps: 3000
  learning_rate: 5e-5
  save_strategy: steps
  save_steps: 500
  evaluation_strategy: steps
  eval_steps: 500
  predict_with_generate: true
  generation_config:
    max_new_tokens: 512
  # deepspeed: ds_zero_3.json
peft_config:
  peft_type: LORA
  task_type: CAUSAL_LM
  r: 8
  lora_alpha: 32
  lora_dropout: 0.1
"""
    )
    words = ["--config", str(written), "--data-dir", str(tmp_path)]
    found = read_config(words, {}, CPU).config
    assert (found.method, found.lora_dropout, found.lr) == ("lora", 0.1, 5e-5)
    assert (found.max_seq_length, found.eval_interval) == (256 + 512 + 1, 500)
    assert found.train_file == found.dev_file == ("rows.jsonl",) and found.accumulation == 1


def test_the_yaml_without_peft_config_trains_all_weights(tmp_path, file):
    written = tmp_path / "sft.yaml"
    written.write_text(f"data_config:\n  train_file: {file}\ntraining_args:\n  max_steps: 3\n")
    assert read_config([str(written)], {}, CPU).config.method == "full"


def test_a_file_may_stand_alone_as_it_did(tmp_path, file):
    written = tmp_path / "arguments.json"
    written.write_text(json.dumps({"train_file": file, "pre_seq_len": 128}))
    assert read_config([str(written)], {}, CPU).config.method == "ptuning"


def test_the_pictures_folder_and_name_go_together(file):
    words = ["--img_log_name", "ChatGLM", "--img_log_dir", "log"]
    assert reading(words, file).config.loss_image == "log/ChatGLM.png"


def test_neither_of_two_methods_is_all_weights(file):
    assert reading("--use_lora False --use_ptuning True", file).config.method == "ptuning"
    assert reading("--use_lora False --use_ptuning False", file).config.method == "full"


def test_the_command_line_in_the_readme_of_transformers_tasks_trains(file):
    words = (
        f"--train_path {file} --dev_path {file} --use_lora True --lora_rank 8 --batch_size 1 "
        "--num_train_epochs 2 --save_freq 1000 --learning_rate 3e-5 --logging_steps 100 "
        "--max_source_seq_len 400 --max_target_seq_len 300 --save_dir checkpoints/finetune "
        "--img_log_dir log/fine_tune_log --img_log_name Fine-Tune --device cuda:0"
    )
    found = read_config(words.split(), {}, one_gpu())
    assert found.config.train_file == found.config.dev_file == (file,) and not found.notes
    assert found.config.accumulation == 1  # a step of every batch, as there
    assert (
        read_config([*words.split(), "--accumulation", "4"], {}, one_gpu()).config.accumulation == 4
    )


def test_a_name_of_an_earlier_system_is_none_of_ours():
    assert not set(earlier.RULES) & set(named(TrainConfig))


def test_what_a_name_becomes_is_an_option_with_an_allowed_value():
    """Every switch and word in the table, without knowing its values."""
    for name, rule in earlier.RULES.items():
        if isinstance(rule, earlier.Means):
            for value in (True, False, "steps", "no", "sft", "lora", "chatglm3", "multi-turn", 8):
                try:
                    found, _ = earlier.translate(name, {name: value})
                except ValueError:
                    continue
                assert set(found) <= set(options(TrainConfig))


def test_a_reason_is_a_sentence_that_fits_after_the_name():
    for rule in earlier.RULES.values():
        if isinstance(rule, earlier.Refused):
            assert rule.why and not rule.why.endswith(".")


def test_an_unknown_flag_is_named_with_its_neighbour():
    with pytest.raises(BadConfig, match="--train_fil: no option has this name; did you mean train"):
        read_config(["--train_fil", "x"], {}, CPU)
