"""What is wrong with options taken together, and with this model and machine; a sentence each.

`problems` needs neither torch nor the weights. A model that is still to be downloaded is checked
by `model_problems` once its folder is there. Each sentence names the value, why, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.files.sources import source
from finetune.formats import AUTO, FORMATS
from finetune.options.paths import new_path_problem, path_problem, run_folder_problem
from finetune.training.launching import machine_problems, world_problem
from finetune.training.machine import Machine, this_machine
from glm.checkpoint.hub import is_hub_id
from glm.checkpoint.recognise import EMBEDDED, ModelInfo, recognise
from glm.errors import CheckpointError

if TYPE_CHECKING:
    from finetune.config import TrainConfig

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:(?P<index>\d+))?")
_REPORTS = ("tensorboard", "wandb", "swanlab")
NEEDS_GPU = ("adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")


def problems(
    config: TrainConfig,
    environ: Mapping[str, str],
    machine: Machine | None = None,
    roots: Sequence[Path] = (),
) -> list[str]:
    """Everything that is wrong. `roots`: the only folders that may be read and written."""
    machine = machine or this_machine()
    found = chain(
        _method(config),
        _steps(config),
        _files(config, roots),
        _device(config, machine),
        _model(config),
        machine_problems(config, machine, environ),
        world_problem(config, environ),
    )
    return list(found)


# ---- options among themselves ----


def _method(config: TrainConfig) -> Iterator[str]:
    method, lora = config.method, config.method in ("lora", "qlora")
    if config.quantization_bit and method in ("full", "freeze"):
        yield (
            f"--quantization-bit is {config.quantization_bit}; quantised weights cannot learn: "
            "use --method lora, qlora or ptuning"
        )
    if config.quantization_bit == 8 and method == "qlora":
        yield "--quantization-bit is 8; qlora is 4 bits: use --method lora --quantization-bit 8"
    for name in ("dora", "rslora"):
        if getattr(config, name) and not lora:
            yield f"--{name} is a kind of LoRA; the method is {method}"
    if config.prefix_projection and method != "ptuning":
        yield f"--prefix-projection belongs to --method ptuning; the method is {method}"
    if config.adapter and method in ("full", "freeze"):
        yield (
            f"--adapter goes on training an adapter, and {method} trains the model itself: "
            "merge the adapter first (python -m glm.convert) and give the result as --model"
        )
    if config.adapter and config.resume:
        yield "--adapter begins a new run from an adapter and --resume goes on with a run: one only"


def _steps(config: TrainConfig) -> Iterator[str]:
    if 0 < config.max_steps <= config.warmup_steps:
        yield (
            f"--warmup-steps is {config.warmup_steps} and --max-steps is {config.max_steps}: "
            "the learning rate would never get to its peak"
        )
    if config.early_stopping and not config.dev_file:
        yield "--early-stopping goes by the dev loss: give a --dev-file"
    if config.eval_interval and not config.dev_file:
        yield "--eval-interval says when the dev loss is measured: give a --dev-file"
    wrong = [name for name in config.report_to if name not in _REPORTS]
    if wrong:
        yield f"--report-to is {' '.join(wrong)}; allowed: none, {', '.join(_REPORTS)}"


# ---- files ----


def _files(config: TrainConfig, roots: Sequence[Path]) -> Iterator[str]:
    if not config.train_file:
        yield "there is nothing to learn: give --train-file FILE"
    for option in ("train_file", "dev_file"):
        flag = f"--{option.replace('_', '-')}"
        for text in getattr(config, option):
            if problem := _source_problem(text, config.data_dir, roots):
                yield f"{flag} is {text!r}; {problem}"
    if config.format not in (AUTO, *FORMATS):
        yield f"--format is {config.format!r}; allowed: {AUTO}, {', '.join(FORMATS)}"
    for option in ("adapter", "deepspeed", "hostfile", "data_dir", "tokenizer"):
        if problem := _there(getattr(config, option), roots):
            yield f"--{option.replace('_', '-')} is {getattr(config, option)!r}; {problem}"
    yield from _run_files(config, roots)


def _run_files(config: TrainConfig, roots: Sequence[Path]) -> Iterator[str]:
    folder, resume, image = config.output_dir, config.resume, config.loss_image
    if folder and (problem := run_folder_problem(folder, bool(resume), roots)):
        yield f"--output-dir is {folder!r}; {problem}"
    if image and (problem := new_path_problem(image, roots)):
        yield f"--loss-image is {image!r}; {problem}"
    if not resume:
        return
    problem = path_problem(resume)
    if not problem and Path(resume).is_dir():
        problem = path_problem(resume, roots)
    elif not problem and not folder:
        problem = "give the run's folder too, as --output-dir"
    if problem:
        yield f"--resume is {resume!r}; {problem}"


def _there(text: str, roots: Sequence[Path]) -> str:
    """Why a file or folder that must exist cannot be used."""
    problem = path_problem(text, roots) if text else ""
    if text and not problem and not Path(text).expanduser().exists():
        return "there is nothing of this name"
    return problem


def _source_problem(text: str, folder: str, roots: Sequence[Path]) -> str:
    if path_problem(folder):
        return ""  # said of the folder
    if problem := path_problem(text):
        return problem
    try:
        path = source(text, folder).path
    except ValueError as error:
        return str(error)
    if problem := path_problem(str(path), roots):
        return problem
    return "" if path.exists() else f"there is no file or folder {path}"


# ---- the machine ----


def _device(config: TrainConfig, machine: Machine) -> Iterator[str]:
    match = _DEVICE.fullmatch(config.device)
    if not match:
        yield f"--device is {config.device!r}; allowed: auto, cpu, cuda, cuda:0, cuda:1 ..., mps"
        return
    wants_gpu = config.device.startswith("cuda")
    if wants_gpu and int(match["index"] or 0) >= len(machine.gpus):
        count = len(machine.gpus)
        yield f"--device is {config.device}; GPUs visible here: {count}; use --device auto"
        return
    if config.device == "mps":
        return
    gpu = wants_gpu or (config.device == "auto" and bool(machine.gpus))
    yield from _precision(config, machine, gpu)
    if config.attention == "flash_attention_2" and not gpu:
        yield "--attention is flash_attention_2, which needs a GPU; use auto"
    if config.optimizer in NEEDS_GPU and not gpu:
        yield f"--optimizer is {config.optimizer}, which needs a GPU; use --optimizer adamw"


def _precision(config: TrainConfig, machine: Machine, gpu: bool) -> Iterator[str]:
    if config.precision == "fp16" and not gpu:
        yield "--precision is fp16, which this CPU does not train in; use auto or fp32"
    if config.precision == "bf16" and not (machine.gpu_bf16 if gpu else machine.cpu_bf16):
        name = f"the {machine.gpus[0].name}" if gpu else "this CPU"
        other = "fp16 or fp32" if gpu else "fp32"
        yield f"--precision is bf16 and {name} has no bf16 instructions; use auto or {other}"


# ---- the model ----


def _model(config: TrainConfig) -> Iterator[str]:
    if config.model and (problem := path_problem(config.model)):
        yield f"--model is {config.model!r}; {problem}"
        return
    if path_problem(config.tokenizer) or (config.model and is_hub_id(config.model)):
        return
    try:
        info = recognise(config.model or EMBEDDED, config.tokenizer or None)
    except CheckpointError as error:
        yield f"--model: {error}"
        return
    yield from model_problems(config, info)


def model_problems(config: TrainConfig, info: ModelInfo) -> list[str]:
    """What does not fit the model whose folder is known."""
    found = []
    lengths = [("--max-seq-length", config.max_seq_length)]
    if config.layout in ("prompt-response", "chatglm1"):
        both = config.max_source_length + config.max_target_length
        lengths = [("--max-source-length and --max-target-length together", both)]
    for name, length in lengths:
        if length > info.context:
            found.append(
                f"{name} is {length} and the context of {info.name} is {info.context} tokens; "
                "use at most that"
            )
    width, layers = _first(info.config, "hidden_size"), _first(info.config, *_LAYERS)
    if config.method in ("lora", "qlora") and width and config.lora_rank > width:
        found.append(
            f"--lora-rank is {config.lora_rank} and the matrices of {info.name} have {width} rows "
            "or columns; a rank is smaller than that, mostly 4 to 64"
        )
    if config.method == "freeze" and layers and config.trainable_layers > layers:
        found.append(f"--trainable-layers is {config.trainable_layers} of {layers}")
    first = info.dialect == "chatglm"
    if config.layout != "auto" and first != (config.layout == "chatglm1"):
        which = "chatglm1" if first else "one of the others"
        found.append(f"--layout is {config.layout}; {info.name} ({info.family}) needs {which}")
    return found


_LAYERS = ("num_layers", "num_hidden_layers")


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)
