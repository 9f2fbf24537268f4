"""What a run says while it goes on: the line people know, metrics.jsonl, loss.png.

global step 40 (20.00%), epoch: 0.60, loss: 1.2345, speed: 3.10 step/s, 5120 tokens/s, ...
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finetune.run_folder import RunFolder
from glm.memory import read_memory


@dataclass
class Meter:
    """Steps, tokens and seconds since the last line."""

    step: int = 0
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)

    def start(self, step: int) -> None:
        self.step, self.tokens, self.since = step, 0, time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is measured or saved within does not count as training."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.since += time.perf_counter() - began


@dataclass
class Progress:
    """The log of one run. `total` steps in all; `image` is a second place for the picture."""

    run: RunFolder
    total: int
    device: torch.device
    image: str = ""
    best: float | None = None
    meter: Meter = field(default_factory=Meter)

    def train(self, step: int, epoch: float, values: dict[str, float], tokens: int) -> None:
        """A line about the last steps; `values` has their loss, lr and gradient norm."""
        seconds = max(time.perf_counter() - self.meter.since, 1e-9)
        speed = (step - self.meter.step) / seconds
        rate = tokens / seconds
        memory = memory_in_use(self.device)
        left = (self.total - step) / speed if speed else 0.0
        self.run.say(
            f"global step {step} ({step / max(self.total, 1):.2%}), epoch: {epoch:.2f}, "
            f"loss: {values['loss']:.5f}, speed: {speed:.2f} step/s, {rate:.0f} tokens/s, "
            f"memory: {memory / 1e6:.0f} MB, time left: {clock(left)}"
        )
        about = {"steps_per_second": round(speed, 4), "tokens_per_second": round(rate, 1)}
        self.run.measure(
            {"step": step, "epoch": round(epoch, 4), **values, **about, "memory": memory}
        )
        self.meter.start(step)

    def dev(self, step: int, epoch: float, loss: float) -> None:
        """A line about the dev loss."""
        self.run.say(f"global step {step}, epoch: {epoch:.2f}, dev loss: {loss:.5f}")
        self.run.measure({"step": step, "epoch": round(epoch, 4), "dev_loss": loss})

    def better(self, loss: float, checkpoint: Path) -> None:
        """The dev loss is the least so far, and `checkpoint` has that model."""
        before = "none" if self.best is None else f"{self.best:.5f}"
        self.best = loss
        self.run.say(f"best dev loss: {before} --> {loss:.5f}, saved as {checkpoint}")

    def draw(self) -> None:
        """loss.png of all that was measured, replacing the one before at once."""
        rows = self.run.measured()
        if not rows:
            return
        passing = self.run.path / ".loss.png"
        draw(rows, passing)
        if self.image:
            Path(self.image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(passing, self.image)
        passing.replace(self.run.picture)


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """The train and dev losses of metrics.jsonl's rows over the steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for key, name, style in (("loss", "train", "-"), ("dev_loss", "dev", "o-")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name, markersize=4)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, format="png", dpi=110)


def memory_in_use(device: torch.device) -> int:
    """The most bytes of a card so far; on a CPU what this process holds."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return read_memory().process


def clock(seconds: float) -> str:
    """1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
