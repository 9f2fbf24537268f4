"""The training loop: transformers' Trainer with our batches, our loss and our checkpoints.

The loss of a step is the sum over all its learnt tokens, of all its batches and processes, over
their number; so it does not depend on how the rows were dealt out. A step whose loss or gradient
is no number ends the run before it is learnt from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from finetune.batches.collate import Batch
from finetune.config import TrainConfig
from finetune.methods import Method, Result
from finetune.training import checkpoints, launching, pickles, shards
from finetune.training.checkpoints import Checkpoint
from finetune.training.ends import NotFinite, Stop
from finetune.training.progress import Progress
from finetune.training.resume import ABOUT, About
from finetune.training.run_folder import RunFolder
from finetune.training.wiring import loss_sum, tokens_in
from glm.adapters.card import Card, write_json
from glm.checkpoint.recognise import ModelInfo

SCHEDULER = "scheduler.pt"
STATE = "trainer_state.json"
STREAM = "stream-{}.json"  # of each process: where it stands in the data
LOSS = "loss-{}.json"  # of each process: the losses since the last line


class Stream(Protocol):
    """Batches of one process without end; `state` and `load` take it up where it stood."""

    @property
    def epoch(self) -> float: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Parts:
    """All that a loop works with. `dev` are this process's share of the dev batches."""

    model: Any
    method: Method
    cfg: TrainConfig
    info: ModelInfo
    card: Card
    about: About
    run: RunFolder
    stream: Stream
    dev: Iterable[Batch] | None
    stop: Stop


class Watch(TrainerCallback):
    """Epochs as the data counts them, and the wish to stop."""

    def __init__(self, parts: Parts, loop: Loop) -> None:
        self.parts, self.loop = parts, loop

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        state.compute_steps(args, state.max_steps)  # the intervals of now, not the checkpoint's
        self.loop.take_up()
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        state.epoch = self.parts.stream.epoch
        self.parts.stop.step = state.global_step
        control.should_log |= state.global_step >= state.max_steps
        if self.parts.stop.signal:
            control.should_save = control.should_training_stop = True
        return control


