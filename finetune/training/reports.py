"""Where a run's measurements go beside metrics.jsonl: TensorBoard's file always, others on demand.

    with opened(cfg, run, step=0) as reports:      # BadRequest when one cannot begin
        reports.log({"step": 10, "loss": 1.2})

Names are those of transformers' Trainer (`train/loss`, `eval/loss`), so that earlier runs stand
beside. W&B and SwanLab are programs of other people: they are imported only when asked for, in
the versions that are installed, and write into the run's folder. What they send, and where to,
is theirs; WANDB_MODE=offline and SWANLAB_MODE=offline keep it on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from finetune.config import TrainConfig
from finetune.training.run_folder import RunFolder
from finetune.training.tensorboard import EventFile
from glm.errors import BadRequest

PROJECT = "glm-workbench"
NAMES = {
    "loss": "train/loss",
    "lr": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "steps_per_second": "train/steps_per_second",
    "tokens_per_second": "train/tokens_per_second",
    "memory": "train/memory",
    "epoch": "train/epoch",
    "dev_loss": "eval/loss",
}


class Writer(Protocol):
    """A log of somebody else's. `sends`: whether it leaves this machine."""

    sends: bool

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self, failed: bool) -> None: ...


class Wandb:
    """Weights & Biases."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            dir=os.environ.get("WANDB_DIR", str(folder)),
            config=options,
        )
        self.sends = not self.run.offline

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class Swanlab:
    """SwanLab."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        import swanlab

        named = {} if "SWANLAB_LOG_DIR" in os.environ else {"log_dir": str(folder / "swanlog")}
        project = os.environ.get("SWANLAB_PROJECT", PROJECT)
        self.run = swanlab.init(project=project, name=folder.name, config=options, **named)
        self.sends = os.environ.get("SWANLAB_MODE", "online") not in ("offline", "local")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(state="crashed", error="see train.log") if failed else self.run.finish()


WRITERS: dict[str, Callable[[Path, dict[str, Any]], Writer]] = {
    "wandb": Wandb,
    "swanlab": Swanlab,
}


def require(names: Sequence[str]) -> None:
    """Raises BadRequest for a log nobody can write here."""
    missing = [name for name in names if name in WRITERS and find_spec(name) is None]
    if missing:
        there = " and ".join(missing)
        raise BadRequest(f"--report-to: {there} is not installed; pip install {' '.join(missing)}")


@dataclass
class Reports:
    """All of them. A writer that fails is left out from then on: no run is lost for a log."""

    run: RunFolder
    events: EventFile
    writers: dict[str, Writer]

    def log(self, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl."""
        shown = row if "loss" in row else {"dev_loss": row["dev_loss"]}
        values = {NAMES[key]: float(value) for key, value in shown.items() if key in NAMES}
        self.events.log(values, row["step"])
        for name, writer in list(self.writers.items()):
            try:
                writer.log(values, row["step"])
            except Exception as error:  # border: a program of other people
                del self.writers[name]
                self.run.say(f"{name} is left out from here on: {_first_line(error)}")

    def __enter__(self) -> Reports:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.events.close()
        for name, writer in self.writers.items():
            try:
                writer.close(error is not None)
            except Exception as failure:  # border: a program of other people
                self.run.say(f"{name} could not be ended: {_first_line(failure)}")


def opened(cfg: TrainConfig, run: RunFolder, step: int) -> Reports:
    """Begin after `step`. Raises BadRequest when a writer that was asked for cannot begin."""
    writers: dict[str, Writer] = {}
    for name in cfg.report_to:
        if name not in WRITERS:
            continue
        quiet = f"{name.upper()}_MODE=offline keeps everything here"
        try:
            writers[name] = WRITERS[name](run.path, asdict(cfg))
        except Exception as error:  # border: a program of other people
            raise BadRequest(
                f"--report-to: {name} cannot begin: {_first_line(error)}. "
                f"Log in once with: {name} login; {quiet}"
            ) from error
        if writers[name].sends:
            run.say(f"{name} sends losses, options and facts about this machine away; {quiet}")
    return Reports(run, EventFile(run.path / "tensorboard", step), writers)


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.rstrip(".")[:200]
