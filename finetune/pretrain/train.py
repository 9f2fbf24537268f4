"""Trains the embedded model from nothing on dialogues made as it goes.

    python -m finetune.pretrain.train --minutes 90 --out /var/tmp/tiny
    python -m finetune.pretrain.train --minutes 150 --out /var/tmp/tiny --resume

A run is a folder: tokenizer.model, log.jsonl, last.pt. It may be killed at any
moment; `--resume` continues with the same batches, and reads the generator's files anew. Progress
and the learning rate go by the minutes spent in training, over all starts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from finetune.pretrain import tokenizer as pieces
from finetune.pretrain.batches import Batches
from finetune.pretrain.model import Batch, Network, Shape, start
from finetune.pretrain.optim import optimizers
from glm.tokenizer import Tokenizer

MUON_LR, ADAM_LR = 0.02, 3e-3
WARM_STEPS = 30
HOLD = 0.45  # share of the run at the full rate; then linear to 2 %
AVERAGE = 0.99  # of the weights over the last steps; that is what is exported


@dataclass(slots=True)
class Progress:
    """What a run has done so far."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    learnt: int = 0


def rate(step: int, share: float) -> float:
    """The factor on the learning rates."""
    warm = min(1.0, (step + 1) / WARM_STEPS)
    return warm * (1.0 if share < HOLD else max(0.02, (1 - share) / (1 - HOLD)))


def save(path: Path, state: dict[str, object]) -> None:
    """Writes a checkpoint so that a kill leaves the old one or the new one, whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class Run:
    """One training run in its folder."""

    def __init__(self, out: Path, device: str, seed: int, resume: bool) -> None:
        self.out, self.device, self.seed = out, device, seed
        self.file = out / "last.pt"
        if self.file.exists() and not resume:
            raise SystemExit(
                f"{self.file} exists; continue it with --resume or choose another --out"
            )
        if not (out / "tokenizer.model").exists():
            pieces.train(out)
        tokenizer = Tokenizer.open(out)
        self.batches = Batches(tokenizer)
        self.progress = Progress()
        state = torch.load(self.file, weights_only=True, map_location=device) if resume else None
        shape = Shape(**state["shape"]) if state else Shape(vocab=-(-tokenizer.size // 64) * 64)
        self.net = Network(shape).to(device)
        start(self.net, seed)
        self.optimizers = optimizers(self.net, MUON_LR, ADAM_LR)
        self.average = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        if state:
            self._load(state)

    def _load(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def save(self) -> None:
        state = {
            "shape": asdict(self.net.shape),
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        save(self.file, state)

    def step(self, share: float) -> tuple[float, float]:
        """One optimizer step; returns loss and share of right tokens."""
        progress = self.progress
        batch = self.batches.make(f"{self.seed}:{progress.step}", share).to(self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss, right = self.net.loss(batch)
        loss.backward()
        factor = rate(progress.step, share)
        for optimizer, full in zip(self.optimizers, (MUON_LR, ADAM_LR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * factor
            optimizer.step()
            optimizer.zero_grad()
        keep = min(AVERAGE, (progress.step + 1) / (progress.step + 10))
        for name, weight in self.net.named_parameters():
            self.average[name].lerp_(weight.detach(), 1 - keep)
        progress.step += 1
        tokens, learnt = count(batch)
        progress.tokens += tokens
        progress.learnt += learnt
        return loss.item(), right.item()


def count(batch: Batch) -> tuple[int, int]:
    """(all tokens, learnt tokens) of a batch."""
    rows: list[Tensor] = [*batch.prompts, *(group.ids for group in batch.groups)]
    return sum(r.numel() for r in rows), sum(int(g.learn.sum()) for g in batch.groups)


def train(run: Run, minutes: float, log_every: int = 25, save_seconds: float = 90) -> None:
    """Steps until the run has had `minutes` of training."""
    log = (run.out / "log.jsonl").open("a", encoding="utf-8")
    losses: list[tuple[float, float]] = []
    saved = clock = time.monotonic()
    while run.progress.seconds < minutes * 60:
        losses.append(run.step(run.progress.seconds / (minutes * 60)))
        now = time.monotonic()
        run.progress.seconds += now - clock
        clock = now
        if run.progress.step % log_every == 0:
            mean = [round(sum(column) / len(losses), 4) for column in zip(*losses, strict=True)]
            losses = []
            line = {**asdict(run.progress), "loss": mean[0], "right": mean[1]}
            line["seconds"] = round(run.progress.seconds)
            log.write(json.dumps(line) + "\n")
            log.flush()
            print(json.dumps(line), flush=True)
        if now - saved > save_seconds:
            run.save()
            saved = now
    run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=90, help="training time over all starts")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    train(Run(args.out, args.device, args.seed, args.resume), args.minutes)


if __name__ == "__main__":
    main()