class Loop(Trainer):
    """Trains `parts.model` for `parts.about.steps` steps and saves in the run's folder."""

    def __init__(self, parts: Parts, arguments: TrainingArguments) -> None:
        self.parts = parts
        super().__init__(
            model=parts.model,
            args=arguments,
            eval_dataset=parts.dev,
            callbacks=[Watch(parts, self)],
        )
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        image = parts.cfg.loss_image
        self.progress = Progress(parts.run, parts.about.steps, self.args.device, image)
        self.first = self.is_world_process_zero()
        self._saved_step: int | None = None

    def together(self) -> str:
        """On what it trains, and how processes share the work: `cpu, 2 processes, FSDP2`."""
        world = self.parts.about.world
        way = "DDP" if world > 1 else ""
        if self.is_deepspeed_enabled:
            way = launching.effective(self.accelerator.state.deepspeed_plugin.deepspeed_config)
        elif self.is_fsdp_enabled:
            way = f"FSDP{self.accelerator.state.fsdp_plugin.fsdp_version}"
        several = f"{world} processes" if world > 1 else ""
        return ", ".join(filter(None, (str(self.args.device), several, way)))

    def run(self, last: Checkpoint | None) -> None:
        """Train from the beginning or from a checkpoint; not beyond the last step."""
        if last is not None and last.step >= self.parts.about.steps:
            self.state = TrainerState.load_from_json(str(last.path / STATE))
        else:
            with pickles.numbers_only(self.is_deepspeed_enabled):
                self.train(resume_from_checkpoint=str(last.path) if last else None)

    def create_accelerator_and_postprocess(self) -> None:
        """FSDP on the CPU too, where accelerate takes the wish and trains by DDP without a word."""
        super().create_accelerator_and_postprocess()
        if self.parts.cfg.fsdp and not self.is_fsdp_enabled and self.args.world_size > 1:
            state = self.accelerator.state
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            state.distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True

    # ---- batches and loss ----

    def get_train_dataloader(self) -> Any:
        return self.parts.stream

    def take_up(self) -> None:
        """Before the first step, which need not be the first of the run."""
        self.progress.meter.start(self.state.global_step)
        self.progress.best = self.state.best_metric

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> torch.Tensor:
        """Learnt tokens of the whole step, of all processes."""
        count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batch_samples)
        total = self.accelerator.reduce(torch.tensor(count, device=device), reduction="sum")
        return total.clamp(min=1)

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        self.progress.meter.tokens += tokens_in(inputs)
        loss = loss_sum(model, inputs) / num_items_in_batch
        if not math.isfinite(value := float(loss.detach())):
            raise NotFinite("loss", value, self.state.global_step + 1)
        return loss * self.accelerator.num_processes  # which average the gradients

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """In fp16 a scaler passes over steps whose gradients are too large; else they are wrong."""
        norm = super()._get_grad_norm(model, grad_norm)
        scaled = getattr(self.accelerator, "scaler", None) is not None
        if norm is not None and not scaled and not math.isfinite(value := float(norm)):
            raise NotFinite("gradient", value, self.state.global_step + 1)
        return norm

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The dev loss per learnt token; all processes take equally many steps."""
        with self.progress.meter.paused():
            metrics = {"eval_loss": self._dev_loss()}
        self.log(dict(metrics))
        self._stop_early()
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _dev_loss(self) -> float:
        model = self.model_wrapped
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in map(self._prepare_inputs, self.parts.dev or ()):
                learnt = (batch["labels"][:, 1:] != -100).sum()
                total += torch.stack((loss_sum(model, batch).double(), learnt.double()))
        total = self.accelerator.reduce(total, reduction="sum")
        model.train()
        return float(total[0] / total[1].clamp(min=1))

    def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:
        """A better dev loss is saved at once."""
        better = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= better
        return better

    def _stop_early(self) -> None:
        patience = self.parts.cfg.early_stopping
        losses = [row["eval_loss"] for row in self.state.log_history if "eval_loss" in row]
        since = len(losses) - 1 - losses.index(min(losses))
        if patience and since >= patience:
            self.parts.run.say(f"no better dev loss in {since} measurements: stopping early")
            self.control.should_training_stop = self.control.should_save = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Our line instead of a dictionary; reporting goes by Trainer's own callbacks."""
        state = self.state
        if "loss" in logs:
            tokens = torch.tensor(self.progress.meter.tokens, device=self.args.device)
            tokens = int(self.accelerator.reduce(tokens, reduction="sum"))
        super().log(logs)
        if not self.first:
            return
        if "loss" in logs:
            named = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm"}
            values = {new: float(logs[old]) for old, new in named.items() if old in logs}
            self.progress.train(state.global_step, state.epoch or 0.0, values, tokens)
        elif "eval_loss" in logs:
            self.progress.dev(state.global_step, state.epoch or 0.0, logs["eval_loss"])

    # ---- checkpoints ----

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if self._saved_step != step:
            with self.progress.meter.paused():
                self._write_checkpoint(step)
            self._saved_step = step

    def _write_checkpoint(self, step: int) -> None:
        run = self.parts.run
        part = run.checkpoints / f".partial-{step}"
        if self.first:
            part = checkpoints.begin(run.checkpoints, step)
        self.accelerator.wait_for_everyone()
        self.save_model(str(part), _internal_call=True)
        result = tuple(sorted(path.name for path in part.iterdir() if path.is_file()))
        self.accelerator.wait_for_everyone()
        self._save_optimizer_and_scheduler(str(part))
        self._save_scaler(str(part))
        self._save_rng_state(str(part))
        write_json(part / STREAM.format(self.args.process_index), self.parts.stream.state())
        unlogged = {"sum": float(self._tr_loss), "since": self._globalstep_last_logged}
        write_json(part / LOSS.format(self.args.process_index), unlogged)
        if self.first:
            self.state.save_to_json(str(part / STATE))
            write_json(part / ABOUT, asdict(self.parts.about))
        self.accelerator.wait_for_everyone()
        if self.first:
            self._finish(part, step, result)
        self.accelerator.wait_for_everyone()

    def _finish(self, part: Path, step: int, result: tuple[str, ...]) -> None:
        """The first process gives the checkpoint its name and tells what came of it."""
        found = checkpoints.finish(part, step, result)
        best = self.state.best_global_step
        checkpoints.rotate(found.path.parent, self.parts.cfg.keep_checkpoints, best)
        if best == step and self.state.best_metric is not None:
            self.progress.better(self.state.best_metric, found.path)
        self.progress.draw()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What users open, written by the first process."""
        parts, weights = self.parts, self._gathered()
        if self.first:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            parts.method.save(model, Path(str(output_dir)), Result(parts.card, parts.info, weights))

    def _gathered(self) -> dict[str, Any] | None:
        """What learns, of a whole method everything, where processes hold a part each."""
        whole = self.parts.method.whole
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            found: dict[str, Any] | None = self.deepspeed._zero3_consolidated_16bit_state_dict(
                exclude_frozen_parameters=not whole
            )
            return found or {}
        return shards.gathered(self.model, whole, self.first) if self.is_fsdp_enabled else None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        shards.write(self.model, Path(output_dir), self.first)
        shards.write_optimizer(self.optimizer, Path(output_dir), self.args.process_index)
        if self.first:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.is_fsdp_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        folder = Path(checkpoint)
        shards.read_optimizer(self.optimizer, folder, self.args.process_index)
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            shards.read(self.model, Path(resume_from_checkpoint))
        else:
            self.parts.method.load(self.model, Path(resume_from_checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Random numbers, the place in the data, and the losses that no line has told yet."""
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            file = Path(checkpoint) / STREAM.format(self.args.process_index)
            self.parts.stream.load(json.loads(file.read_text(encoding="utf-8")))
            file = Path(checkpoint) / LOSS.format(self.args.process_index)
            if file.exists():  # older checkpoints have none
                unlogged = json.loads(file.read_text(encoding="utf-8"))
                self._tr_loss.fill_(unlogged["sum"])
                self._globalstep_last_logged = unlogged["since"]
