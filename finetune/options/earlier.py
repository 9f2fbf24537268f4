"""Options of earlier systems that are not just another name of one of ours.

The flags of THUDM/ChatGLM3's finetune.py and the YAML of its finetune_hf.py, Firefly's JSON (any
TrainingArguments among it), transformers_tasks' train.py. Every one means options of ours, has no
effect here, or is refused; each with a sentence. Plain renames are `aliases` in `config.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune.options.option import NO, YES

Values = Mapping[str, Any]
Meaning = Callable[[Any, Values], Values]


@dataclass(frozen=True, slots=True)
class Means:
    """Options of ours, worked out from the value and the names beside it. `says` is for people."""

    read: Meaning
    says: str


@dataclass(frozen=True, slots=True)
class Left:
    """Accepted, without an effect; `why` is said when it stands there ("" is not worth it)."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """An error, unless the value asks for nothing: one of `harmless`, or an empty one."""

    why: str
    harmless: tuple[Any, ...] = ()


Rule = Means | Left | Refused


def translate(name: str, everything: Values) -> tuple[Values, str]:
    """(our options, a note) for a name in `RULES`. Raises ValueError with the reason."""
    rule, value = RULES[name], everything[name]
    match rule:
        case Means():
            return rule.read(value, everything), ""
        case Left():
            return {}, f"without effect here: {rule.why}" if rule.why else ""
        case Refused():
            if _lower(value) in ("", "none", *map(_lower, rule.harmless)):
                return {}, ""
            raise ValueError(rule.why)


def _lower(value: Any) -> str:
    return str(value).strip().lower()


def _one_of(meanings: Mapping[str, Values | str]) -> Meaning:
    """A word with a meaning; a text instead of a meaning is the reason why it is refused."""

    def read(value: Any, everything: Values) -> Values:
        meaning = meanings.get(_lower(value).replace("-", "_"))
        if meaning is None:
            allowed = ", ".join(word for word, means in meanings.items() if word and means != "")
            raise ValueError(f"{value!r} has no meaning here; allowed: {allowed}")
        if isinstance(meaning, str):
            raise ValueError(meaning)
        return meaning

    return read


def _switch(on: Values, off: Values | None = None) -> Meaning:
    def read(value: Any, everything: Values) -> Values:
        if _lower(value) not in YES + NO:
            raise ValueError(f"{value!r}; allowed: true, false")
        return on if _lower(value) in YES else off or {}

    return read


def _use_lora(value: Any, everything: Values) -> Values:
    """transformers_tasks: neither LoRA nor P-Tuning trains all weights."""
    off = {} if _lower(everything.get("use_ptuning")) in YES else {"method": "full"}
    return _switch({"method": "lora"}, off)(value, everything)


def _loss_image(value: Any, everything: Values) -> Values:
    folder = everything.get("img_log_dir", "logs")
    name = everything.get("img_log_name", "Model Performance")
    return {"loss_image": f"{folder}/{name}.png"}


def _input_and_output(value: Any, everything: Values) -> Values:
    """finetune_hf.py cut a conversation to both lengths and one more."""
    lengths = {
        ours: everything[theirs]
        for theirs, ours in (
            ("max_input_length", "max_source_length"),
            ("max_output_length", "max_target_length"),
        )
        if theirs in everything
    }
    if len(lengths) == 2 and all(isinstance(length, int) for length in lengths.values()):
        return {**lengths, "max_seq_length": sum(lengths.values()) + 1}
    return lengths


_EPOCHS = "saving and measuring go by steps here; give save_interval and eval_interval"
_SCORED = "answers are scored after the run: python -m finetune.evaluate RUN FILE"
_PREPARED = "rows are read and tokenised while training, nothing is prepared before"
_FIXED = "AdamW runs with beta 0.9 and 0.999 and epsilon 1e-8"
_COLUMNS = (
    "name the columns prompt and response (python -m finetune.convert does), or keep "
    "content and summary, which are known"
)
_OURS = "the trainer's own business here"

RULES: dict[str, Rule] = {
    # THUDM/ChatGLM3 finetune_demo/finetune.py
    "train_format": Means(
        _one_of(
            {"multi_turn": {"layout": "chatglm3"}, "input_output": {"layout": "prompt-response"}}
        ),
        "layout: multi-turn is chatglm3, input-output is prompt-response",
    ),
    "config_name": Refused("the model's own config.json is used"),
    "cache_dir": Refused("set the environment variable HF_HOME to the folder"),
    "use_fast_tokenizer": Left(),
    "model_revision": Refused("download that revision and give its folder as model", ("main",)),
    "use_auth_token": Refused("log in once with: hf auth login", (False,)),
    "trust_remote_code": Refused("code from a checkpoint never runs here; leave it out", (False,)),
    "resize_position_embeddings": Refused("the family has no position table to resize", (False,)),
    "overwrite_cache": Left("there is no cache of tokenised rows"),
    "preprocessing_num_workers": Left(_PREPARED),
    "pad_to_max_length": Left("rows are padded to the longest of their batch only"),
    "overwrite_output_dir": Left("a run never writes over another; resume goes on with one"),
    "prompt_column": Refused(_COLUMNS, ("prompt", "content")),
    "response_column": Refused(_COLUMNS, ("response", "summary")),
    "history_column": Refused("write the turns as conversations (python -m finetune.convert)"),
    "source_prefix": Refused("write the prefix into the rows"),
    "ignore_pad_token_for_loss": Refused("padding is never learnt here", (True,)),
    "val_max_target_length": Left(_SCORED),
    "num_beams": Left(_SCORED),
    # THUDM/ChatGLM3 finetune_demo/finetune_hf.py and its YAML
    "peft_type": Means(
        _one_of(
            {
                "lora": {"method": "lora"},
                "prefix_tuning": {"method": "ptuning"},
                "p_tuning": "P-Tuning v1 is not there; PREFIX_TUNING is P-Tuning v2",
                "prompt_tuning": "prompt tuning is not there; PREFIX_TUNING is P-Tuning v2",
            }
        ),
        "method: LORA is lora, PREFIX_TUNING is ptuning",
    ),
    "max_input_length": Means(
        _input_and_output, "max_source_length; with the other, max_seq_length is the sum and 1"
    ),
    "max_output_length": Means(
        _input_and_output, "max_target_length; with the other, max_seq_length is the sum and 1"
    ),
    "num_proc": Left(_PREPARED),
    "test_file": Left("python -m finetune.evaluate RUN TEST_FILE scores it after the run"),
    "predict_with_generate": Left(_SCORED),
    "generation_config": Left(_SCORED),
    "generation_max_length": Left(_SCORED),
    "generation_num_beams": Left(_SCORED),
    "use_cpu": Means(_switch({"device": "cpu"}), "device: cpu where true"),
    "no_cuda": Means(_switch({"device": "cpu"}), "device: cpu where true"),
    "inference_mode": Refused("an adapter that does not learn cannot be trained", (False,)),
    "bias": Refused("biases do not learn with a LoRA here", ("none",)),
    "lora_bias": Refused("biases do not learn with a LoRA here", ("none", False)),
    # Firefly
    "task_type": Means(
        _one_of(
            {
                "": {},
                "sft": {},
                "causal_lm": {},
                "seq_2_seq_lm": {},
                "pretrain": "rows are conversations; pre-training on plain text is not there",
                "dpo": "training on preferences is not there; the chosen answers train as rows",
            }
        ),
        "nothing: sft and CAUSAL_LM are what is done",
    ),
    "train_mode": Means(
        _one_of({name: {"method": name} for name in ("lora", "qlora", "full")}), "method"
    ),
    "template_name": Means(
        _one_of(
            {
                "chatglm3": {"layout": "eos-per-turn"},
                "chatglm2": {"layout": "auto"},
                "glm4": {"layout": "auto"},
                "default": {"layout": "auto"},
                "": {},
            }
        ),
        "layout: chatglm3 is eos-per-turn, the others are the model's own",
    ),
    "use_unsloth": Refused("unsloth does not know this family; leave it out", (False,)),
    "tokenize_num_workers": Left(_PREPARED),
    "fp16": Means(_switch({"precision": "fp16"}), "precision: fp16 where true"),
    "bf16": Means(_switch({"precision": "bf16"}), "precision: bf16 where true"),
    # transformers_tasks LLM/finetune/train.py
    "use_lora": Means(_use_lora, "method: lora; false without use_ptuning is full"),
    "use_ptuning": Means(_switch({"method": "ptuning"}), "method: ptuning where true"),
    "img_log_dir": Means(_loss_image, "loss_image: IMG_LOG_DIR/IMG_LOG_NAME.png"),
    "img_log_name": Means(_loss_image, "loss_image: IMG_LOG_DIR/IMG_LOG_NAME.png"),
    # TrainingArguments that turn up in all of them
    "do_train": Refused(
        "training is what this does; python -m finetune.evaluate measures", (True,)
    ),
    "do_eval": Left("give dev_file, and the dev loss is measured"),
    "do_predict": Left(_SCORED),
    "save_strategy": Means(
        _one_of({"steps": {}, "no": {"save_interval": 0}, "epoch": _EPOCHS}),
        "save_interval: 0 where no",
    ),
    "evaluation_strategy": Means(
        _one_of({"steps": {}, "no": {}, "epoch": _EPOCHS}),
        "nothing: dev_file and eval_interval decide",
    ),
    "eval_strategy": Means(
        _one_of({"steps": {}, "no": {}, "epoch": _EPOCHS}),
        "nothing: dev_file and eval_interval decide",
    ),
    "logging_strategy": Means(_one_of({"steps": {}, "epoch": "the log goes by steps"}), "nothing"),
    "load_best_model_at_end": Left("the best by dev loss is kept beside the last, always"),
    "metric_for_best_model": Refused("the best is told by the dev loss", ("loss", "eval_loss")),
    "greater_is_better": Refused("the best is told by the dev loss", (False,)),
    "push_to_hub": Refused("nothing is sent anywhere; upload the finished folder", (False,)),
    "adam_beta1": Refused(_FIXED, (0.9,)),
    "adam_beta2": Refused(_FIXED, (0.999,)),
    "adam_epsilon": Refused(_FIXED, (1e-8, "1e-8")),
    "label_smoothing_factor": Refused("labels are not smoothed", (0, 0.0)),
    "neftune_noise_alpha": Refused("no noise is added to embeddings", (0, 0.0)),
    "torch_compile": Refused("the trainer does not compile the model", (False,)),
    "fsdp_config": Refused("finetune/configs/fsdp2.json is used; --fsdp turns it on", ("{}",)),
    "optim_args": Refused("an optimizer's own arguments cannot be given"),
    "lr_scheduler_kwargs": Refused("a schedule's own arguments cannot be given", ("{}",)),
    "dataloader_pin_memory": Left(),
    "dataloader_drop_last": Left(_OURS),
    "dataloader_prefetch_factor": Left(_OURS),
    "remove_unused_columns": Left(),
    "label_names": Left(),
    "disable_tqdm": Left(),
    "log_level": Left(),
    "logging_first_step": Left(),
    "logging_nan_inf_filter": Left("a loss that is no number ends the run, with its step"),
    "logging_dir": Left("the log is in the run's folder"),
    "run_name": Left("a run is called by its folder: output_dir"),
    "save_safetensors": Left(),
    "save_only_model": Left("a checkpoint always holds what resume needs"),
    "ddp_find_unused_parameters": Left(),
    "ddp_backend": Left(_OURS),
    "ddp_timeout": Left(_OURS),
    "data_seed": Left("seed is the one seed"),
    "tf32": Left(_OURS),
    "local_rank": Left(),
}
