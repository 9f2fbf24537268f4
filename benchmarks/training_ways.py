"""One way to train in a process of its own, a step each time it is told to: for training.py.

    python -m benchmarks.training_ways ours JOB.json      (unfused, official, trl likewise)

A line on stdin is a step, the end of stdin the end. Each step is answered by a line `@step {...}`:
loss, seconds and CPU-seconds (user and system, of the process and its children) from the word to
the step's loss, data and optimizer included. The first also tells the hashes of the rows it saw.
All ways load the same model, add the same LoRA and take the same arguments; they differ in how the
rows come to the model, and in its loss. `trl` runs in an environment that has TRL beside ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from finetune import before, config, train  # noqa: F401  (before PEFT)
from finetune.config import TrainConfig
from finetune.methods import METHODS
from finetune.training import machines, wiring
from finetune.training.ends import Stop
from finetune.training.loop import Loop
from finetune.training.machines import Crew
from finetune.training.run_folder import RunFolder
from glm.checkpoint.recognise import ModelInfo, recognise
from glm.load import load_model

NOT_LEARNT = -100
MARK = "@step "
# What TRL takes of our arguments; the rest is Trainer's default in both
SAME = (
    *("output_dir", "use_cpu", "bf16", "fp16", "max_steps", "learning_rate", "lr_scheduler_type"),
    *("warmup_steps", "weight_decay", "max_grad_norm", "optim", "seed", "logging_steps"),
    *("remove_unused_columns", "dataloader_pin_memory", "report_to"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """What all ways train: options of ours, and the rows as (ids, labels)."""

    argv: list[str]
    rows: list[tuple[list[int], list[int]]]

    @property
    def cfg(self) -> TrainConfig:
        return config.load_config(self.argv)


@dataclass
class Turns(TrainerCallback):
    """Waits for its turn, trains one step, tells what it took."""

    seen: list[str] | None = field(default_factory=list)
    since: tuple[float, float] = (0.0, 0.0)
    tokens: int = 0  # of the step, padding too

    def saw(self, batch: dict[str, Any]) -> None:
        self.tokens += batch["input_ids"].numel()
        if self.seen is not None:
            self.seen += map(digest, rows_of(batch))

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        print(MARK + json.dumps({"ready": True}), flush=True)
        self.wait()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in (logs or {}):
            return
        wall, cpu = clocks()
        told: dict[str, Any] = {
            "loss": float(logs["loss"]),
            "wall": wall - self.since[0],
            "cpu": cpu - self.since[1],
        }
        told["tokens"], self.tokens = self.tokens, 0
        if torch.cuda.is_available():
            told["peak_mib"] = torch.cuda.max_memory_allocated() >> 20
        if self.seen is not None:
            told["rows"], self.seen = sorted(self.seen), None
        print(MARK + json.dumps(told), flush=True)
        self.wait()

    def wait(self) -> None:
        if not sys.stdin.readline():
            sys.stdout.flush()
            os._exit(0)  # nothing that trainers do at their end is wanted
        self.since = clocks()


def clocks() -> tuple[float, float]:
    """Now, in wall and in CPU-seconds."""
    return time.perf_counter(), sum(os.times()[:4])


def rows_of(batch: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """The rows in a batch of any way: padded with zeros behind, or packed with positions."""
    for line, ids in enumerate(batch["input_ids"].tolist()):
        labels = batch["labels"][line].tolist()
        places = batch["position_ids"][line].tolist() if "position_ids" in batch else [0]
        starts = [at for at, place in enumerate(places) if place == 0]
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            end = stop
            while end > start and ids[end - 1] == 0 and labels[end - 1] == NOT_LEARNT:
                end -= 1
            if end > start:
                yield ids[start:end], labels[start:end]


def digest(row: tuple[list[int], list[int]]) -> str:
    """Of ids and labels; the first token is never predicted, so its label says nothing."""
    ids, labels = row
    return hashlib.sha256(json.dumps([ids, labels[1:]]).encode()).hexdigest()[:16]


def watched(trainer: type[Trainer], turns: Turns) -> Any:
    """The trainer, showing its batches."""

    class Watched(trainer):  # type: ignore[misc,valid-type]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
            turns.saw(inputs)
            return super().compute_loss(model, inputs, *rest, **options)

    return Watched


def opened(cfg: TrainConfig, run: RunFolder) -> tuple[ModelInfo, Any, TrainingArguments]:
    """Model with LoRA, and Trainer's arguments, as finetune/train.py makes them."""
    info = recognise(Path(cfg.model), cfg.tokenizer or None)
    device = machines.device_of(cfg, Crew())
    kind = machines.dtype_of(cfg, info, device)
    machines.threads(info, device)
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    model = load_model(info, str(device), str(kind).removeprefix("torch."))
    model = METHODS[cfg.method].apply(model, cfg)
    arguments = machines.arguments(cfg, run, model, device, kind)
    arguments.max_steps = cfg.max_steps
    return info, model, arguments


