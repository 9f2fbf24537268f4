"""The processes that train together, and what each computes on and in.

One process needs nothing. Several are started by torchrun, whose number of processes is asserted:
some launchers end with success after training on one.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from transformers import TrainingArguments

from finetune.config import TrainConfig
from finetune.training import launching
from finetune.training.machine import this_machine
from finetune.training.run_folder import RunFolder
from glm.checkpoint.recognise import ModelInfo
from glm.device import SMALL, pick_device, pick_dtype
from glm.errors import BadRequest

NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "auto": "auto"}
OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}  # others: as they are
LARGE = 1_000_000_000  # parameters from which activations are computed twice, if nobody said


@dataclass(frozen=True, slots=True)
class Crew:
    """This process among all. `first` writes the files."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> Crew:
        """What torchrun, deepspeed or accelerate have told this process."""
        words = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
        rank, local, world = (int(os.environ.get(word, "0")) for word in words)
        return cls(rank, local, max(world, 1))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def check(self, arguments: TrainingArguments) -> None:
        """Raises BadRequest when Trainer runs in another number of processes than were started."""
        if arguments.world_size != self.world:
            raise BadRequest(
                f"{self.world} processes were started and {arguments.world_size} train together; "
                "start with python -m finetune.run, or with torchrun"
            )

    def leave(self, code: int) -> NoReturn:
        """End this process; of several, without Python's own end.

        The threads that talk to the other processes outlive their group. One that lets go of a
        tensor while Python ends aborts the process, and its launcher reports a run that failed.
        """
        if self.world == 1:
            sys.exit(code)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def shared(self, value: str) -> str:
        """The first process's value, in all."""
        if self.world == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]


def device_of(cfg: TrainConfig, crew: Crew) -> torch.device:
    """Of this process: the card of its number."""
    found = pick_device(cfg.device)
    if found.type == "cuda" and (crew.world > 1 or found.index is None):
        found = torch.device("cuda", crew.local_rank)
        torch.cuda.set_device(found)
    return found


def dtype_of(cfg: TrainConfig, info: ModelInfo, device: torch.device) -> torch.dtype:
    """What is computed in: bf16 where the device has it; fp32 for small models on a CPU."""
    kind = pick_dtype(NAMES[cfg.precision], device, info.parameters, info.file_dtype)
    slow = device.type == "cpu" and not this_machine().cpu_bf16
    if cfg.precision == "auto" and kind == torch.bfloat16 and slow:
        return torch.float32
    return torch.float32 if cfg.precision == "auto" and device.type == "mps" else kind


def threads(info: ModelInfo, device: torch.device) -> None:
    """A small model is no faster with two."""
    if device.type == "cpu" and info.parameters < SMALL // 10:
        torch.set_num_threads(1)


def arguments(
    cfg: TrainConfig, run: RunFolder, model: Any, device: torch.device, kind: torch.dtype
) -> TrainingArguments:
    """Trainer's own options, from ours; several processes find each other in here."""
    file = launching.deepspeed_file(cfg)
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it found nothing better
    if file:  # it builds with the ninja beside this Python, which need not be the shell's
        os.environ["PATH"] = launching.own_programs_first(os.environ)
        if not shutil.which("c++") and (compiler := this_machine().compiler):
            os.environ.setdefault("CXX", compiler)  # it knows one name only
    interval = cfg.save_interval or (1 << 40)
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        use_cpu=device.type == "cpu",
        bf16=kind == torch.bfloat16,
        fp16=kind == torch.float16,
        max_steps=1,  # set once the data is known
        per_device_train_batch_size=cfg.batch_size,
        gradient_accumulation_steps=cfg.accumulation,
        learning_rate=cfg.lr,
        lr_scheduler_type=_schedule(cfg),
        warmup_steps=cfg.warmup_steps or cfg.warmup_ratio,
        weight_decay=cfg.weight_decay,
        max_grad_norm=cfg.max_grad_norm,
        optim=OPTIMIZERS.get(cfg.optimizer, cfg.optimizer),
        seed=cfg.seed,
        logging_steps=cfg.log_interval,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=interval,
        eval_strategy="steps" if cfg.dev_file else "no",
        eval_steps=(cfg.eval_interval or interval) if cfg.dev_file else None,
        metric_for_best_model="loss" if cfg.dev_file else None,
        greater_is_better=False,
        ignore_data_skip=True,  # the stream knows its place
        remove_unused_columns=False,
        report_to="none",  # finetune/training/reports.py does
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
        deepspeed=str(file) if file else None,
        **({"fsdp": True, "fsdp_config": _layers(model)} if cfg.fsdp else {}),
    )


def _layers(model: Any) -> dict[str, Any]:
    """FSDP's settings, with the layers of this model as what is spread one by one."""
    layers = list(model._no_split_modules)
    return {**launching.fsdp_settings(), "transformer_layer_cls_to_wrap": layers}


def _schedule(cfg: TrainConfig) -> str:
    warms = cfg.warmup_steps or cfg.warmup_ratio
    return "constant_with_warmup" if cfg.schedule == "constant" and warms else cfg.schedule


def checkpoints_activations(cfg: TrainConfig, info: ModelInfo) -> bool:
    """Whether activations are computed twice."""
    asked = cfg.gradient_checkpointing
    return info.parameters > LARGE if asked is None else asked


def turn_on_checkpointing(model: Any) -> None:
    """On the model itself, and looked at: some models take the wish and do nothing."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    on = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    if not on:
        raise BadRequest(f"{type(model).__name__} has no gradient checkpointing; turn it off")
