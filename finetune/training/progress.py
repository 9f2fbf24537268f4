"""What a run says while it goes on: the line people know, metrics.jsonl, loss.png.

global step 40 (20.00%), epoch: 0.60, loss: 1.2345, speed: 3.10 step/s, 5120 tokens/s, ...
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finetune.training.reports import Reports
from finetune.training.run_folder import RunFolder
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
    reports: Reports | None = None
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
        self._measure({"step": step, "epoch": round(epoch, 4), **values, **about, "memory": memory})
        self.meter.start(step)

    def dev(self, step: int, epoch: float, loss: float) -> None:
        """A line about the dev loss."""
        self.run.say(f"global step {step}, epoch: {epoch:.2f}, dev loss: {loss:.5f}")
        self._measure({"step": step, "epoch": round(epoch, 4), "dev_loss": loss})

    def _measure(self, row: dict[str, Any]) -> None:
        self.run.measure(row)
        if self.reports is not None:
            self.reports.log(row)

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


# The colours of the page: what is learnt, and what it is measured on.
TRAIN, DEV, INK, FAINT = "#1f7a68", "#c8762b", "#1f2421", "#8b938d"
MANY = 80  # points of a line, from which on its mean is drawn over it


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """The train and dev losses of metrics.jsonl's rows over the steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    train, dev = ([(r["step"], r[k]) for r in rows if k in r] for k in ("loss", "dev_loss"))
    if train:
        _train_line(axes, train)
    if dev:
        best = min(dev, key=lambda point: point[1])
        name = f"dev, best {best[1]:.4g} at step {best[0]}"
        axes.plot(*zip(*dev, strict=True), "o-", color=DEV, markersize=4, label=name, zorder=4)
        axes.plot(*best, "o", color=DEV, markersize=9, markeredgecolor="white", zorder=5)
    axes.margins(y=0.1)
    axes.set_xlabel("step", color=FAINT)
    axes.set_ylabel("loss", color=FAINT)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.8)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    figure.savefig(file, format="png", dpi=150)


def _train_line(axes: Any, points: list[tuple[int, float]]) -> None:
    """The line, a point where it is one; of many points their mean over it."""
    steps, losses = zip(*points, strict=True)
    if len(points) < MANY:
        axes.plot(steps, losses, "-" if len(points) > 1 else "o", color=TRAIN, label="train")
        return
    axes.plot(steps, losses, color=TRAIN, alpha=0.3, linewidth=0.8)
    sums = [0.0, *itertools.accumulate(losses)]
    reach, last = len(losses) // 40, len(losses)
    spans = [(max(0, n - reach), min(last, n + reach + 1)) for n in range(last)]
    means = [(sums[end] - sums[start]) / (end - start) for start, end in spans]
    axes.plot(steps, means, color=TRAIN, linewidth=1.8, label="train, smoothed")


def memory_in_use(device: torch.device) -> int:
    """The most bytes of a card so far; on a CPU what this process holds."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return read_memory().process


def clock(seconds: float) -> str:
    """1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