# ---- the ways ----


def ours(job: Job, turns: Turns) -> None:
    """`python -m finetune.train`, whole."""

    class Told(watched(Loop, turns)):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.add_callback(turns)

    train.Loop = Told  # type: ignore[misc]
    run = RunFolder(Path(job.cfg.output_dir))
    with run.claimed():
        train.train(job.cfg, run, Crew(), Stop())


def unfused(job: Job, turns: Turns) -> None:
    """Ours, with the library's own forward of every module."""
    wiring.fuse = lambda _: 0
    ours(job, turns)


def official(job: Job, turns: Turns) -> None:
    """Every row padded to the full length, no attention mask, the model's own loss over all."""
    run = RunFolder(Path(job.cfg.output_dir))
    _, model, arguments = opened(job.cfg, run)
    length = job.cfg.max_seq_length
    rows = [
        {
            "input_ids": ids + [0] * (length - len(ids)),
            "labels": labels + [NOT_LEARNT] * (length - len(labels)),
        }
        for ids, labels in job.rows
    ]
    trainer = watched(Trainer, turns)(
        model=model, args=stepping(arguments, len(rows)), train_dataset=rows, callbacks=[turns]
    )
    trainer.train()


def trl(job: Job, turns: Turns) -> None:
    """TRL's SFTTrainer with packing, of rows whose labels are made before."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer, pack_dataset

    run = RunFolder(Path(job.cfg.output_dir))
    _, model, arguments = opened(job.cfg, run)
    rows = Dataset.from_dict(
        {"input_ids": [row[0] for row in job.rows], "labels": [row[1] for row in job.rows]}
    )
    length = job.cfg.max_seq_length
    bins = len(pack_dataset(rows, length, "bfd"))
    options = {name: getattr(arguments, name) for name in SAME}
    words = Tokenizer(WordLevel({"pad": 0, "end": 2}, unk_token="pad"))  # it only names the pad
    trainer = watched(SFTTrainer, turns)(
        model=model,
        args=SFTConfig(
            **options,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=bins,
            save_strategy="no",
            packing=True,
            max_length=length,
            gradient_checkpointing=False,
        ),
        train_dataset=rows,
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="pad", eos_token="end"
        ),
        callbacks=[turns],
    )
    trainer.train()


def stepping(arguments: TrainingArguments, batches: int) -> TrainingArguments:
    """A step is all rows, a batch one line, as in ours."""
    arguments.per_device_train_batch_size = 1
    arguments.gradient_accumulation_steps = batches
    arguments.save_strategy = "no"
    return arguments


WAYS: dict[str, Callable[[Job, Turns], None]] = {
    "ours": ours, "unfused": unfused, "official": official, "trl": trl,
}  # fmt: skip


if __name__ == "__main__":
    WAYS[sys.argv[1]](Job(**json.loads(Path(sys.argv[2]).read_text("utf-8"))), Turns())
